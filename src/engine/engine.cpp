#include "engine/engine.h"

#include <algorithm>

#include "base/clock.h"
#include "engine/sequence.h"

namespace mete {
namespace {

int64_t checked(const char* what, int64_t value, int64_t least, int64_t most) {
  if (value < least || value > most) {
    throw bad_usage("{} is {}, expected {} to {}", what, value, least, most);
  }
  return value;
}

}  // namespace

Engine::Engine(Runtime& runtime, const EngineConfig& config) : runtime_(runtime), config_(config) {
  EngineConfig& c = config_;
  if (c.step_rows == 0) c.step_rows = runtime.max_rows();
  if (c.prompt_rows == 0) c.prompt_rows = c.step_rows;
  if (c.max_running == 0) c.max_running = runtime.max_seqs();
  checked("rows of a step", c.step_rows, 1, runtime.max_rows());
  checked("prompt rows of a step", c.prompt_rows, 1, int64_t{1} << 20);
  c.prompt_rows = std::min(c.prompt_rows, c.step_rows);  // a bound; steps may be smaller than that
  // Every running sequence gets a row in every step.
  checked("the number of sequences that run at once (-np)", c.max_running, 1, c.step_rows);
  checked("the length of the queue", c.max_queue, 0, int64_t{1} << 30);
  if (c.reuse != ReusePolicy::kNone) cache_ = std::make_unique<PrefixCache>(runtime.kv(), c.reuse);
  running_.reserve(static_cast<size_t>(c.max_running));
  stepping_.reserve(static_cast<size_t>(c.max_running));
  rows_.reserve(static_cast<size_t>(c.step_rows));
}

Engine::~Engine() {
  for (const auto& [id, seq] : sequences_) give_kv(*seq);
}

Engine::Sequence& Engine::find(SeqId seq) const {
  const auto it = sequences_.find(seq);
  METE_CHECK(it != sequences_.end());
  return *it->second;
}

Status Engine::check(const Request& request) const {
  const int64_t vocab = runtime_.model_config().vocab;
  const auto length = static_cast<int64_t>(request.prompt.size());
  if (length == 0) return bad_usage("the prompt is empty: at least one token is needed");
  if (length > runtime_.max_context()) {
    return bad_usage("the prompt has {} tokens, the context holds {} (-c)", length, runtime_.max_context());
  }
  for (const int32_t token : request.prompt) {
    if (token < 0 || token >= vocab)
      return bad_usage("token id {} in the prompt: expected 0..{}", token, vocab - 1);
  }
  if (request.pooling != Pooling::kNone) return {};
  if (request.max_tokens == 0) return bad_usage("max_tokens is 0: nothing to generate");
  return request.sampling.validate(vocab);
}

Result<SeqId> Engine::submit(const Request& request) {
  if (Status valid = check(request); !valid) return valid.error();
  if (Status unchanged = runtime_.check_files(); !unchanged) return unchanged.error();
  const int64_t places = config_.max_queue + config_.max_running - static_cast<int64_t>(running_.size());
  if (static_cast<int64_t>(waiting_.size()) >= places) {
    return Error(Code::kOverBudget, fmt::format("the queue is full: {} sequences run, {} wait",
                                                running_.size(), waiting_.size()));
  }
  auto seq = std::make_unique<Sequence>(next_id_++, request);
  seq->ledger.prompt_tokens = static_cast<int64_t>(request.prompt.size());
  seq->ledger.submitted = now_seconds();
  seq->ledger.at_submit = seq->ledger.at_first = seq->ledger.at_last = runtime_.ledger().mark();
  enqueue(*seq);
  const SeqId id = seq->id;
  sequences_.emplace(id, std::move(seq));
  return id;
}

void Engine::enqueue(Sequence& seq) {
  const auto before = [](const Sequence* a, const Sequence* b) {
    return a->request.priority != b->request.priority ? a->request.priority < b->request.priority
                                                      : a->id < b->id;
  };
  seq.state = Sequence::State::kWaiting;
  waiting_.insert(std::upper_bound(waiting_.begin(), waiting_.end(), &seq, before), &seq);
}

void Engine::leave(Sequence& seq) {
  auto& list = seq.state == Sequence::State::kRunning ? running_ : waiting_;
  std::erase(list, &seq);
  give_kv(seq);
}

/// A KV sequence with the longest cached prefix. The last token's row is always computed, for its logits.
void Engine::take_kv(Sequence& seq) {
  seq.kv = runtime_.kv().create();
  seq.cached = 0;
  if (!cache_) return;
  const bool all_rows = seq.request.pooling == Pooling::kMean;  // every state is wanted: nothing is reused
  const auto known = std::span(seq.tokens).first(all_rows ? 0 : seq.tokens.size() - 1);
  seq.cached = cache_->begin(seq.kv, seq.request.cache_salt, known, seq.place);
}

void Engine::give_kv(Sequence& seq) {
  if (seq.kv < 0) return;
  if (cache_) cache_->end(std::span(seq.tokens).first(static_cast<size_t>(seq.cached)), seq.place);
  runtime_.kv().release(seq.kv);
  seq.kv = -1;
}

void Engine::end(Sequence& seq, FinishReason reason) {
  leave(seq);
  seq.state = Sequence::State::kEnded;
  seq.sampler.reset();
  seq.grammar.reset();
  events_.push_back({seq.id, -1, false, reason});
}

void Engine::fail(Sequence& seq, std::string message) {
  seq.error = std::move(message);
  end(seq, FinishReason::kError);
}

void Engine::cancel(SeqId id) {
  Sequence& seq = find(id);
  if (seq.state == Sequence::State::kEnded) return;
  end(seq, FinishReason::kCancelled);
  events_.pop_back();
}

void Engine::release(SeqId seq) {
  METE_CHECK(ended(seq));
  sequences_.erase(seq);
}

EngineStats Engine::stats() const {
  const KvCache& kv = runtime_.kv();
  EngineStats s = counts_;
  s.queued = static_cast<int64_t>(waiting_.size());
  s.running = static_cast<int64_t>(running_.size());
  s.page_slots = kv.config().page_slots;
  s.pages = kv.max_blocks();
  s.kv_slots_total = s.pages * s.page_slots;
  s.kv_slots_cached = cache_ ? cache_->unused_blocks() * s.page_slots : 0;
  const int64_t used = kv.total_pages() - kv.free_pages() - (cache_ ? cache_->unused_pages() : 0);
  // Where layers slide a token has fewer pages the further it lies back.
  s.kv_slots_used =
      std::min(used * s.kv_slots_total / kv.total_pages(), s.kv_slots_total - s.kv_slots_cached);
  return s;
}

bool Engine::ended(SeqId seq) const { return find(seq).state == Sequence::State::kEnded; }
int64_t Engine::rows_done(SeqId seq) const { return find(seq).cached; }
const SequenceLedger& Engine::ledger(SeqId seq) const { return find(seq).ledger; }
const std::vector<int32_t>& Engine::tokens(SeqId seq) const { return find(seq).tokens; }
uint64_t Engine::logits_hash(SeqId seq) const { return XXH3_64bits_digest(find(seq).hash.get()); }
const std::string& Engine::error(SeqId seq) const { return find(seq).error; }
const std::vector<float>& Engine::embedding(SeqId seq) const { return find(seq).embedding; }

}  // namespace mete
