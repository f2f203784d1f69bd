// Log-probabilities of tokens by the model's logits as they are, before any sampling stage.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "ops/context.h"

namespace mete {

struct TokenLogprob {
  int32_t token;
  float logprob;  ///< natural; logit minus log-sum-exp of the row, rounded once
};

/// Appends the `count` likeliest tokens (at most the row), best first, equal logits by ascending id, and
/// returns the log-probability of `token`. The bits depend on the row alone. NaN logits rank last.
float append_logprobs(Context& ctx, std::span<const float> logits, int32_t token, int32_t count,
                      std::vector<TokenLogprob>& top);

}  // namespace mete
