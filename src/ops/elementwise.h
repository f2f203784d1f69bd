// Row-wise ops on [rows][n] float matrices, split over rows. Definitions: kernels/cpu/float_ops.h.
#pragma once

#include <cstdint>

#include "ops/context.h"

namespace mete {

/// x: [rows][n] contiguous; out may be x. weight: [n] or null.
void rms_norm(Context& ctx, const float* x, const float* weight, float eps, int64_t rows, int64_t n,
              float* out) noexcept;
/// x: [rows][n] contiguous; out may be x. weight, bias: [n] or null.
void layer_norm(Context& ctx, const float* x, const float* weight, const float* bias, float eps, int64_t rows,
                int64_t n, float* out) noexcept;
/// x = x + y over rows * n elements.
void add_in_place(Context& ctx, float* x, const float* y, int64_t rows, int64_t n) noexcept;
void scale_in_place(Context& ctx, float* x, float factor, int64_t rows, int64_t n) noexcept;
/// out[r] = x[r] * weight[n]; out may be x.
void mul_rows(Context& ctx, const float* x, const float* weight, int64_t rows, int64_t n,
              float* out) noexcept;
/// x[r] = max(0, x[r] - (mean + multiplier * standard deviation of x[r])).
void gaussian_topk(Context& ctx, float* x, float multiplier, int64_t rows, int64_t n) noexcept;
/// x[r] = x[r] * sigmoid(gates[r]), row by row; sigmoid(g) = 1 / (1 + exp(-g)).
void scale_by_sigmoid(Context& ctx, float* x, const float* gates, int64_t rows, int64_t n) noexcept;
/// out = silu(gate) * up, element-wise; out may be gate.
void silu_mul(Context& ctx, const float* gate, const float* up, int64_t rows, int64_t n, float* out) noexcept;
void gelu_mul(Context& ctx, const float* gate, const float* up, int64_t rows, int64_t n, float* out) noexcept;
/// gpt-oss's form: gate at most 7, up within +-7, (gate * sigmoid(1.702 * gate)) * (up + 1).
void swiglu_clamped(Context& ctx, const float* gate, const float* up, int64_t rows, int64_t n,
                    float* out) noexcept;
/// n floats of each row, rows x_stride and out_stride apart. No overlap.
void copy_rows(Context& ctx, const float* x, int64_t x_stride, int64_t rows, int64_t n, float* out,
               int64_t out_stride) noexcept;
void softcap_in_place(Context& ctx, float* x, float cap, int64_t rows, int64_t n) noexcept;
/// stats[i] of logits row i, [rows][n].
void row_stats(Context& ctx, const float* logits, int64_t rows, int64_t n, RowStats* stats) noexcept;

}  // namespace mete
