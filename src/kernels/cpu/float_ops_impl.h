// Bodies of FloatKernels, compiled once per tier (float_ops.cpp, float_ops_<tier>.cpp).
#pragma once

#include "kernels/cpu/float_ops.h"
#include "kernels/cpu/math.h"
#include "kernels/cpu/scalar_math.h"

namespace mete {
namespace {

/// Calls body(offset, width) over [0, n) in steps of 16; the last width may be smaller.
template <typename Body>
inline void for_each_16(int64_t n, Body body) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) body(i, int64_t{16});
  if (i < n) body(i, n - i);
}
inline F16 load_width(const float* p, int64_t width) { return width == 16 ? load(p) : load_first(p, width); }
inline void store_width(float* p, F16 x, int64_t width) {
  if (width == 16) {
    store(p, x);
  } else {
    store_first(p, x, width);
  }
}

float mean_square_kernel(const float* x, int64_t n) noexcept {
  F16 squares = zero();
  for_each_16(n, [&](int64_t i, int64_t width) {
    const F16 v = load_width(x + i, width);
    squares = fma(v, v, squares);
  });
  return sum_lanes(squares) / static_cast<float>(n);
}

void rms_norm_kernel(const float* x, const float* weight, float eps, int64_t n, float* out) noexcept {
  const F16 factor = set1(1.0f / __builtin_sqrtf(mean_square_kernel(x, n) + eps));
  for_each_16(n, [&](int64_t i, int64_t width) {
    F16 v = mul(load_width(x + i, width), factor);
    if (weight != nullptr) v = mul(v, load_width(weight + i, width));
    store_width(out + i, v, width);
  });
}

float mean_kernel(const float* x, int64_t n) noexcept {
  F16 sums = zero();
  for_each_16(n, [&](int64_t i, int64_t width) { sums = add(sums, load_width(x + i, width)); });
  return sum_lanes(sums) / static_cast<float>(n);
}

float variance_kernel(const float* x, float mean, int64_t n) noexcept {
  F16 squares = zero();
  for_each_16(n, [&](int64_t i, int64_t width) {
    F16 v = sub(load_width(x + i, width), set1(mean));
    if (width < 16) v = select(mask_of(static_cast<uint16_t>((1u << width) - 1u)), v, zero());
    squares = fma(v, v, squares);
  });
  return sum_lanes(squares) / static_cast<float>(n);
}

void gaussian_topk_kernel(const float* x, float multiplier, int64_t n, float* out) noexcept {
  const float mean = mean_kernel(x, n);
  const float deviation = __builtin_sqrtf(variance_kernel(x, mean, n));
  const F16 cutoff = set1(__builtin_fmaf(multiplier, deviation, mean));
  for_each_16(n, [&](int64_t i, int64_t width) {
    store_width(out + i, max(zero(), sub(load_width(x + i, width), cutoff)), width);
  });
}

void layer_norm_kernel(const float* x, const float* weight, const float* bias, float eps, int64_t n,
                       float* out) noexcept {
  const float mean = mean_kernel(x, n);
  const F16 factor = set1(1.0f / __builtin_sqrtf(variance_kernel(x, mean, n) + eps));
  for_each_16(n, [&](int64_t i, int64_t width) {
    F16 v = mul(sub(load_width(x + i, width), set1(mean)), factor);
    if (weight != nullptr) v = mul(v, load_width(weight + i, width));
    if (bias != nullptr) v = add(v, load_width(bias + i, width));
    store_width(out + i, v, width);
  });
}

void add_kernel(const float* a, const float* b, int64_t n, float* out) noexcept {
  for_each_16(n, [&](int64_t i, int64_t width) {
    store_width(out + i, add(load_width(a + i, width), load_width(b + i, width)), width);
  });
}

void mul_kernel(const float* a, const float* b, int64_t n, float* out) noexcept {
  for_each_16(n, [&](int64_t i, int64_t width) {
    store_width(out + i, mul(load_width(a + i, width), load_width(b + i, width)), width);
  });
}

void scale_kernel(const float* x, float factor, int64_t n, float* out) noexcept {
  for_each_16(n, [&](int64_t i, int64_t width) {
    store_width(out + i, mul(load_width(x + i, width), set1(factor)), width);
  });
}

void silu_mul_kernel(const float* gate, const float* up, int64_t n, float* out) noexcept {
  for_each_16(n, [&](int64_t i, int64_t width) {
    store_width(out + i, mul(silu(load_width(gate + i, width)), load_width(up + i, width)), width);
  });
}

void swiglu_clamped_kernel(const float* gate, const float* up, float alpha, float limit, int64_t n,
                           float* out) noexcept {
  const F16 top = set1(limit), bottom = set1(-limit), one = set1(1.0f), negated = set1(-alpha);
  for_each_16(n, [&](int64_t i, int64_t width) {
    const F16 g = min(top, load_width(gate + i, width));  // a NaN passes
    const F16 u = min(top, max(bottom, load_width(up + i, width)));
    const F16 glu = div(g, add(one, exp(mul(negated, g))));
    store_width(out + i, mul(glu, add(u, one)), width);
  });
}

void gelu_mul_kernel(const float* gate, const float* up, int64_t n, float* out) noexcept {
  for_each_16(n, [&](int64_t i, int64_t width) {
    store_width(out + i, mul(gelu(load_width(gate + i, width)), load_width(up + i, width)), width);
  });
}

void weighted_sum_kernel(const float* const* rows, const float* weights, int64_t count, int64_t n,
                         float* out) noexcept {
  for_each_16(n, [&](int64_t i, int64_t width) {
    F16 sum = mul(load_width(rows[0] + i, width), set1(weights[0]));
    for (int64_t r = 1; r < count; ++r) sum = fma(load_width(rows[r] + i, width), set1(weights[r]), sum);
    store_width(out + i, sum, width);
  });
}

void softcap_kernel(const float* x, float cap, int64_t n, float* out) noexcept {
  const F16 c = set1(cap);
  for_each_16(n, [&](int64_t i, int64_t width) {
    store_width(out + i, mul(c, tanh(div(load_width(x + i, width), c))), width);
  });
}

void exp_kernel(const float* x, int64_t n, float* out) noexcept {
  for_each_16(n,
              [&](int64_t i, int64_t width) { store_width(out + i, exp(load_width(x + i, width)), width); });
}

// first = a c - (b s), second = b c + (a s): the products in brackets are rounded, the rest is one FMA.
void rope_kernel(float* x, int64_t heads, int64_t dim, const float* cos, const float* sin, int64_t half,
                 bool neox) noexcept {
  for (int64_t h = 0; h < heads; ++h, x += dim) {
    if (neox) {
      for_each_16(half, [&](int64_t i, int64_t width) {
        const F16 c = load_width(cos + i, width), s = load_width(sin + i, width);
        const F16 a = load_width(x + i, width), b = load_width(x + half + i, width);
        store_width(x + i, fma(a, c, sub(zero(), mul(b, s))), width);
        store_width(x + half + i, fma(b, c, mul(a, s)), width);
      });
    } else {
      for_each_16(2 * half, [&](int64_t i, int64_t width) {
        const F16 c = load_twice(cos + i / 2, width / 2), s = load_twice(sin + i / 2, width / 2);
        const F16 v = load_width(x + i, width);
        store_width(x + i, fma_sub_add(v, c, mul(swap_pairs(v), s)), width);
      });
    }
  }
}

int32_t find_first(const float* x, int64_t n, float value) {
  for (int64_t i = 0; i < n; ++i) {
    if (x[i] == value) return static_cast<int32_t>(i);
  }
  return 0;
}

RowStats row_stats_kernel(const float* logits, int64_t n) noexcept {
  const F16 lowest = set1(-__builtin_inff());
  F16 best = lowest, second = lowest;
  const auto load_or_lowest = [&](int64_t i, int64_t width) {
    if (width == 16) return load(logits + i);
    return select(mask_of(static_cast<uint16_t>((1u << width) - 1u)), load_first(logits + i, width), lowest);
  };
  for_each_16(n, [&](int64_t i, int64_t width) {
    const F16 v = load_or_lowest(i, width);
    second = max(second, min(best, v));
    best = max(best, v);
  });
  RowStats stats;
  stats.max = max_lanes(best);
  float lane_best[16], lane_second[16];
  store(lane_best, best);
  store(lane_second, second);
  float runner_up = -__builtin_inff();
  bool skipped = false;
  for (int i = 0; i < 16; ++i) {
    const bool is_max = !skipped && lane_best[i] == stats.max;
    const float candidate = is_max ? lane_second[i] : lane_best[i];
    skipped = skipped || is_max;
    runner_up = runner_up > candidate ? runner_up : candidate;
  }
  stats.argmax = find_first(logits, n, stats.max);
  stats.margin = stats.max - runner_up;
  F16 total = zero(), weighted = zero();
  for_each_16(n, [&](int64_t i, int64_t width) {
    const F16 d = sub(load_or_lowest(i, width), set1(stats.max));
    const F16 p = exp(d);
    total = add(total, p);
    weighted = fma(p, max(d, set1(-104.0f)), weighted);
  });
  const float z = sum_lanes(total), log_z = static_cast<float>(log_double(static_cast<double>(z)));
  stats.log_sum_exp = stats.max + log_z;
  stats.entropy = log_z - sum_lanes(weighted) / z;
  return stats;
}

inline void fill(FloatKernels& f) {
  f.rms_norm = rms_norm_kernel;
  f.layer_norm = layer_norm_kernel;
  f.add = add_kernel;
  f.mul = mul_kernel;
  f.scale = scale_kernel;
  f.silu_mul = silu_mul_kernel;
  f.gelu_mul = gelu_mul_kernel;
  f.swiglu_clamped = swiglu_clamped_kernel;
  f.weighted_sum = weighted_sum_kernel;
  f.mean_square = mean_square_kernel;
  f.gaussian_topk = gaussian_topk_kernel;
  f.softcap = softcap_kernel;
  f.rope = rope_kernel;
  f.exp = exp_kernel;
  f.row_stats = row_stats_kernel;
}

}  // namespace
}  // namespace mete
