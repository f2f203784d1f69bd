// What a caller asks of the engine for one sequence, and how it ended.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "request/sampling.h"

namespace mete {

enum class FinishReason {
  kNone,       ///< still running
  kStop,       ///< an end-of-generation token or a stop string
  kLength,     ///< max_tokens or the context was reached
  kCancelled,  ///< the caller gave up
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
    case FinishReason::kError:
      return "error";
  }
  return "none";
}

struct Request {
  std::vector<int32_t> prompt;  ///< token ids, BOS included; at least one
  int64_t max_tokens = -1;      ///< generated tokens; -1: until the context is full
  bool ignore_eos = false;      ///< end-of-generation tokens are never sampled
  SamplingParams sampling;
};

}  // namespace mete
