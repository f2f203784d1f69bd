// The router of a mixture-of-experts layer: scores to experts and weights. docs/numerics.md, "Experts".
#pragma once

#include <cstdint>

#include "ops/context.h"

namespace mete {

inline constexpr int64_t kMaxExperts = 1024;    ///< of a layer
inline constexpr int64_t kMaxExpertsUsed = 64;  ///< per row
inline constexpr int64_t kMaxExpertGroups = 64;

/// How a row's router outputs become the weights of its experts.
enum class RouterGate {
  kSoftmax,       ///< softmax over all experts
  kSoftmaxOfTop,  ///< softmax over the chosen ones
  kSigmoid        ///< sigmoid of each
};

struct RouterParams {
  RouterGate gate = RouterGate::kSoftmax;
  int64_t experts = 0;     ///< 1 .. kMaxExperts
  int64_t used = 0;        ///< per row, 1 .. experts
  bool normalise = false;  ///< divide the chosen weights by their sum
  float scale = 1;         ///< then multiply by this, if it is not 1
  /// Experts in `groups` runs of equal length, of which only the `groups_used` best may be chosen from. A
  /// group ranks by the sum of its `group_top` (1 or 2) best scores.
  int64_t groups = 1, groups_used = 1, group_top = 1;
};

/// For each row of `logits` [rows][experts] the `used` experts of the highest scores, best first, ties to the
/// lower id; a NaN ranks below everything. `selection_bias` [experts], or null: added to the gate's values
/// for choosing only. ids, weights: [rows][used].
void route(Context& ctx, const RouterParams& params, const float* logits, const float* selection_bias,
           int64_t rows, int32_t* ids, float* weights) noexcept;

}  // namespace mete
