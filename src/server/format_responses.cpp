// OpenAI's Responses API.
#include "server/formatter.h"

namespace mete {
namespace {

class ResponsesFormatter final : public Formatter {
 public:
  explicit ResponsesFormatter(const AnswerInfo& info) : info_(info) {}

  std::string begin(const std::vector<Choice>&) override {
    const Json response = object("in_progress", Json::array());
    std::string out = event("response.created", {{"response", response}});
    out += event("response.in_progress", {{"response", response}});
    return out;
  }

  std::string progress(size_t, const PromptProgress& progress, const JobTimes* times) override {
    Json fields = {{"response", object("in_progress", output_)}};
    if (times != nullptr) fields["timings"] = timings_json(times->ledger, times->generated);
    fields["prompt_progress"] = progress_json(progress);
    return event("response.in_progress", fields);
  }

  std::string piece(size_t, const Choice&, const Piece& piece) override {
    const OutputPiece& output = piece.output;
    timings_ = piece.times ? timings_json(piece.times->ledger, piece.times->generated) : Json(nullptr);
    std::string out;
    if (!output.reasoning.empty()) {
      out += open("reasoning");
      out += delta("response.reasoning_text.delta", output.reasoning);
    }
    if (!output.text.empty()) {
      out += open("message");
      out += delta("response.output_text.delta", output.text);
    }
    for (const ToolCall& call : output.tool_calls) out += function_call(call);
    return out;
  }

  std::string finish(size_t, const std::vector<Choice>& choices, bool) override {
    std::string out;
    if (output_.empty() && open_.empty()) out += open("message");
    out += close();
    const bool complete = choices[0].end->reason == FinishReason::kStop;
    Json response = final_object(choices, output_);
    Json timings = response["timings"];
    return out + event(complete ? "response.completed" : "response.incomplete",
                       {{"response", std::move(response)}, {"timings", std::move(timings)}});
  }
  std::string end(const std::vector<Choice>&) override { return ""; }
  std::string error(const ApiError& error) override {
    return event("error", {{"code", error.code}, {"message", error.message}, {"param", nullptr}});
  }

  Json whole(const std::vector<Choice>& choices) override {
    const Choice& choice = choices[0];
    Json output = Json::array();
    if (!choice.reasoning.empty()) output.push_back(reasoning_item(0, choice.reasoning));
    if (!choice.text.empty() || choice.tool_calls.empty()) {
      output.push_back(message_item(output.size(), choice.text, "completed"));
    }
    for (const ToolCall& call : choice.tool_calls) output.push_back(call_item(output.size(), call));
    return final_object(choices, output);
  }

 private:
  std::string item_id(const char* prefix, size_t index) const {
    return fmt::format("{}_{}_{}", prefix, info_.id.substr(info_.id.find('_') + 1), index);
  }
  Json message_item(size_t index, const std::string& text, const char* status) const {
    Json content = Json::array();
    if (std::string_view(status) == "completed") content.push_back(text_part(text));
    return {{"type", "message"},
            {"id", item_id("msg", index)},
            {"status", status},
            {"role", "assistant"},
            {"content", std::move(content)}};
  }
  Json reasoning_item(size_t index, const std::string& text) const {
    Json content = Json::array();
    if (!text.empty()) content.push_back({{"type", "reasoning_text"}, {"text", text}});
    return {{"type", "reasoning"},
            {"id", item_id("rs", index)},
            {"summary", Json::array()},
            {"content", std::move(content)}};
  }
  Json call_item(size_t index, const ToolCall& call) const {
    return {{"type", "function_call"}, {"id", item_id("fc", index)},  {"call_id", call.id},
            {"name", call.name},       {"arguments", call.arguments}, {"status", "completed"}};
  }
  static Json text_part(const std::string& text) {
    return {
        {"type", "output_text"}, {"text", text}, {"annotations", Json::array()}, {"logprobs", Json::array()}};
  }

  Json object(const char* status, Json output) const {
    const Json& echo = info_.request.echo;
    const auto or_default = [&](const char* name, Json value) { return echo.value(name, std::move(value)); };
    return {{"id", info_.id},
            {"object", "response"},
            {"created_at", info_.created},
            {"status", status},
            {"error", nullptr},
            {"incomplete_details", nullptr},
            {"instructions", or_default("instructions", nullptr)},
            {"max_output_tokens", or_default("max_output_tokens", nullptr)},
            {"model", info_.model->name},
            {"output", std::move(output)},
            {"parallel_tool_calls", or_default("parallel_tool_calls", true)},
            {"previous_response_id", nullptr},
            {"reasoning", or_default("reasoning", {{"effort", nullptr}, {"summary", nullptr}})},
            {"store", false},
            {"temperature", info_.request.sampling.temperature},
            {"text", or_default("text", {{"format", {{"type", "text"}}}})},
            {"tool_choice", or_default("tool_choice", "auto")},
            {"tools", or_default("tools", Json::array())},
            {"top_p", info_.request.sampling.top_p},
            {"truncation", "disabled"},
            {"usage", nullptr},
            {"metadata", or_default("metadata", Json::object())}};
  }
  Json final_object(const std::vector<Choice>& choices, Json output) const {
    const JobEnd& end = *choices[0].end;
    const bool complete = end.reason == FinishReason::kStop;
    Json out = object(complete ? "completed" : "incomplete", std::move(output));
    if (!complete) out["incomplete_details"] = {{"reason", "max_output_tokens"}};
    const TokenCounts counts = count_tokens(info_, choices);
    out["usage"] = {{"input_tokens", counts.prompt},
                    {"input_tokens_details", {{"cached_tokens", counts.cached}}},
                    {"output_tokens", counts.generated},
                    {"output_tokens_details", {{"reasoning_tokens", 0}}},
                    {"total_tokens", counts.prompt + counts.generated}};
    out["timings"] = timings_json(end.ledger, end.generated);
    out["mete"] = receipt_json(info_, choices);
    return out;
  }

  std::string event(const char* type, const Json& fields) {
    Json out = {{"type", type}, {"sequence_number", sequence_++}};
    for (const auto& [key, value] : fields.items()) out[key] = value;
    return sse(to_text(out), type);
  }
  Json place() const {
    const bool message = open_ == "message";
    return {{"item_id", item_id(message ? "msg" : "rs", output_.size())},
            {"output_index", output_.size()},
            {"content_index", 0}};
  }
  std::string with_place(const char* type, Json fields) {
    Json out = place();
    for (const auto& [key, value] : fields.items()) out[key] = value;
    return event(type, out);
  }
  std::string delta(const char* type, const std::string& text) {
    text_ += text;
    Json fields = {{"delta", text}};
    if (open_ == "message") fields["logprobs"] = Json::array();
    if (!timings_.is_null()) fields["timings"] = timings_;
    return with_place(type, std::move(fields));
  }
  /// Starts an item of `kind` unless one is open.
  std::string open(const std::string& kind) {
    if (open_ == kind) return "";
    std::string out = close();
    open_ = kind;
    text_.clear();
    const bool message = kind == "message";
    const Json item =
        message ? message_item(output_.size(), "", "in_progress") : reasoning_item(output_.size(), "");
    out += event("response.output_item.added", {{"output_index", output_.size()}, {"item", item}});
    if (message) out += with_place("response.content_part.added", {{"part", text_part("")}});
    return out;
  }
  std::string close() {
    if (open_.empty()) return "";
    std::string out;
    Json item;
    if (open_ == "message") {
      out += with_place("response.output_text.done", {{"text", text_}, {"logprobs", Json::array()}});
      out += with_place("response.content_part.done", {{"part", text_part(text_)}});
      item = message_item(output_.size(), text_, "completed");
    } else {
      out += with_place("response.reasoning_text.done", {{"text", text_}});
      item = reasoning_item(output_.size(), text_);
    }
    out += event("response.output_item.done", {{"output_index", output_.size()}, {"item", item}});
    output_.push_back(std::move(item));
    open_.clear();
    return out;
  }
  std::string function_call(const ToolCall& call) {
    std::string out = close();
    const size_t index = output_.size();
    Json item = call_item(index, call);
    Json started = item;
    started["arguments"] = "";
    started["status"] = "in_progress";
    const Json where = {{"item_id", item["id"]}, {"output_index", index}};
    Json added = where, done = where;
    added["delta"] = call.arguments;
    if (!timings_.is_null()) added["timings"] = timings_;
    done["arguments"] = call.arguments;
    done["name"] = call.name;
    out += event("response.output_item.added", {{"output_index", index}, {"item", started}});
    out += event("response.function_call_arguments.delta", added);
    out += event("response.function_call_arguments.done", done);
    out += event("response.output_item.done", {{"output_index", index}, {"item", item}});
    output_.push_back(std::move(item));
    return out;
  }

  const AnswerInfo& info_;
  int64_t sequence_ = 0;
  Json output_ = Json::array();  // finished items
  Json timings_;                 // of the piece under way (timings_per_token)
  std::string open_, text_;      // kind of the open item, or ""; its text so far
};

}  // namespace

std::unique_ptr<Formatter> make_responses_formatter(const AnswerInfo& info) {
  return std::make_unique<ResponsesFormatter>(info);
}

}  // namespace mete
