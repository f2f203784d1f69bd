// Which sequences get how many rows of the next step.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace mete {

/// A running sequence: the rows it could use now.
struct Demand {
  int64_t pending;       ///< tokens known but not yet in the KV cache, >= 1; 0: wants nothing
  bool decoding;         ///< the one pending token was generated
  int32_t priority = 0;  ///< lower first
};

struct StepLimits {
  int64_t rows;         ///< of the step, >= 1
  int64_t prompt_rows;  ///< rows of prompts if there are decoding ones, >= 1
};

/// Rows granted to each demand, at most its pending. `demands` come in queue order: priority, then arrival.
/// Decoding sequences get their row first. Half of what is left (rounded up) goes to prompts in queue order,
/// the rest to prompts with the fewest pending rows, of the best priority. So the first prompt of the queue
/// takes at most twice as long as alone however many short ones arrive, short ones do not wait for a long one
/// to end, and equal prompts run one after the other. Which rows share a step never changes bits.
void form_batch(std::span<const Demand> demands, StepLimits limits, std::vector<int64_t>& granted);

}  // namespace mete
