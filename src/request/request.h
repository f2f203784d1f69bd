// What a caller asks of the engine for one sequence, and how it ended.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "request/sampling.h"

namespace mete {

class Grammar;

enum class FinishReason {
  kNone,       ///< still running
  kStop,       ///< an end-of-generation token or a stop string
  kLength,     ///< max_tokens or the context was reached
  kCancelled,  ///< the caller gave up
  kDeadline,   ///< Request::deadline passed
  kError       ///< a run-time failure; the message says which
};

inline const char* name(FinishReason reason) {
  switch (reason) {
    case FinishReason::kNone:
      return "none";
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kCancelled:
      return "cancelled";
    case FinishReason::kDeadline:
      return "deadline";
    case FinishReason::kError:
      return "error";
  }
  return "none";
}

/// What an embedding request makes of the states after the output norm.
enum class Pooling {
  kNone,  ///< no embedding: the request generates tokens
  kLast,  ///< the last token's state
  kMean   ///< the mean over all tokens
};

struct Request {
  std::vector<int32_t> prompt;  ///< token ids, BOS included; at least one
  int64_t max_tokens = -1;      ///< generated tokens; -1: until the context is full
  bool ignore_eos = false;      ///< end-of-generation tokens are never sampled
  SamplingParams sampling;
  std::shared_ptr<const Grammar> grammar;  ///< null: unconstrained (text/grammar)
  int32_t top_logprobs = -1;  ///< >= 0: each token comes with its log-probability and this many of the best
  bool post_sampling_probs = false;  ///< then these are probabilities, of what was left to draw from
  int32_t priority = 0;              ///< lower runs first
  double deadline = 0;      ///< > 0: clock (now_seconds) after which the sequence ends with kDeadline
  uint64_t cache_salt = 0;  ///< prefixes are shared only between requests of equal salt
  Pooling pooling = Pooling::kNone;  ///< else: the prompt is embedded and nothing generated
};

}  // namespace mete
