#include "engine/engine.h"

#include <algorithm>
#include <limits>

#include "base/clock.h"

namespace mete {

namespace {

/// The request with every end-of-generation token banned if it asks for that.
Request without_ends(Request request, const Tokenizer& tokenizer) {
  if (!request.ignore_eos) return request;
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    if (tokenizer.is_end_of_generation(id)) {
      request.sampling.logit_bias.emplace_back(id, -std::numeric_limits<float>::infinity());
    }
  }
  return request;
}

}  // namespace

struct Engine::Sequence {
  Sequence(const Request& asked, const Tokenizer& tokenizer, int64_t vocab)
      : request(without_ends(asked, tokenizer)),
        sampler(request.sampling, &tokenizer, static_cast<int32_t>(vocab)) {
    XXH3_64bits_reset(hash.get());
  }
  SeqId id = -1;
  Request request;
  Sampler sampler;
  std::vector<int32_t> tokens;  // prompt, then generated
  int64_t cached = 0;           // tokens whose KV is written
  bool running = true;
  SequenceLedger ledger;
  std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> hash{XXH3_createState(), &XXH3_freeState};
  std::string error;

  int64_t pending() const { return static_cast<int64_t>(tokens.size()) - cached; }
  int64_t generated() const { return static_cast<int64_t>(tokens.size() - request.prompt.size()); }
};

Engine::Engine(Runtime& runtime) : runtime_(runtime) {}
Engine::~Engine() = default;

Engine::Sequence& Engine::find(SeqId seq) const {
  const auto it =
      std::find_if(sequences_.begin(), sequences_.end(), [&](const auto& s) { return s->id == seq; });
  METE_CHECK(it != sequences_.end());
  return **it;
}

Result<SeqId> Engine::submit(const Request& request, std::optional<SeqId> reuse) {
  const int64_t vocab = runtime_.model_config().vocab;
  if (request.prompt.empty()) return bad_usage("the prompt is empty: at least one token is needed");
  const auto length = static_cast<int64_t>(request.prompt.size());
  if (length > runtime_.max_context()) {
    return bad_usage("the prompt has {} tokens, the context holds {} (-c)", length, runtime_.max_context());
  }
  for (const int32_t token : request.prompt) {
    if (token < 0 || token >= vocab)
      return bad_usage("token id {} in the prompt: expected 0..{}", token, vocab - 1);
  }
  if (Status valid = request.sampling.validate(vocab); !valid) return valid.error();

  auto seq = std::make_unique<Sequence>(request, runtime_.tokenizer(), vocab);
  if (reuse) {
    Sequence& old = find(*reuse);
    METE_CHECK(!old.running);
    const int64_t limit =
        std::min<int64_t>(old.cached, length - 1);  // the last token's logits are needed anew
    int64_t common = 0;
    while (common < limit &&
           old.tokens[static_cast<size_t>(common)] == request.prompt[static_cast<size_t>(common)]) {
      ++common;
    }
    common = runtime_.kv().reusable(old.id, common);  // 0 if a sliding window has freed what the rest sees
    if (Status cut = runtime_.kv().truncate(old.id, common); !cut) return cut.error();
    seq->id = old.id;
    seq->cached = common;
    std::erase_if(sequences_, [&](const auto& s) { return s->id == *reuse; });
  } else {
    seq->id = runtime_.kv().create();
  }
  seq->tokens = request.prompt;
  seq->sampler.reserve(static_cast<size_t>(runtime_.max_context()) + 1);
  for (const int32_t token : request.prompt) seq->sampler.accept(token);
  seq->ledger.prompt_tokens = length;
  seq->ledger.prefill_tokens = length - seq->cached;
  seq->ledger.submitted = now_seconds();
  seq->ledger.at_submit = seq->ledger.at_first = seq->ledger.at_last = runtime_.ledger().mark();
  sequences_.push_back(std::move(seq));
  return sequences_.back()->id;
}

bool Engine::idle() const {
  return std::none_of(sequences_.begin(), sequences_.end(), [](const auto& s) { return s->running; });
}

const std::vector<TokenEvent>& Engine::step() noexcept {
  runtime_.ledger().enter(Part::kSchedule);
  run_step();
  runtime_.ledger().enter(Part::kIdle);
  return events_;
}

void Engine::run_step() {
  events_.clear();
  rows_.clear();
  logits_rows_.clear();
  running_.clear();
  demands_.clear();
  finishing_.clear();
  for (const auto& seq : sequences_) {
    if (!seq->running) continue;
    running_.push_back(seq.get());
    demands_.push_back({seq->pending(), seq->generated() > 0});
  }
  if (running_.empty()) return;
  form_batch(demands_, runtime_.max_rows(), granted_);
  for (size_t i = 0; i < running_.size(); ++i) {
    Sequence& seq = *running_[i];
    for (int64_t r = 0; r < granted_[i]; ++r) {
      const int64_t position = seq.cached + r;
      rows_.push_back({seq.tokens[static_cast<size_t>(position)], static_cast<int32_t>(position), seq.id});
    }
    if (granted_[i] > 0 && granted_[i] == seq.pending()) {
      logits_rows_.push_back(static_cast<int32_t>(rows_.size()) - 1);
      finishing_.push_back(&seq);
    }
  }

  const auto vocab = static_cast<size_t>(runtime_.model_config().vocab);
  const size_t bytes = logits_rows_.size() * vocab * sizeof(float);
  if (logits_.bytes() < bytes) logits_ = AlignedBuffer(bytes);
  Outputs outputs;
  outputs.logits = logits_.as<float>();
  const double start = now_seconds();
  Batch batch;
  batch.rows = rows_;
  batch.logits_rows = logits_rows_;
  if (Status ran = runtime_.step(batch, outputs); !ran) {
    for (Sequence* seq : running_) {
      seq->running = false;
      seq->error = ran.error().message();
      events_.push_back({seq->id, -1, false, FinishReason::kError});
    }
    return;
  }
  const double seconds = now_seconds() - start;
  for (size_t i = 0; i < running_.size(); ++i) {
    running_[i]->cached += granted_[i];
    if (demands_[i].decoding || granted_[i] == 0) continue;
    running_[i]->ledger.prefill_s += seconds;
    runtime_.ledger().add(Counter::kPromptTokens, granted_[i]);
  }
  for (size_t i = 0; i < finishing_.size(); ++i) finish_row(*finishing_[i], outputs.logits + i * vocab);
}

void Engine::finish_row(Sequence& seq, const float* logits) {
  const auto vocab = static_cast<size_t>(runtime_.model_config().vocab);
  const Tokenizer& tokenizer = runtime_.tokenizer();
  const PartScope part(&runtime_.ledger(), Part::kSample);
  XXH3_64bits_update(seq.hash.get(), logits, vocab * sizeof(float));
  const double start = now_seconds();
  const int32_t token = seq.sampler.sample({logits, vocab}, seq.tokens.size());
  if (const RowReport& odd = seq.sampler.report(); odd.nan_logits > 0 || odd.all_masked) {
    seq.running = false;
    seq.error = odd.nan_logits > 0
                    ? fmt::format("{} of {} logits at position {} are not numbers", odd.nan_logits, vocab,
                                  seq.tokens.size())
                    : fmt::format("no token is left to choose from at position {}: the logit bias bans all",
                                  seq.tokens.size());
    events_.push_back({seq.id, -1, false, FinishReason::kError});
    return;
  }
  seq.sampler.accept(token);
  const double now = now_seconds();
  seq.ledger.sample_s += now - start;
  runtime_.ledger().add(Counter::kGeneratedTokens, 1);
  seq.ledger.at_last = runtime_.ledger().mark();
  if (seq.generated() == 0) {
    seq.ledger.first_token = now;
    seq.ledger.at_first = seq.ledger.at_last;
  } else {
    ++seq.ledger.decode_tokens;
  }
  seq.ledger.last_token = now;
  seq.tokens.push_back(token);

  FinishReason reason = FinishReason::kNone;
  const bool end_token = tokenizer.is_end_of_generation(token);
  if (end_token) {
    reason = FinishReason::kStop;
  } else if (seq.request.max_tokens >= 0 && seq.generated() >= seq.request.max_tokens) {
    reason = FinishReason::kLength;
  } else if (static_cast<int64_t>(seq.tokens.size()) > runtime_.max_context()) {
    reason = FinishReason::kLength;
  }
  seq.running = reason == FinishReason::kNone;
  events_.push_back({seq.id, token, end_token, reason});
}

void Engine::cancel(SeqId seq) { find(seq).running = false; }

void Engine::release(SeqId seq) {
  METE_CHECK(!find(seq).running);
  runtime_.kv().release(seq);
  std::erase_if(sequences_, [&](const auto& s) { return s->id == seq; });
}

int64_t Engine::rows_done(SeqId seq) const { return find(seq).cached; }
const SequenceLedger& Engine::ledger(SeqId seq) const { return find(seq).ledger; }
const std::vector<int32_t>& Engine::tokens(SeqId seq) const { return find(seq).tokens; }
uint64_t Engine::logits_hash(SeqId seq) const { return XXH3_64bits_digest(find(seq).hash.get()); }
const std::string& Engine::error(SeqId seq) const { return find(seq).error; }

}  // namespace mete
