// The reference numeric mode: weights dequantised to float32, float32 activations, sums in double. C-only
// header for the tiers' inner tile; gemm_reference.cpp builds the kernels of all types around it.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace mete {

/// sums[t][row] = sum over k of weights[k][row] * acts[t][k] in ascending k, in double, for 16 rows. A
/// product of two float32 is exact in double, so fused or not is the same.
struct ReferenceTile {
  const float* weights;  // [cols][16]
  const double* acts;    // [tokens][cols]
  int64_t cols;
  int tokens;    // 1..kReferenceTokens
  double* sums;  // [tokens][16]
};
inline constexpr int kReferenceTokens = 6;
using ReferenceTileFn = void (*)(const ReferenceTile& tile) noexcept;

void reference_tile_generic(const ReferenceTile& tile) noexcept;
void reference_tile_avx2(const ReferenceTile& tile) noexcept;
void reference_tile_avx512(const ReferenceTile& tile) noexcept;

}  // namespace mete
