// The engine: sequences in, tokens out, one step at a time. Knows no HTTP and no text.
#pragma once

#include <xxhash.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/receipt.h"
#include "engine/runtime.h"
#include "request/request.h"
#include "sample/sampler.h"
#include "sched/form_batch.h"

namespace mete {

/// A token that a step produced. The final end-of-generation token is reported with `last` set and reason
/// kStop.
struct TokenEvent {
  SeqId seq;
  int32_t token;        ///< -1 if the sequence ended without one (cancelled, error)
  bool end_token;       ///< `token` ends the generation and is not part of the text
  FinishReason reason;  ///< kNone while the sequence goes on
};

class Engine {
 public:
  explicit Engine(Runtime& runtime);
  ~Engine();

  /// Queues a request. With `reuse` (an ended sequence of this engine), the KV of the longest common prefix
  /// of its tokens and the prompt is kept; otherwise a new sequence is made. Errors (kUsage): an empty
  /// prompt, one longer than the context, ids outside the vocabulary, invalid sampling parameters.
  Result<SeqId> submit(const Request& request, std::optional<SeqId> reuse = std::nullopt);

  /// Runs one step over the running sequences and returns what it produced; valid until the next call.
  const std::vector<TokenEvent>& step() noexcept;

  bool idle() const;
  /// Ends a running sequence; its KV stays until release.
  void cancel(SeqId seq);
  /// Forgets an ended sequence and frees its KV.
  void release(SeqId seq);

  int64_t rows_done(SeqId seq) const;  ///< tokens of the sequence that are in the KV cache
  const SequenceLedger& ledger(SeqId seq) const;
  const std::vector<int32_t>& tokens(SeqId seq) const;  ///< prompt and generated
  /// XXH3-64 over the float32 little-endian logits of every row from which a token was sampled, in order,
  /// before any processor.
  uint64_t logits_hash(SeqId seq) const;
  const std::string& error(SeqId seq) const;  ///< of a sequence that ended with kError
  Runtime& runtime() { return runtime_; }

 private:
  struct Sequence;
  Sequence& find(SeqId seq) const;
  void run_step();
  void finish_row(Sequence& seq, const float* logits);

  Runtime& runtime_;
  std::vector<std::unique_ptr<Sequence>> sequences_;  // running and ended, in order of arrival
  // Of the running step; members so that a warm step allocates nothing.
  std::vector<TokenEvent> events_;
  std::vector<Sequence*> running_;
  std::vector<Demand> demands_;
  std::vector<int64_t> granted_;
  std::vector<Sequence*> finishing_;  // in the order of logits_rows_
  std::vector<Row> rows_;
  std::vector<int32_t> logits_rows_;
  AlignedBuffer logits_;
};

}  // namespace mete
