#include "server/formatter.h"
#include "text/utf8.h"

namespace mete {
namespace {

/// The logprobs object of the older completions API: parallel arrays.
Json logprobs_json(const AnswerInfo& info, const std::vector<JobToken>& tokens, size_t offset) {
  if (info.request.top_logprobs < 0) return nullptr;
  const Tokenizer& tokenizer = info.model->tokenizer();
  if (info.request.post_sampling_probs) return {{"content", token_logprobs_json(tokenizer, tokens, true)}};
  Json names = Json::array(), values = Json::array(), tops = Json::array(), offsets = Json::array();
  for (const JobToken& token : tokens) {
    const std::string text = utf8_repair(tokenizer.piece(token.id));
    names.push_back(text);
    values.push_back(token.logprob);
    Json top = Json::object();
    for (const TokenLogprob& other : token.top) {
      top.emplace(utf8_repair(tokenizer.piece(other.token)), other.logprob);
    }
    tops.push_back(std::move(top));
    offsets.push_back(offset);
    offset += text.size();
  }
  return {{"tokens", std::move(names)},
          {"token_logprobs", std::move(values)},
          {"top_logprobs", std::move(tops)},
          {"text_offset", std::move(offsets)},
          {"content", token_logprobs_json(tokenizer, tokens, false)}};
}

class CompletionFormatter final : public Formatter {
 public:
  explicit CompletionFormatter(const AnswerInfo& info) : info_(info) {}

  std::string begin(const std::vector<Choice>&) override { return ""; }
  std::string progress(size_t index, const PromptProgress& progress, const JobTimes* times) override {
    Json out = object(Json::array({entry(index, "", {}, 0, nullptr)}));
    if (times != nullptr) out["timings"] = timings_json(times->ledger, times->generated);
    out["prompt_progress"] = progress_json(progress);
    return sse(to_text(out));
  }
  std::string piece(size_t index, const Choice& choice, const Piece& piece) override {
    const size_t offset = choice.text.size() - piece.output.text.size();
    Json out = object(Json::array({entry(index, piece.output.text, piece.tokens, offset, nullptr)}));
    if (piece.times) out["timings"] = timings_json(piece.times->ledger, piece.times->generated);
    return sse(to_text(out));
  }
  std::string finish(size_t index, const std::vector<Choice>& choices, bool last) override {
    Json out = object(Json::array({entry(index, "", {}, 0, openai_finish_reason(choices[index]))}));
    if (last && !info_.request.include_usage) add_extras(out, choices);
    return sse(to_text(out));
  }
  std::string end(const std::vector<Choice>& choices) override {
    std::string out;
    if (info_.request.include_usage) {
      Json chunk = object(Json::array());
      chunk["usage"] = usage_json(count_tokens(info_, choices));
      add_extras(chunk, choices);
      out = sse(to_text(chunk));
    }
    return out + "data: [DONE]\n\n";
  }
  std::string error(const ApiError& error) override { return sse(openai_error_body(error)); }

  Json whole(const std::vector<Choice>& choices) override {
    Json list = Json::array();
    for (size_t i = 0; i < choices.size(); ++i) {
      list.push_back(entry(i, choices[i].text, choices[i].tokens, 0, openai_finish_reason(choices[i])));
    }
    Json out = object(std::move(list));
    out["usage"] = usage_json(count_tokens(info_, choices));
    add_extras(out, choices);
    return out;
  }

 private:
  Json entry(size_t index, const std::string& text, const std::vector<JobToken>& tokens, size_t offset,
             const char* finish_reason) const {
    return {{"text", text},
            {"index", index},
            {"logprobs", logprobs_json(info_, tokens, offset)},
            {"finish_reason", finish_reason == nullptr ? Json(nullptr) : Json(finish_reason)}};
  }
  Json object(Json choices) const {
    return {{"choices", std::move(choices)}, {"created", info_.created},
            {"model", info_.model->name},    {"system_fingerprint", info_.model->fingerprint},
            {"object", "text_completion"},   {"id", info_.id}};
  }
  void add_extras(Json& out, const std::vector<Choice>& choices) const {
    out["timings"] = timings_json(choices[0].end->ledger, choices[0].end->generated);
    out["mete"] = receipt_json(info_, choices);
  }

  const AnswerInfo& info_;
};

}  // namespace

std::unique_ptr<Formatter> make_completion_formatter(const AnswerInfo& info) {
  return std::make_unique<CompletionFormatter>(info);
}

}  // namespace mete
