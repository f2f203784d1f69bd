// Perplexity of a text under one setting, and its distance to a reference.
#pragma once

#include "apps/eval_options.h"
#include "eval/quality.h"

namespace mete {

struct PositionRange {
  int64_t first, last;  ///< positions in the window
  Quality quality;
};

struct QualityResult {
  Quality all;
  std::vector<PositionRange> by_position;
  bool compared = false;
  int64_t compact = 0;  ///< k of a compact reference: KL is a lower bound
  int64_t windows = 0;
  int64_t weight_bytes = 0, kv_bytes = 0;  ///< resident weights; KV of one full window
  std::vector<double> decode_rates;        ///< tokens/s of each repetition; empty: not measured

  int64_t bytes() const { return weight_bytes + kv_bytes; }
};

/// Runs the text of `o` through its model. `decode_repetitions` > 0 also times decoding in the middle of a
/// window. Throws Error.
QualityResult measure_quality(const EvalOptions& o, int decode_repetitions = 0);

}  // namespace mete
