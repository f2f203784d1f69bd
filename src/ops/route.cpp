#include "ops/route.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace mete {
namespace {

/// The row sum of docs/numerics.md: 16 lanes, then the tree.
float sum_of(const float* x, int64_t n) {
  float lanes[16] = {};
  for (int64_t i = 0; i < n; ++i) lanes[i % 16] += x[i];
  for (int width = 8; width > 0; width /= 2) {
    for (int lane = 0; lane < width; ++lane) lanes[lane] += lanes[lane + width];
  }
  return lanes[0];
}

/// x becomes exp(x - max x) / their sum.
void softmax(const FloatKernels& floats, float* x, int64_t n) {
  float max = x[0];
  for (int64_t i = 1; i < n; ++i) max = x[i] > max ? x[i] : max;
  for (int64_t i = 0; i < n; ++i) x[i] -= max;
  floats.exp(x, n, x);
  const float sum = sum_of(x, n);
  for (int64_t i = 0; i < n; ++i) x[i] /= sum;
}

/// x becomes 1 / (1 + exp(-x)).
void sigmoid(const FloatKernels& floats, float* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) x[i] = -x[i];
  floats.exp(x, n, x);
  for (int64_t i = 0; i < n; ++i) x[i] = 1.0f / (1.0f + x[i]);
}

/// Ids of the `used` highest scores that are not `taken` yet, which they are then.
void choose(const float* scores, int64_t n, int64_t used, bool* taken, int32_t* ids) {
  for (int64_t rank = 0; rank < used; ++rank) {
    int64_t best = -1;
    for (int64_t i = 0; i < n; ++i) {
      if (taken[i]) continue;
      const bool better =
          best < 0 || scores[i] > scores[best] || (std::isnan(scores[best]) && !std::isnan(scores[i]));
      if (better) best = i;
    }
    taken[best] = true;
    ids[rank] = static_cast<int32_t>(best);
  }
}

/// Marks the experts outside the best groups as taken.
void take_other_groups(const RouterParams& p, const float* scores, bool* taken) {
  const int64_t size = p.experts / p.groups;
  float ranks[kMaxExpertGroups];
  int32_t best[kMaxExpertGroups];
  for (int64_t g = 0; g < p.groups; ++g) {
    bool seen[kMaxExperts] = {};
    choose(scores + g * size, size, p.group_top, seen, best);
    ranks[g] = scores[g * size + best[0]];
    if (p.group_top == 2) ranks[g] += scores[g * size + best[1]];
  }
  bool chosen[kMaxExpertGroups] = {};
  choose(ranks, p.groups, p.groups_used, chosen, best);
  for (int64_t i = 0; i < p.experts; ++i) taken[i] = !chosen[i / size];
}

void route_row(const FloatKernels& floats, const RouterParams& p, const float* logits,
               const float* selection_bias, int32_t* ids, float* weights) {
  float values[kMaxExperts], scores[kMaxExperts];
  std::copy_n(logits, p.experts, values);
  if (p.gate == RouterGate::kSoftmax) softmax(floats, values, p.experts);
  if (p.gate == RouterGate::kSigmoid) sigmoid(floats, values, p.experts);
  std::copy_n(values, p.experts, scores);
  if (selection_bias != nullptr) {
    for (int64_t i = 0; i < p.experts; ++i) scores[i] += selection_bias[i];
  }
  bool taken[kMaxExperts] = {};
  if (p.groups > 1) take_other_groups(p, scores, taken);
  choose(scores, p.experts, p.used, taken, ids);
  for (int64_t rank = 0; rank < p.used; ++rank) weights[rank] = values[ids[rank]];
  if (p.gate == RouterGate::kSoftmaxOfTop) softmax(floats, weights, p.used);
  if (p.normalise) {
    float sum = 0;
    for (int64_t rank = 0; rank < p.used; ++rank) sum += weights[rank];
    for (int64_t rank = 0; rank < p.used; ++rank) weights[rank] /= sum;
  }
  if (p.scale != 1.0f) {
    for (int64_t rank = 0; rank < p.used; ++rank) weights[rank] *= p.scale;
  }
}

}  // namespace

void route(Context& ctx, const RouterParams& params, const float* logits, const float* selection_bias,
           int64_t rows, int32_t* ids, float* weights) noexcept {
  METE_CHECK(params.experts >= 1 && params.experts <= kMaxExperts);
  METE_CHECK(params.used >= 1 && params.used <= params.experts);
  METE_CHECK(params.groups >= 1 && params.groups <= kMaxExpertGroups && params.experts % params.groups == 0);
  METE_CHECK(params.used <= params.experts / params.groups * params.groups_used);
  ctx.enter(Part::kRouter);
  const int64_t work = params.experts * (params.used + 4);  // comparisons and arithmetic of one row
  ctx.pool.parallel_for(rows, std::max<int64_t>(1, 8192 / work), [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      route_row(ctx.kernels.floats, params, logits + r * params.experts, selection_bias,
                ids + r * params.used, weights + r * params.used);
    }
  });
}

}  // namespace mete
