// llama-server's own completion API.
#include <cmath>

#include "sample/order.h"
#include "server/formatter.h"

namespace mete {

Json generation_settings_json(const SamplingParams& s, int64_t max_tokens, const Generation* request) {
  Json samplers = Json::array();
  for (const SamplerStage stage : s.order) samplers.push_back(sampler_stage_name(stage));
  Json out = {{"seed", s.seed},
              {"temperature", s.temperature},
              {"dynatemp_range", s.dynatemp_range},
              {"dynatemp_exponent", s.dynatemp_exponent},
              {"top_k", s.top_k},
              {"top_p", s.top_p},
              {"min_p", s.min_p},
              {"top_n_sigma", s.top_n_sigma},
              {"xtc_probability", s.xtc_probability},
              {"xtc_threshold", s.xtc_threshold},
              {"typical_p", s.typical_p},
              {"repeat_last_n", s.penalty_last_n},
              {"repeat_penalty", s.repeat_penalty},
              {"presence_penalty", s.presence_penalty},
              {"frequency_penalty", s.frequency_penalty},
              {"dry_multiplier", s.dry_multiplier},
              {"dry_base", s.dry_base},
              {"dry_allowed_length", s.dry_allowed_length},
              {"dry_penalty_last_n", s.dry_penalty_last_n},
              {"dry_sequence_breakers", s.dry_sequence_breakers},
              {"mirostat", s.mirostat},
              {"mirostat_tau", s.mirostat_tau},
              {"mirostat_eta", s.mirostat_eta},
              {"min_keep", s.min_keep},
              {"max_tokens", max_tokens},
              {"n_predict", max_tokens},
              {"n_keep", 0},
              {"n_discard", 0},
              {"samplers", std::move(samplers)}};
  if (request == nullptr) return out;
  out["stop"] = request->stops;
  out["ignore_eos"] = request->ignore_eos;
  out["stream"] = request->stream;
  out["n_probs"] = std::max(request->top_logprobs, 0);
  out["timings_per_token"] = request->timings_per_token;
  out["post_sampling_probs"] = request->post_sampling_probs;
  Json& bias = out["logit_bias"] = Json::array();
  for (const auto& [id, value] : s.logit_bias) {
    bias.push_back({{"token", id}, {"bias", std::isfinite(value) ? Json(value) : Json(false)}});
  }
  for (const int32_t id : request->banned_ends) bias.push_back({{"token", id}, {"bias", nullptr}});
  return out;
}

namespace {

const char* stop_type(const JobEnd& end) {
  if (end.reason != FinishReason::kStop) return "limit";
  return end.stop_string.empty() ? "eos" : "word";
}

/// What `fields` name of an object; "a/b" is field b of a, and keeps that name.
Json selected(const Json& object, const std::vector<std::string>& fields) {
  if (fields.empty()) return object;
  Json out = Json::object();
  for (const std::string& field : fields) {
    const Json* value = &object;
    for (size_t begin = 0; value != nullptr && begin <= field.size();) {
      const size_t end = std::min(field.find('/', begin), field.size());
      const auto found = value->is_object() ? value->find(field.substr(begin, end - begin)) : value->end();
      value = value->is_object() && found != value->end() ? &*found : nullptr;
      begin = end + 1;
    }
    if (value != nullptr) out[field] = *value;
  }
  return out;
}

class LlamaFormatter final : public Formatter {
 public:
  explicit LlamaFormatter(const AnswerInfo& info) : info_(info) {}

  std::string begin(const std::vector<Choice>&) override { return ""; }
  std::string progress(size_t index, const PromptProgress& progress, const JobTimes* times) override {
    Json out = {{"index", index}, {"content", ""}, {"tokens", Json::array()}, {"stop", false}};
    if (times != nullptr) out["timings"] = timings_json(times->ledger, times->generated);
    out["prompt_progress"] = progress_json(progress);
    return sse(to_text(out));
  }
  std::string piece(size_t index, const Choice&, const Piece& piece) override {
    Json ids = Json::array();
    for (const JobToken& token : piece.tokens) ids.push_back(token.id);
    Json out = {
        {"index", index}, {"content", piece.output.text}, {"tokens", std::move(ids)}, {"stop", false}};
    if (info_.request.top_logprobs >= 0) {
      out["completion_probabilities"] = probabilities(piece.tokens);
    }
    if (piece.times) out["timings"] = timings_json(piece.times->ledger, piece.times->generated);
    return sse(to_text(out));
  }
  std::string finish(size_t index, const std::vector<Choice>& choices, bool) override {
    return sse(to_text(final_object(index, choices, true)));
  }
  std::string end(const std::vector<Choice>&) override { return ""; }
  std::string error(const ApiError& error) override { return sse(openai_error_body(error)); }

  Json whole(const std::vector<Choice>& choices) override {
    if (choices.size() == 1) return final_object(0, choices, false);
    Json out = Json::array();
    for (size_t i = 0; i < choices.size(); ++i) out.push_back(final_object(i, choices, false));
    return out;
  }

 private:
  Json probabilities(const std::vector<JobToken>& tokens) const {
    return token_logprobs_json(info_.model->tokenizer(), tokens, info_.request.post_sampling_probs);
  }
  Json final_object(size_t index, const std::vector<Choice>& choices, bool streamed) const {
    const Choice& choice = choices[index];
    const Generation& request = info_.request;
    const BuiltPrompt& prompt = info_.prompts[index / static_cast<size_t>(request.n)];
    Json ids = Json::array();
    for (const JobToken& token : choice.tokens) {
      if (request.return_tokens && !streamed) ids.push_back(token.id);
    }
    SamplingParams sampling = request.sampling;
    sampling.seed = choice.seed;
    const int64_t rows = choice.end->ledger.prompt_tokens + choice.end->generated;
    const bool full =
        choice.end->reason == FinishReason::kLength && rows > info_.model->runtime->max_context();
    Json out = {{"index", index},
                {"content", streamed ? "" : choice.text},
                {"tokens", std::move(ids)},
                {"id_slot", -1},
                {"stop", true},
                {"model", info_.model->name},
                {"tokens_predicted", choice.end->generated},
                {"tokens_evaluated", choice.end->ledger.prompt_tokens},
                {"generation_settings", generation_settings_json(sampling, request.max_tokens, &request)},
                {"prompt", prompt.text},
                {"has_new_line", choice.text.find('\n') != std::string::npos},
                {"truncated", full},
                {"stop_type", stop_type(*choice.end)},
                {"stopping_word", choice.end->stop_string},
                {"tokens_cached", rows},
                {"timings", timings_json(choice.end->ledger, choice.end->generated)}};
    if (!streamed && request.top_logprobs >= 0) {
      out["completion_probabilities"] = probabilities(choice.tokens);
    }
    out["mete"] = receipt_json(info_, choices);
    return selected(out, request.response_fields);
  }

  const AnswerInfo& info_;
};

}  // namespace

std::unique_ptr<Formatter> make_llama_formatter(const AnswerInfo& info) {
  return std::make_unique<LlamaFormatter>(info);
}

}  // namespace mete
