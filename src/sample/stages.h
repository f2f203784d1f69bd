// The stages of the sampling chain, each a pure function on a candidate list. Meanings as llama.cpp's
// (llama-sampler.cpp); probabilities in double. A stage with its neutral setting leaves the list as it is.
#pragma once

#include <cstdint>
#include <span>
#include <utility>

#include "sample/candidates.h"

namespace mete {

/// Adds to the logits of the given ids.
void apply_logit_bias(Candidates* list, std::span<const std::pair<int32_t, float>> bias);

/// `counts[id]`: how often a token is in the window. z = z / repeat if z > 0 else z * repeat, then
/// z -= count * frequency + presence.
void apply_penalties(Candidates* list, std::span<const int32_t> counts, float repeat, float frequency,
                     float presence);

/// -inf for logits under max - n * (standard deviation of the finite logits); n <= 0: off.
void apply_top_n_sigma(Candidates* list, float n);

/// The k best, sorted; k <= 0: off (k at or over the size still sorts).
void apply_top_k(Candidates* list, int32_t k);

/// Smallest prefix of the sorted list whose probability reaches p, at least min_keep; p >= 1: off.
void apply_top_p(Candidates* list, float p, int32_t min_keep);

/// Keeps probabilities of at least p times the highest, at least min_keep; p <= 0: off.
void apply_min_p(Candidates* list, float p, int32_t min_keep);

/// Locally typical: by ascending |-ln p - entropy|, until the probability passes `mass`; mass >= 1: off. The
/// list is then in that order.
void apply_typical_p(Candidates* list, float mass, int32_t min_keep);

/// If `unit` < probability and two or more tokens reach the threshold: drops all of those but the least
/// probable.
void apply_xtc(Candidates* list, float probability, float threshold, int32_t min_keep, double unit);

/// Divides the logits by the temperature; with range > 0 by a temperature in [max(0, t - range), t + range]
/// that grows with the normalised entropy to the power `exponent`. A temperature <= 0 leaves the best
/// candidate only.
void apply_temperature(Candidates* list, float temperature, float range, float exponent);

/// Mirostat 1 (Basu et al. 2021): top-k with k from an estimate of Zipf's exponent over the 100 best and mu.
void apply_mirostat_1(Candidates* list, int32_t vocab, double mu);
/// Mirostat 2: drops tokens with surprise -log2 p over mu, but the best.
void apply_mirostat_2(Candidates* list, double mu);

}  // namespace mete
