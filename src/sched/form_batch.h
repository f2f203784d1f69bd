// Which sequences get how many rows of the next step: decode first, then prompts in order of arrival.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace mete {

/// A running sequence: the rows it could use now. One pending row is a decode step or a prompt's last row.
struct Demand {
  int64_t pending;  ///< tokens known but not yet in the KV cache, >= 1
  bool decoding;    ///< its prompt is done
};

/// Rows granted to each demand, at most its pending, summing to at most `budget` (>= 1). Decoding sequences
/// come first; what is left goes to prompts, oldest (lowest index) first. Which rows share a step never
/// changes bits.
inline void form_batch(std::span<const Demand> demands, int64_t budget, std::vector<int64_t>& granted) {
  granted.assign(demands.size(), 0);
  for (const bool decoding : {true, false}) {
    for (size_t i = 0; i < demands.size() && budget > 0; ++i) {
      if (demands[i].decoding != decoding) continue;
      granted[i] = demands[i].pending < budget ? demands[i].pending : budget;
      budget -= granted[i];
    }
  }
}

}  // namespace mete
