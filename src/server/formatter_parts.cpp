#include "server/formatter.h"

#include <algorithm>

#include "text/utf8.h"

namespace mete {
namespace {

double milliseconds(double seconds) { return 1000 * std::max(0.0, seconds); }
double per(double value, int64_t count) { return count > 0 ? value / static_cast<double>(count) : 0.0; }
double rate(int64_t count, double seconds) {
  return seconds > 0 ? static_cast<double>(count) / seconds : 0.0;
}

Json one_logprob(const Tokenizer& tokenizer, int32_t id, float value, bool probs) {
  const std::string_view bytes = tokenizer.piece(id);
  Json out = Json::object();
  out["id"] = id;
  out["token"] = utf8_repair(bytes);
  out[probs ? "prob" : "logprob"] = value;
  Json& list = out["bytes"] = Json::array();
  for (const char c : bytes) list.push_back(static_cast<unsigned char>(c));
  return out;
}

}  // namespace

std::unique_ptr<Formatter> make_formatter(const AnswerInfo& info) {
  switch (info.request.api) {
    case Api::kChat:
      return make_chat_formatter(info);
    case Api::kCompletion:
      return make_completion_formatter(info);
    case Api::kLlama:
      return make_llama_formatter(info);
    case Api::kResponses:
      return make_responses_formatter(info);
    case Api::kMessages:
      return make_messages_formatter(info);
  }
  return nullptr;
}

std::string sse(const std::string& json, const char* event) {
  std::string out;
  out.reserve(json.size() + 48);
  if (event != nullptr) out.append("event: ").append(event).append("\n");
  return out.append("data: ").append(json).append("\n\n");
}

TokenCounts count_tokens(const AnswerInfo& info, const std::vector<Choice>& choices) {
  TokenCounts out;
  for (const BuiltPrompt& prompt : info.prompts) out.prompt += static_cast<int64_t>(prompt.tokens.size());
  for (size_t i = 0; i < choices.size(); ++i) {
    if (!choices[i].end) continue;
    out.generated += choices[i].end->generated;
    // A prompt that several choices share counts once: as the first of them found it.
    if (i % static_cast<size_t>(info.request.n) == 0) {
      out.cached += choices[i].end->ledger.prompt_tokens - choices[i].end->ledger.prefill_tokens;
    }
  }
  return out;
}

Json usage_json(const TokenCounts& counts) {
  return {{"prompt_tokens", counts.prompt},
          {"completion_tokens", counts.generated},
          {"total_tokens", counts.prompt + counts.generated},
          {"prompt_tokens_details", {{"cached_tokens", counts.cached}}}};
}

Json timings_json(const SequenceLedger& l, int64_t generated) {
  return {{"cache_n", l.prompt_tokens - l.prefill_tokens},
          {"prompt_n", l.prefill_tokens},
          {"prompt_ms", milliseconds(l.prefill_s)},
          {"prompt_per_token_ms", per(milliseconds(l.prefill_s), l.prefill_tokens)},
          {"prompt_per_second", rate(l.prefill_tokens, l.prefill_s)},
          {"predicted_n", generated},
          {"predicted_ms", milliseconds(l.decode_s())},
          {"predicted_per_token_ms", per(milliseconds(l.decode_s()), l.decode_tokens)},
          {"predicted_per_second", rate(l.decode_tokens, l.decode_s())}};
}

Json progress_json(const PromptProgress& p) {
  return {{"total", p.total},
          {"cache", p.cached},
          {"processed", p.processed},
          {"time_ms", static_cast<int64_t>(milliseconds(p.seconds))}};
}

Json receipt_json(const AnswerInfo& info, const std::vector<Choice>& choices) {
  const Runtime& r = *info.model->runtime;
  Json list = Json::array();
  for (const Choice& choice : choices) {
    if (!choice.end) continue;
    const SequenceLedger& l = choice.end->ledger;
    list.push_back({{"finish_reason", name(choice.end->reason)},
                    {"seed", choice.seed},
                    {"logits_hash", fmt::format("{:016x}", choice.end->logits_hash)},
                    {"prompt_tokens", l.prompt_tokens},
                    {"prefill_tokens", l.prefill_tokens},
                    {"generated_tokens", choice.end->generated},
                    {"preemptions", l.preemptions},
                    {"ttft_s", l.ttft_s()},
                    {"prefill_s", l.prefill_s},
                    {"decode_s", l.decode_s()},
                    {"sample_s", l.sample_s}});
  }
  Json share = nullptr;
  if (info.model->decode_limit > 0 && choices.size() == 1 && choices[0].end) {
    const SequenceLedger& l = choices[0].end->ledger;
    if (l.decode_tokens > 0) share = rate(l.decode_tokens, l.decode_s()) / info.model->decode_limit;
  }
  return {{"request_id", info.request_id},
          {"ignored_fields", info.request.ignored_fields},
          {"receipt",
           {{"choices", std::move(list)},
            {"share_of_limit", std::move(share)},
            {"cpu_tier", name(r.tier())},
            {"threads", r.threads()},
            {"weight_bytes", r.model_config().weight_bytes},
            {"kv_bytes", r.kv().capacity_bytes()}}}};
}

const char* openai_finish_reason(const Choice& choice) {
  if (choice.end->reason != FinishReason::kStop) return "length";
  return choice.tool_calls.empty() ? "stop" : "tool_calls";
}

Json token_logprobs_json(const Tokenizer& tokenizer, const std::vector<JobToken>& tokens, bool probs) {
  Json out = Json::array();
  for (const JobToken& token : tokens) {
    Json entry = one_logprob(tokenizer, token.id, token.logprob, probs);
    Json& top = entry[probs ? "top_probs" : "top_logprobs"] = Json::array();
    for (const TokenLogprob& other : token.top) {
      top.push_back(one_logprob(tokenizer, other.token, other.logprob, probs));
    }
    out.push_back(std::move(entry));
  }
  return out;
}

}  // namespace mete
