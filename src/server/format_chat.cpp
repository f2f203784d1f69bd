#include "server/formatter.h"

namespace mete {
namespace {

Json tool_calls_json(const std::vector<ToolCall>& calls, size_t first, bool with_index) {
  Json out = Json::array();
  for (size_t i = 0; i < calls.size(); ++i) {
    Json call = Json::object();
    if (with_index) call["index"] = first + i;
    call["id"] = calls[i].id;
    call["type"] = "function";
    call["function"] = {{"name", calls[i].name}, {"arguments", calls[i].arguments}};
    out.push_back(std::move(call));
  }
  return out;
}

class ChatFormatter final : public Formatter {
 public:
  explicit ChatFormatter(const AnswerInfo& info) : info_(info) {
    tail_ = fmt::format(
        "],\"created\":{},\"id\":{},\"model\":{},\"system_fingerprint\":{},\"object\":\"chat.completion."
        "chunk\"}}",
        info.created, to_text(info.id), to_text(info.model->name), to_text(info.model->fingerprint));
  }

  std::string begin(const std::vector<Choice>& choices) override {
    std::string out;
    for (size_t i = 0; i < choices.size(); ++i) {
      out += chunk(i, kRole, nullptr, nullptr);
    }
    return out;
  }

  std::string progress(size_t index, const PromptProgress& progress, const JobTimes* times) override {
    return chunk(index, kRole, nullptr, nullptr,
                 timings(times) + fmt::format(",\"prompt_progress\":{}", to_text(progress_json(progress))));
  }

  std::string piece(size_t index, const Choice& choice, const Piece& piece) override {
    const OutputPiece& output = piece.output;
    std::vector<std::string> deltas;
    if (!output.reasoning.empty()) {
      deltas.push_back(fmt::format("{{\"reasoning_content\":{}}}", to_text(output.reasoning)));
    }
    if (!output.text.empty()) deltas.push_back(fmt::format("{{\"content\":{}}}", to_text(output.text)));
    if (!output.tool_calls.empty()) {
      const size_t first = choice.tool_calls.size() - output.tool_calls.size();
      deltas.push_back(to_text({{"tool_calls", tool_calls_json(output.tool_calls, first, true)}}));
    }
    std::string out;
    for (size_t i = 0; i < deltas.size(); ++i) {
      const std::string more = i + 1 == deltas.size() ? timings(piece.times.get()) : "";
      out += chunk(index, deltas[i], nullptr, i == 0 ? logprobs_json(piece.tokens) : Json(nullptr), more);
    }
    return out;
  }

  std::string finish(size_t index, const std::vector<Choice>& choices, bool last) override {
    const bool whole = last && !info_.request.include_usage;
    return chunk(index, "{}", openai_finish_reason(choices[index]), nullptr, whole ? extras(choices) : "");
  }

  std::string end(const std::vector<Choice>& choices) override {
    std::string out;
    if (info_.request.include_usage) {
      const std::string usage = to_text(usage_json(count_tokens(info_, choices)));
      out = sse("{\"choices\":[" + tail(fmt::format(",\"usage\":{}", usage) + extras(choices)));
    }
    return out + "data: [DONE]\n\n";
  }

  std::string error(const ApiError& error) override { return sse(openai_error_body(error)); }

  Json whole(const std::vector<Choice>& choices) override {
    Json list = Json::array();
    for (size_t i = 0; i < choices.size(); ++i) {
      const Choice& choice = choices[i];
      Json message = {{"role", "assistant"}, {"content", choice.text}};
      if (!choice.reasoning.empty()) message["reasoning_content"] = choice.reasoning;
      if (!choice.tool_calls.empty()) {
        if (choice.text.empty()) message["content"] = nullptr;
        message["tool_calls"] = tool_calls_json(choice.tool_calls, 0, false);
      }
      list.push_back({{"finish_reason", openai_finish_reason(choice)},
                      {"index", i},
                      {"message", std::move(message)},
                      {"logprobs", logprobs_json(choice.tokens)}});
    }
    return {{"choices", std::move(list)},
            {"created", info_.created},
            {"model", info_.model->name},
            {"system_fingerprint", info_.model->fingerprint},
            {"object", "chat.completion"},
            {"usage", usage_json(count_tokens(info_, choices))},
            {"id", info_.id},
            {"timings", timings_json(choices[0].end->ledger, choices[0].end->generated)},
            {"mete", receipt_json(info_, choices)}};
  }

 private:
  static constexpr const char* kRole = "{\"role\":\"assistant\",\"content\":null}";

  Json logprobs_json(const std::vector<JobToken>& tokens) const {
    if (info_.request.top_logprobs < 0) return nullptr;
    return {{"content",
             token_logprobs_json(info_.model->tokenizer(), tokens, info_.request.post_sampling_probs)}};
  }
  /// As `more` of a chunk; nothing for null.
  static std::string timings(const JobTimes* times) {
    if (times == nullptr) return "";
    return fmt::format(",\"timings\":{}", to_text(timings_json(times->ledger, times->generated)));
  }
  /// Timings and receipt, as `more` of a chunk.
  std::string extras(const std::vector<Choice>& choices) const {
    const JobEnd& end = *choices[0].end;
    return fmt::format(",\"timings\":{},\"mete\":{}", to_text(timings_json(end.ledger, end.generated)),
                       to_text(receipt_json(info_, choices)));
  }
  /// The end of a chunk with `more` (",\"name\":value") in it.
  std::string tail(const std::string& more) const { return tail_.substr(0, tail_.size() - 1) + more + "}"; }
  std::string chunk(size_t index, const std::string& delta, const char* finish_reason, const Json& logprobs,
                    const std::string& more = "") const {
    std::string out = "{\"choices\":[{\"finish_reason\":";
    out += finish_reason == nullptr ? "null" : fmt::format("\"{}\"", finish_reason);
    out += fmt::format(",\"index\":{},\"delta\":", index);
    out += delta;
    if (info_.request.top_logprobs >= 0) out += ",\"logprobs\":" + to_text(logprobs);
    out += '}';
    return sse(out + tail(more));
  }

  const AnswerInfo& info_;
  std::string tail_;  // what every chunk ends with
};

}  // namespace

std::unique_ptr<Formatter> make_chat_formatter(const AnswerInfo& info) {
  return std::make_unique<ChatFormatter>(info);
}

}  // namespace mete
