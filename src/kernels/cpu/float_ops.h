// Float kernels on single rows (norms, activations, rotary embedding, row statistics). C-only header.
// Every function gives the same bits on every tier; definitions in docs/numerics.md.
#pragma once

#include <stdint.h>

namespace mete {

/// What a caller may ask about a logits row without keeping it.
struct RowStats {
  int32_t argmax;     // lowest id among equals
  float max;          // its logit
  float margin;       // max minus the second-largest logit
  float log_sum_exp;  // natural
  float entropy;      // nats
};

struct FloatKernels {
  /// out = x / sqrt(mean(x^2) + eps) * weight (weight may be null: all ones). out may be x.
  void (*rms_norm)(const float* x, const float* weight, float eps, int64_t n, float* out) noexcept;
  /// out = (x - mean) / sqrt(variance + eps) * weight + bias; null weight or bias: none.
  void (*layer_norm)(const float* x, const float* weight, const float* bias, float eps, int64_t n,
                     float* out) noexcept;
  void (*add)(const float* a, const float* b, int64_t n, float* out) noexcept;           // out = a + b
  void (*mul)(const float* a, const float* b, int64_t n, float* out) noexcept;           // out = a * b
  void (*scale)(const float* x, float factor, int64_t n, float* out) noexcept;           // out = x * factor
  void (*silu_mul)(const float* gate, const float* up, int64_t n, float* out) noexcept;  // silu(gate) * up
  void (*gelu_mul)(const float* gate, const float* up, int64_t n,
                   float* out) noexcept;  // gelu_tanh(gate) * up
  /// g = min(limit, gate), u = min(limit, max(-limit, up)), a NaN passes; out = (g / (1 + exp(-alpha * g))) *
  /// (u + 1)
  void (*swiglu_clamped)(const float* gate, const float* up, float alpha, float limit, int64_t n,
                         float* out) noexcept;
  /// out = weights[0] * rows[0], then out = fma(weights[i], rows[i], out) for i = 1 .. count - 1; count >= 1.
  void (*weighted_sum)(const float* const* rows, const float* weights, int64_t count, int64_t n,
                       float* out) noexcept;
  /// Mean of x^2.
  float (*mean_square)(const float* x, int64_t n) noexcept;
  /// out = max(0, x - (mean + multiplier * sqrt(variance))) over the row's n elements. out may be x.
  void (*gaussian_topk)(const float* x, float multiplier, int64_t n, float* out) noexcept;
  /// out = cap * tanh(x / cap)
  void (*softcap)(const float* x, float cap, int64_t n, float* out) noexcept;
  /// Rotates the first 2 * half elements of each of `heads` vectors of `dim` floats at x, in place, by the
  /// angles whose cosines and sines are cos[half], sin[half]. Pairs are (i, i + half) if `neox`, else
  /// (2i, 2i + 1).
  void (*rope)(float* x, int64_t heads, int64_t dim, const float* cos, const float* sin, int64_t half,
               bool neox) noexcept;
  /// Natural exponential of each element; used by softmax and samplers.
  void (*exp)(const float* x, int64_t n, float* out) noexcept;
  RowStats (*row_stats)(const float* logits, int64_t n) noexcept;
};

}  // namespace mete
