// Anthropic's Messages API.
#include "server/formatter.h"

namespace mete {
namespace {

const char* stop_reason(const Choice& choice) {
  if (choice.end->reason != FinishReason::kStop) return "max_tokens";
  if (!choice.tool_calls.empty()) return "tool_use";
  return choice.end->stop_string.empty() ? "end_turn" : "stop_sequence";
}

Json stop_sequence(const Choice& choice) {
  return choice.end->stop_string.empty() ? Json(nullptr) : Json(choice.end->stop_string);
}

/// Arguments as an object; {"raw": text} where the model wrote none.
Json tool_input(const ToolCall& call) {
  ApiResult<Json> object = parse_body(call.arguments);
  return object ? *object : Json{{"raw", call.arguments}};
}

class MessagesFormatter final : public Formatter {
 public:
  explicit MessagesFormatter(const AnswerInfo& info) : info_(info) {}

  std::string begin(const std::vector<Choice>&) override {
    Json message = head();
    message["content"] = Json::array();
    message["stop_reason"] = nullptr;
    message["stop_sequence"] = nullptr;
    const auto prompt = static_cast<int64_t>(info_.prompts[0].tokens.size());
    message["usage"] = {{"input_tokens", prompt},
                        {"output_tokens", 0},
                        {"cache_read_input_tokens", 0},
                        {"cache_creation_input_tokens", 0}};
    return event("message_start", {{"message", std::move(message)}});
  }

  std::string progress(size_t, const PromptProgress& progress, const JobTimes* times) override {
    Json fields = {{"prompt_progress", progress_json(progress)}};
    if (times != nullptr) fields["timings"] = timings_json(times->ledger, times->generated);
    return event("ping", fields);
  }

  std::string piece(size_t, const Choice&, const Piece& piece) override {
    const OutputPiece& output = piece.output;
    timings_ = piece.times ? timings_json(piece.times->ledger, piece.times->generated) : Json(nullptr);
    std::string out;
    if (!output.reasoning.empty()) {
      out += open("thinking", {{"type", "thinking"}, {"thinking", ""}, {"signature", ""}});
      out += delta({{"type", "thinking_delta"}, {"thinking", output.reasoning}});
    }
    if (!output.text.empty()) {
      out += open("text", {{"type", "text"}, {"text", ""}});
      out += delta({{"type", "text_delta"}, {"text", output.text}});
    }
    for (const ToolCall& call : output.tool_calls) {
      out += close();
      out += open("tool_use",
                  {{"type", "tool_use"}, {"id", call.id}, {"name", call.name}, {"input", Json::object()}});
      out += delta({{"type", "input_json_delta"}, {"partial_json", call.arguments}});
      out += close();
    }
    return out;
  }

  std::string finish(size_t index, const std::vector<Choice>& choices, bool) override {
    const Choice& choice = choices[index];
    std::string out;
    if (blocks_ == 0) out += open("text", {{"type", "text"}, {"text", ""}});
    out += close();
    return out +
           event("message_delta",
                 {{"delta", {{"stop_reason", stop_reason(choice)}, {"stop_sequence", stop_sequence(choice)}}},
                  {"usage", usage(choices)},
                  {"mete", receipt_json(info_, choices)}});
  }

  std::string end(const std::vector<Choice>&) override { return event("message_stop", Json::object()); }
  std::string error(const ApiError& error) override {
    return sse(anthropic_error_body(error, info_.request_id), "error");
  }

  Json whole(const std::vector<Choice>& choices) override {
    const Choice& choice = choices[0];
    Json content = Json::array();
    if (!choice.reasoning.empty()) {
      content.push_back({{"type", "thinking"}, {"thinking", choice.reasoning}, {"signature", ""}});
    }
    if (!choice.text.empty() || choice.tool_calls.empty())
      content.push_back({{"type", "text"}, {"text", choice.text}});
    for (const ToolCall& call : choice.tool_calls) {
      content.push_back(
          {{"type", "tool_use"}, {"id", call.id}, {"name", call.name}, {"input", tool_input(call)}});
    }
    Json out = head();
    out["content"] = std::move(content);
    out["stop_reason"] = stop_reason(choice);
    out["stop_sequence"] = stop_sequence(choice);
    out["usage"] = usage(choices);
    out["mete"] = receipt_json(info_, choices);
    return out;
  }

 private:
  Json head() const {
    return {{"id", info_.id}, {"type", "message"}, {"role", "assistant"}, {"model", info_.model->name}};
  }
  Json usage(const std::vector<Choice>& choices) const {
    const TokenCounts counts = count_tokens(info_, choices);
    return {{"input_tokens", counts.prompt - counts.cached},
            {"output_tokens", counts.generated},
            {"cache_read_input_tokens", counts.cached},
            {"cache_creation_input_tokens", 0}};
  }
  static std::string event(const char* type, const Json& fields) {
    Json out = {{"type", type}};
    for (const auto& [key, value] : fields.items()) out[key] = value;
    return sse(to_text(out), type);
  }
  /// Starts a block of `kind` unless one is open.
  std::string open(const std::string& kind, const Json& block) {
    if (open_ == kind) return "";
    std::string out = close();
    open_ = kind;
    return out + event("content_block_start", {{"index", blocks_}, {"content_block", block}});
  }
  std::string close() {
    if (open_.empty()) return "";
    open_.clear();
    return event("content_block_stop", {{"index", blocks_++}});
  }
  std::string delta(const Json& delta) const {
    Json fields = {{"index", blocks_}, {"delta", delta}};
    if (!timings_.is_null()) fields["timings"] = timings_;
    return event("content_block_delta", fields);
  }

  const AnswerInfo& info_;
  std::string open_;  // kind of the open block, or ""
  int blocks_ = 0;    // closed ones
  Json timings_;      // of the piece under way (timings_per_token)
};

}  // namespace

std::unique_ptr<Formatter> make_messages_formatter(const AnswerInfo& info) {
  return std::make_unique<MessagesFormatter>(info);
}

}  // namespace mete
