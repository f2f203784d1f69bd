// Matrix product in double on dequantised weights and unquantised activations.
#pragma once

#include <cstdint>

#include "tensor/dtype.h"

namespace mete {

/// out[t][n] = sum over k of x[t][k] * w[n][k]. weight: GGUF rows, `rows` x row_bytes(type, cols); x:
/// [tokens] rows of cols floats, x_stride floats apart; out: [tokens][rows].
void gemm_ref(DType type, const uint8_t* weight, int64_t rows, int64_t cols, const float* x, int64_t tokens,
              int64_t x_stride, double* out);

/// Scale of the rounding errors of the above: out[t][n] = sum over k of |x[t][k] * w[n][k]|. A float32 sum of
/// K terms is within about K * 2^-24 of that from the exact sum.
void gemm_abs_ref(DType type, const uint8_t* weight, int64_t rows, int64_t cols, const float* x,
                  int64_t tokens, int64_t x_stride, double* out);

}  // namespace mete
