// The engine: sequences in, tokens out, one step at a time. Knows no HTTP and no text.
#pragma once

#include <iosfwd>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine/receipt.h"
#include "engine/runtime.h"
#include "kv/reuse/prefix_cache.h"
#include "request/request.h"
#include "sample/logprobs.h"
#include "sched/form_batch.h"

namespace mete {

struct EngineConfig {
  int64_t max_running = 0;                ///< sequences that share steps (-np); 0: the runtime's max_seqs
  int64_t max_queue = 2048;               ///< sequences that wait beyond those that could run at once
  int64_t step_rows = 0;                  ///< rows of a step, at most the runtime's max_rows; 0: that
  int64_t prompt_rows = 0;                ///< prompt rows of a step in which sequences decode; 0: step_rows
  ReusePolicy reuse = ReusePolicy::kLru;  ///< which cached prefixes go first; kNone: no prefix cache
};

/// A token that a step produced, or the end of a sequence. The final end-of-generation token is reported with
/// `reason` kStop. Spans are valid until the next step.
struct TokenEvent {
  SeqId seq;
  int32_t token;        ///< -1 if the sequence ended without one (deadline, error, an embedding)
  bool end_token;       ///< `token` ends the generation and is not part of the text
  FinishReason reason;  ///< kNone while the sequence goes on
  /// Of `token`, by the model's logits as they are (Request::top_logprobs >= 0). With post_sampling_probs its
  /// probability among those that the sampler drew from.
  float logprob = 0;
  /// The likeliest, best first, Request::top_logprobs of them; with post_sampling_probs at most that many.
  std::span<const TokenLogprob> top{};
};

/// What a server shows as gauges and counters. A slot holds one token's KV.
struct EngineStats {
  int64_t queued = 0, running = 0;  ///< sequences
  int64_t kv_slots_total = 0;
  int64_t kv_slots_used = 0;    ///< by running sequences
  int64_t kv_slots_cached = 0;  ///< held for reuse only; given up when a sequence needs room
  int64_t page_slots = 0;       ///< tokens of a page
  int64_t pages = 0;            ///< kv_slots_total / page_slots
  // Since the engine was made:
  int64_t cache_query_tokens = 0;  ///< prompt tokens looked up in the prefix cache
  int64_t cache_hit_tokens = 0;    ///< of those, found
  int64_t preemptions = 0;
  int64_t prefilled_tokens = 0;  ///< rows of prompts, and of tokens computed anew after a preemption
  int64_t generated_tokens = 0;
  int64_t steps = 0;
};

/// What restore_cache found, in tokens.
struct RestoredCache {
  int64_t tokens = 0;
  int64_t left_out = 0;  ///< for which KV memory has no room
};

struct PrefixIdentity;

/// All calls come from one thread. Sequences wait in order of priority, then arrival, and run in steps as
/// sched/form_batch.h says. When KV memory is full, or one of better priority waits for a place, the newest
/// sequence of the worst priority goes back to the queue and its tokens are computed anew later, with the
/// same bits. KV of ended and of running sequences is found again by requests that begin with the same
/// tokens, again with the same bits.
class Engine {
 public:
  /// Throws Error(kUsage) if the configuration cannot be.
  explicit Engine(Runtime& runtime, const EngineConfig& config = {});
  ~Engine();

  /// Queues a request. Errors: kUsage: an empty prompt, one longer than the context, ids outside the
  /// vocabulary, invalid parameters; kOverBudget: the queue is full.
  Result<SeqId> submit(const Request& request);

  /// Runs one step and returns what it produced; valid until the next call. Without runnable sequences it
  /// returns at once.
  const std::vector<TokenEvent>& step() noexcept;

  /// No sequence runs or waits.
  bool idle() const { return waiting_.empty() && running_.empty(); }
  /// Ends a sequence without an event; nothing if it has ended.
  void cancel(SeqId seq);
  /// Forgets an ended sequence.
  void release(SeqId seq);
  EngineStats stats() const;

  /// Writes the prefix cache to a file that only its owner can read: it holds what was said. Reads the whole
  /// model file once, for its hash. Errors: kUsage: there is no cache; kRuntime.
  Status save_cache(const std::string& path);
  /// Fills the empty prefix cache of an engine that has not run yet. All or nothing: kRuntime with the reason
  /// if the file is damaged, or was made with another model, context, codec or version of the numerics.
  Result<RestoredCache> restore_cache(const std::string& path);

  // Of a sequence that is not released:
  bool ended(SeqId seq) const;
  int64_t rows_done(SeqId seq) const;  ///< its tokens that are in the KV cache; of an ended one, that were
  const SequenceLedger& ledger(SeqId seq) const;
  const std::vector<int32_t>& tokens(SeqId seq) const;  ///< prompt and generated
  /// XXH3-64 over the float32 little-endian logits of every row from which a token was sampled, in order,
  /// before any processor.
  uint64_t logits_hash(SeqId seq) const;
  MemoryUse memory_use() const { return runtime_.memory_use(logits_.resident()); }
  const std::string& error(SeqId seq) const;  ///< of a sequence that ended with kError
  /// [d_model], of an embedding request that ended with kStop; not normalised.
  const std::vector<float>& embedding(SeqId seq) const;

  Runtime& runtime() { return runtime_; }

 private:
  struct Sequence;
  struct Granted;
  Sequence& find(SeqId seq) const;
  void run_step();
  Status check(const Request& request) const;
  void enqueue(Sequence& seq);
  void end_overdue();
  void admit();
  std::optional<size_t> places_beside(const Sequence& seq) const;
  void prepare(Sequence& seq);
  void take_kv(Sequence& seq);
  void give_kv(Sequence& seq);
  Result<RestoredCache> restore_from(std::istream& in, const std::string& name,
                                     const PrefixIdentity& identity);
  void find_leader(Sequence& seq);
  void follow();
  void grant_rows();
  void preempt_last();
  Status run_batch();
  void choose_tokens();
  void reserve_top();
  static void list_probs(const Granted& granted, std::span<const float> logits);
  void finish_row(const Granted& granted);
  void pool_rows(Sequence& seq, int64_t begin, int64_t rows, const float* hidden);
  void fail(Sequence& seq, std::string message);
  void end(Sequence& seq, FinishReason reason);
  void leave(Sequence& seq);

  Runtime& runtime_;
  EngineConfig config_;
  std::unique_ptr<PrefixCache> cache_;  // null: none
  std::unordered_map<SeqId, std::unique_ptr<Sequence>> sequences_;
  SeqId next_id_ = 0;
  std::vector<Sequence*> waiting_, running_;  // by priority, then arrival
  EngineStats counts_;
  // Of the running step; members so that a warm step allocates nothing.
  std::vector<TokenEvent> events_;
  std::vector<TokenLogprob> top_;
  std::vector<Demand> demands_;
  std::vector<int64_t> granted_;
  std::vector<Row> rows_;
  std::vector<int32_t> logits_rows_, hidden_rows_;
  std::vector<Granted> stepping_;
  AlignedBuffer logits_, hidden_;
};

}  // namespace mete
