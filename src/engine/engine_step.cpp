// One step of the engine: who runs, what the rows give.
#include <algorithm>
#include <limits>

#include "base/clock.h"
#include "engine/engine.h"
#include "engine/sequence.h"

namespace mete {
namespace {

/// The sampling parameters with every end-of-generation token banned if the request asks for that.
SamplingParams sampling_of(const Request& request, const Tokenizer& tokenizer) {
  SamplingParams sampling = request.sampling;
  if (!request.ignore_eos) return sampling;
  for (const int32_t id : tokenizer.end_tokens()) {
    sampling.logit_bias.emplace_back(id, -std::numeric_limits<float>::infinity());
  }
  return sampling;
}

void grow(AlignedBuffer& buffer, size_t floats) {
  if (buffer.bytes() < floats * sizeof(float)) buffer = AlignedBuffer(floats * sizeof(float));
}

}  // namespace

const std::vector<TokenEvent>& Engine::step() noexcept {
  runtime_.ledger().enter(Part::kSchedule);
  run_step();
  runtime_.ledger().enter(Part::kIdle);
  return events_;
}

void Engine::run_step() {
  events_.clear();
  top_.clear();
  end_overdue();
  follow();
  admit();
  grant_rows();
  if (rows_.empty()) return;
  const double start = now_seconds();
  if (Status ran = run_batch(); !ran) {
    for (const Granted& granted : stepping_) fail(*granted.seq, ran.error().message());
    return;
  }
  ++counts_.steps;
  const double seconds = now_seconds() - start;
  const int64_t width = runtime_.model_config().d_model;
  choose_tokens();
  reserve_top();
  for (const Granted& granted : stepping_) {
    Sequence& seq = *granted.seq;
    const int64_t begin = seq.cached;
    seq.cached += granted.rows;
    if (cache_) cache_->extend(std::span(seq.tokens).first(static_cast<size_t>(seq.cached)), seq.place);
    if (granted.prompt) {
      seq.ledger.prefill_s += seconds;
      counts_.prefilled_tokens += granted.rows;
      runtime_.ledger().add(Counter::kPromptTokens, granted.rows);
    }
    if (granted.hidden_at >= 0) {
      pool_rows(seq, begin, granted.rows, hidden_.as<float>() + granted.hidden_at * width);
    } else if (granted.logits_at >= 0) {
      finish_row(granted);
    }
  }
}

/// Events point into top_: it does not grow while they are made.
void Engine::reserve_top() {
  const auto vocab = static_cast<size_t>(runtime_.model_config().vocab);
  size_t most = 0;
  for (const Granted& granted : stepping_) {
    const int32_t wanted = granted.logits_at < 0 ? 0 : granted.seq->request.top_logprobs;
    if (wanted > 0) most += std::min(static_cast<size_t>(wanted), vocab);
  }
  top_.reserve(most);
}

void Engine::end_overdue() {
  const double now = now_seconds();
  for (std::vector<Sequence*>* list : {&running_, &waiting_}) {
    for (size_t i = 0; i < list->size();) {
      Sequence& seq = *(*list)[i];
      if (seq.request.deadline > 0 && now >= seq.request.deadline) {
        end(seq, FinishReason::kDeadline);
      } else {
        ++i;
      }
    }
  }
}

void Engine::admit() {
  while (!waiting_.empty()) {
    Sequence& seq = *waiting_.front();
    const std::optional<size_t> kept = places_beside(seq);
    if (!kept) return;
    if (*kept < running_.size()) {  // one at a time: what that frees is known only then
      preempt_last();
      continue;
    }
    waiting_.erase(waiting_.begin());
    seq.state = Sequence::State::kRunning;
    take_kv(seq);
    if (!seq.admitted) prepare(seq);
    find_leader(seq);
    const auto place = std::find_if(running_.begin(), running_.end(), [&](const Sequence* other) {
      return std::pair(other->request.priority, other->id) > std::pair(seq.request.priority, seq.id);
    });
    running_.insert(place, &seq);
    if (seq.request.pooling == Pooling::kMean) {
      seq.pooled.assign(static_cast<size_t>(runtime_.model_config().d_model), 0.0);
    }
  }
}

/// How many of the running sequences, the first ones in order, go on if `seq` starts: as many as there are
/// places, and room in KV memory for all their tokens, those of `seq` and a page of growth for each, so that
/// what starts is not soon preempted. Only such as have a worse priority make way. None if that is not
/// enough.
std::optional<size_t> Engine::places_beside(const Sequence& seq) const {
  size_t firm = running_.size();
  while (firm > 0 && running_[firm - 1]->request.priority > seq.request.priority) --firm;
  size_t kept = std::min(running_.size(), static_cast<size_t>(config_.max_running) - 1);
  if (kept < firm) return std::nullopt;
  const KvCache& kv = runtime_.kv();
  const auto needs = [&](const Sequence& s) {
    return kv.sequence_pages(static_cast<int64_t>(s.tokens.size())) + kv.lists();
  };
  int64_t room = kv.free_pages() - needs(seq);
  if (cache_) {
    const int64_t held = cache_->find(seq.request.cache_salt, seq.tokens).held_pages;
    room += cache_->unused_pages() + held * kv.full_lists();
  }
  for (size_t i = 0; i < running_.size(); ++i) {
    // Shared pages count more than once: admit() looks again.
    room += kv.sequence_pages(running_[i]->cached);
    if (i < kept) room -= needs(*running_[i]);
  }
  for (; room < 0 && kept > 0; --kept) {
    if (kept == firm) return std::nullopt;
    room += needs(*running_[kept - 1]);
  }
  return kept;
}

/// What a sequence needs to run at all, made when it first runs.
void Engine::prepare(Sequence& seq) {
  seq.admitted = true;
  counts_.cache_query_tokens += cache_ ? seq.ledger.prompt_tokens : 0;
  counts_.cache_hit_tokens += seq.cached;
  seq.ledger.prefill_tokens = seq.ledger.prompt_tokens - seq.cached;
  if (seq.embeds()) return;
  const Tokenizer& tokenizer = runtime_.tokenizer();
  seq.sampler.emplace(sampling_of(seq.request, tokenizer), &tokenizer,
                      static_cast<int32_t>(runtime_.model_config().vocab));
  size_t most = static_cast<size_t>(runtime_.max_context()) + 1;
  if (seq.request.max_tokens > 0) {
    most = std::min(most, seq.tokens.size() + static_cast<size_t>(seq.request.max_tokens));
  }
  seq.sampler->reserve(most);
  seq.tokens.reserve(most);
  for (const int32_t token : seq.tokens) seq.sampler->accept(token);
  if (seq.request.grammar) seq.grammar = seq.request.grammar->make_state();
}

/// The running sequence before `seq` in the queue's order whose unfinished prompt has the most whole pages in
/// common with it, more than the cache has.
void Engine::find_leader(Sequence& seq) {
  seq.leader = -1;
  seq.leader_tokens = seq.cached;
  if (!cache_ || seq.request.pooling == Pooling::kMean) return;
  const int64_t slots = runtime_.kv().config().page_slots;
  for (const Sequence* other : running_) {
    if (std::pair(other->request.priority, other->id) > std::pair(seq.request.priority, seq.id)) break;
    if (other->pending() <= 1 || other->request.cache_salt != seq.request.cache_salt) continue;
    const auto [mine, theirs] =
        std::mismatch(seq.tokens.begin(), seq.tokens.end() - 1, other->tokens.begin(), other->tokens.end());
    const int64_t common = (mine - seq.tokens.begin()) / slots * slots;
    if (common <= seq.leader_tokens || common <= other->cached) continue;
    seq.leader = other->id;
    seq.leader_tokens = common;
  }
}

/// Sequences whose leader has come far enough, or is gone, take what the cache has now.
void Engine::follow() {
  for (Sequence* seq : running_) {
    if (seq->leader < 0) continue;
    const auto found = sequences_.find(seq->leader);
    if (found != sequences_.end()) {
      const Sequence& leader = *found->second;
      if (leader.state == Sequence::State::kRunning && leader.cached < seq->leader_tokens) continue;
    }
    seq->leader = -1;
    const int64_t before = seq->cached;
    give_kv(*seq);
    take_kv(*seq);
    if (seq->generated() > 0) continue;  // preempted before; its prompt has been counted
    counts_.cache_hit_tokens += seq->cached - before;
    seq->ledger.prefill_tokens = seq->ledger.prompt_tokens - seq->cached;
  }
}

/// Fills stepping_ and the batch; preempts until the rows have KV pages.
void Engine::grant_rows() {
  KvCache& kv = runtime_.kv();
  for (;;) {
    demands_.clear();
    for (const Sequence* seq : running_) {
      const bool decoding = seq->generated() > 0 && seq->pending() == 1;
      demands_.push_back({seq->leader >= 0 ? 0 : seq->pending(), decoding, seq->request.priority});
    }
    form_batch(demands_, {config_.step_rows, config_.prompt_rows}, granted_);
    int64_t pages = 0;
    for (size_t i = 0; i < running_.size(); ++i) pages += kv.append_pages(running_[i]->kv, granted_[i]);
    const int64_t missing = pages - kv.free_pages();
    if (missing <= 0) break;
    for (const Sequence* seq : running_) kv.settle(seq->kv);
    if (kv.free_pages() >= pages) break;
    if (cache_ && cache_->evict(missing) > 0) continue;
    if (running_.size() == 1) {
      fail(*running_[0], fmt::format("KV cache: {} pages are needed, {} are free and no other sequence runs",
                                     pages, kv.free_pages()));
      break;
    }
    preempt_last();
  }
  rows_.clear();
  logits_rows_.clear();
  hidden_rows_.clear();
  stepping_.clear();
  for (size_t i = 0; i < running_.size(); ++i) {
    Sequence& seq = *running_[i];
    if (granted_[i] == 0) continue;
    Granted granted{&seq, granted_[i], !demands_[i].decoding, -1, -1};
    const bool last = granted.rows == seq.pending();
    if (seq.request.pooling == Pooling::kMean || (seq.embeds() && last)) {
      granted.hidden_at = static_cast<int64_t>(hidden_rows_.size());
    }
    for (int64_t r = 0; r < granted.rows; ++r) {
      const int64_t position = seq.cached + r;
      const auto row = static_cast<int32_t>(rows_.size());
      rows_.push_back({seq.tokens[static_cast<size_t>(position)], static_cast<int32_t>(position), seq.kv});
      if (granted.hidden_at >= 0 && (seq.request.pooling == Pooling::kMean || r + 1 == granted.rows)) {
        hidden_rows_.push_back(row);
      }
    }
    if (last && !seq.embeds()) {
      granted.logits_at = static_cast<int64_t>(logits_rows_.size());
      logits_rows_.push_back(static_cast<int32_t>(rows_.size()) - 1);
    }
    stepping_.push_back(granted);
  }
}

void Engine::preempt_last() {
  Sequence& seq = *running_.back();
  leave(seq);
  enqueue(seq);
  ++seq.ledger.preemptions;
  ++counts_.preemptions;
}

Status Engine::run_batch() {
  const ModelConfig& model = runtime_.model_config();
  grow(logits_, logits_rows_.size() * static_cast<size_t>(model.vocab));
  grow(hidden_, hidden_rows_.size() * static_cast<size_t>(model.d_model));
  Outputs outputs;
  outputs.logits = logits_.as<float>();
  outputs.hidden = hidden_.as<float>();
  Batch batch;
  batch.rows = rows_;
  batch.logits_rows = logits_rows_;
  batch.hidden_rows = hidden_rows_;
  return runtime_.step(batch, outputs);
}

/// `hidden`: the states of rows [begin, begin + rows), or of the last of them only (Pooling::kLast).
void Engine::pool_rows(Sequence& seq, int64_t begin, int64_t rows, const float* hidden) {
  const auto width = static_cast<size_t>(runtime_.model_config().d_model);
  const bool mean = seq.request.pooling == Pooling::kMean;
  for (size_t r = 0; mean && r < static_cast<size_t>(rows); ++r) {
    for (size_t i = 0; i < width; ++i) seq.pooled[i] += static_cast<double>(hidden[r * width + i]);
  }
  const auto length = static_cast<int64_t>(seq.tokens.size());
  if (begin + rows < length) return;
  seq.embedding.resize(width);
  for (size_t i = 0; i < width; ++i) {
    seq.embedding[i] = mean ? static_cast<float>(seq.pooled[i] / static_cast<double>(length)) : hidden[i];
  }
  end(seq, FinishReason::kStop);
}

/// Hashes the logits rows and samples from them, sequences side by side. Grammars may share caches: their
/// masks are made before, by this thread.
void Engine::choose_tokens() {
  const PartScope part(&runtime_.ledger(), Part::kSample);
  const auto vocab = static_cast<size_t>(runtime_.model_config().vocab);
  for (Granted& granted : stepping_) {
    if (granted.logits_at >= 0 && granted.seq->grammar) granted.allowed = granted.seq->grammar->mask();
  }
  const auto choose = [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      Granted& granted = stepping_[static_cast<size_t>(i)];
      if (granted.logits_at < 0) continue;
      Sequence& seq = *granted.seq;
      const float* logits = logits_.as<float>() + granted.logits_at * static_cast<int64_t>(vocab);
      XXH3_64bits_update(seq.hash.get(), logits, vocab * sizeof(float));
      const double start = now_seconds();
      granted.token = seq.sampler->sample({logits, vocab}, seq.tokens.size(), granted.allowed);
      if (seq.request.post_sampling_probs && seq.request.top_logprobs >= 0) {
        list_probs(granted, {logits, vocab});
      }
      granted.sample_s = now_seconds() - start;
    }
  };
  const auto count = static_cast<int64_t>(stepping_.size());
  if (count == 1) return choose(0, 1, 0);
  runtime_.context().pool.parallel_for(count, 1, choose);
}

/// The probabilities that the token was drawn by; those of 0 are left out.
void Engine::list_probs(const Granted& granted, std::span<const float> logits) {
  Sequence& seq = *granted.seq;
  const std::span<const Candidate> drawn = seq.sampler->process(logits, seq.tokens.size(), granted.allowed);
  seq.probs.clear();
  seq.prob = 0;
  for (const Candidate& candidate : drawn) {
    if (candidate.id == granted.token) seq.prob = static_cast<float>(candidate.p);
    if (candidate.p > 0) seq.probs.push_back({candidate.id, static_cast<float>(candidate.p)});
  }
  const size_t count = std::min(seq.probs.size(), static_cast<size_t>(seq.request.top_logprobs));
  std::partial_sort(seq.probs.begin(), seq.probs.begin() + static_cast<std::ptrdiff_t>(count),
                    seq.probs.end(), [](const TokenLogprob& a, const TokenLogprob& b) {
                      return a.logprob != b.logprob ? a.logprob > b.logprob : a.token < b.token;
                    });
  seq.probs.resize(count);
}

void Engine::finish_row(const Granted& granted) {
  Sequence& seq = *granted.seq;
  const int32_t token = granted.token;
  const auto vocab = static_cast<size_t>(runtime_.model_config().vocab);
  const float* logits = logits_.as<float>() + granted.logits_at * static_cast<int64_t>(vocab);
  const PartScope part(&runtime_.ledger(), Part::kSample);
  if (const RowReport& odd = seq.sampler->report(); odd.nan_logits > 0) {
    return fail(seq, fmt::format("{} of {} logits at position {} are not numbers", odd.nan_logits, vocab,
                                 seq.tokens.size()));
  } else if (odd.all_masked) {
    return fail(seq,
                fmt::format("no token is left to choose from at position {}: the {} all", seq.tokens.size(),
                            seq.grammar ? "grammar and the logit bias ban" : "logit bias bans"));
  }
  TokenEvent event{seq.id, token, runtime_.tokenizer().is_end_of_generation(token), FinishReason::kNone};
  if (seq.grammar && !event.end_token && !seq.grammar->accept(token)) {
    return fail(seq, fmt::format("the grammar is too ambiguous to be followed beyond position {}",
                                 seq.tokens.size()));
  }
  if (seq.request.top_logprobs >= 0) {
    const size_t first = top_.size();
    if (seq.request.post_sampling_probs) {
      event.logprob = seq.prob;
      top_.insert(top_.end(), seq.probs.begin(), seq.probs.end());
    } else {
      event.logprob =
          append_logprobs(runtime_.context(), {logits, vocab}, token, seq.request.top_logprobs, top_);
    }
    event.top = std::span(top_).subspan(first);
  }
  seq.sampler->accept(token);
  const double now = now_seconds();
  seq.ledger.sample_s += granted.sample_s;
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
  ++counts_.generated_tokens;

  if (event.end_token || (seq.grammar && seq.grammar->is_done())) {
    event.reason = FinishReason::kStop;
  } else if (seq.request.max_tokens >= 0 && seq.generated() >= seq.request.max_tokens) {
    event.reason = FinishReason::kLength;
  } else if (static_cast<int64_t>(seq.tokens.size()) > runtime_.max_context()) {
    event.reason = FinishReason::kLength;
  }
  if (event.reason != FinishReason::kNone) {
    end(seq, event.reason);
    events_.pop_back();
  }
  events_.push_back(event);
}

}  // namespace mete
