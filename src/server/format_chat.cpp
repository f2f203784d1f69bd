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
      out += chunk(i, "{\"role\":\"assistant\",\"content\":null}", nullptr, nullptr);
    }
    return out;
  }

  std::string piece(size_t index, const Choice& choice, const Piece& piece) override {
    const OutputPiece& output = piece.output;
    Json logprobs = nullptr;
    if (info_.request.top_logprobs >= 0) {
      logprobs = {{"content", token_logprobs_json(info_.model->tokenizer(), piece.tokens, false)}};
    }
    std::string out;
    if (!output.reasoning.empty()) {
      out += chunk(index, fmt::format("{{\"reasoning_content\":{}}}", to_text(output.reasoning)), nullptr,
                   std::exchange(logprobs, nullptr));
    }
    if (!output.text.empty()) {
      out += chunk(index, fmt::format("{{\"content\":{}}}", to_text(output.text)), nullptr,
                   std::exchange(logprobs, nullptr));
    }
    if (!output.tool_calls.empty()) {
      const size_t first = choice.tool_calls.size() - output.tool_calls.size();
      const Json delta = {{"tool_calls", tool_calls_json(output.tool_calls, first, true)}};
      out += chunk(index, to_text(delta), nullptr, std::exchange(logprobs, nullptr));
    }
    return out;
  }

  std::string finish(size_t index, const std::vector<Choice>& choices, bool last) override {
    const bool extras = last && !info_.request.include_usage;
    return chunk(index, "{}", openai_finish_reason(choices[index]), nullptr, extras ? &choices : nullptr);
  }

  std::string end(const std::vector<Choice>& choices) override {
    std::string out;
    if (info_.request.include_usage) {
      const std::string usage = to_text(usage_json(count_tokens(info_, choices)));
      out = sse("{\"choices\":[" + with_extras(choices, fmt::format(",\"usage\":{}", usage)));
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
      Json logprobs = nullptr;
      if (info_.request.top_logprobs >= 0) {
        logprobs = {{"content", token_logprobs_json(info_.model->tokenizer(), choice.tokens, false)}};
      }
      list.push_back({{"finish_reason", openai_finish_reason(choice)},
                      {"index", i},
                      {"message", std::move(message)},
                      {"logprobs", std::move(logprobs)}});
    }
    return {{"choices", std::move(list)},
            {"created", info_.created},
            {"model", info_.model->name},
            {"system_fingerprint", info_.model->fingerprint},
            {"object", "chat.completion"},
            {"usage", usage_json(count_tokens(info_, choices))},
            {"id", info_.id},
            {"timings", timings_json(*choices[0].end)},
            {"mete", receipt_json(info_, choices)}};
  }

 private:
  /// The end of a chunk with timings, receipt and `more` (",\"name\":value") in it.
  std::string with_extras(const std::vector<Choice>& choices, const std::string& more) const {
    std::string out = tail_;
    out.pop_back();
    return out + more +
           fmt::format(",\"timings\":{},\"mete\":{}}}", to_text(timings_json(*choices[0].end)),
                       to_text(receipt_json(info_, choices)));
  }
  std::string chunk(size_t index, const std::string& delta, const char* finish_reason, const Json& logprobs,
                    const std::vector<Choice>* extras = nullptr) const {
    std::string out = "{\"choices\":[{\"finish_reason\":";
    out += finish_reason == nullptr ? "null" : fmt::format("\"{}\"", finish_reason);
    out += fmt::format(",\"index\":{},\"delta\":", index);
    out += delta;
    if (info_.request.top_logprobs >= 0) out += ",\"logprobs\":" + to_text(logprobs);
    out += '}';
    if (extras != nullptr) return sse(out + with_extras(*extras, ""));
    out += tail_;
    return sse(out);
  }

  const AnswerInfo& info_;
  std::string tail_;  // what every chunk ends with
};

}  // namespace

std::unique_ptr<Formatter> make_chat_formatter(const AnswerInfo& info) {
  return std::make_unique<ChatFormatter>(info);
}

}  // namespace mete
