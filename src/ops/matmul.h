// Linear layers on packed weights.
#pragma once

#include <span>

#include "ops/context.h"
#include "quant/pack.h"

namespace mete {

/// A weight matrix [rows][cols] in packed panels; non-owning.
struct Linear {
  DType type = DType::kF32;
  int64_t rows = 0;  ///< output features, N
  int64_t cols = 0;  ///< input features, K
  const uint8_t* panels = nullptr;
  const float* bias = nullptr;  ///< [rows] or null; added after the sum, one rounding
  size_t stride() const { return panel_bytes(type, cols); }
  bool empty() const { return panels == nullptr; }
};

struct MatmulTarget {
  const Linear* weight;
  float* out;          ///< [tokens][out_stride]
  int64_t out_stride;  ///< floats, >= weight->rows
};

/// For each target: out[t][n] = sum_k x[t][k] * weight[n][k] (+ bias[n]). x is [tokens][x_stride] floats with
/// cols equal in all targets. All targets share one fork-join. Activations are quantised once per kind.
void matmul(Context& ctx, const float* x, int64_t tokens, int64_t x_stride,
            std::span<const MatmulTarget> targets) noexcept;

/// One target.
void matmul(Context& ctx, const float* x, int64_t tokens, int64_t x_stride, const Linear& weight, float* out,
            int64_t out_stride) noexcept;

/// out[i][cols] = row ids[i] of the table, dequantised. ids must be in [0, table.rows).
void embed(Context& ctx, const Linear& table, std::span<const int32_t> ids, float* out) noexcept;

}  // namespace mete
