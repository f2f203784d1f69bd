// Chooses the next token of one sequence. Randomness comes from base/rng.h, keyed by (seed, position).
#pragma once

#include <cstdint>
#include <span>

#include "request/sampling.h"
#include "text/tokenizer.h"

namespace mete {

class Sampler {
 public:
  /// `tokenizer` spells the DRY sequence breakers; it may be null where DRY is off.
  Sampler(const SamplingParams& params, const Tokenizer* tokenizer, int32_t vocab);

  /// The token for `position` (index of the new token in its sequence). logits: [vocab].
  int32_t sample(std::span<const float> logits, uint64_t position);
  /// Tells the penalties that `token` is now part of the sequence; prompt tokens too.
  void accept(int32_t token);

 private:
  SamplingParams params_;
};

}  // namespace mete
