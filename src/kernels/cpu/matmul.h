// Matmul kernels: out[t][n] = sum over k of activation[t][k] * weight[n][k]. C-only header: tier files
// include it. Kernel names are addresses: gemm_q4_k_avx512_vnni.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace mete {

/// One call computes panels [panel_begin, panel_end) for all tokens. Bits do not depend on `tokens`, nor on
/// how panels are split over calls. `out` is row-major, float32, out[t * out_stride + n], n < rows.
struct GemmArgs {
  const uint8_t* panels;  // first panel of the matrix, 64-byte aligned (quant/pack.h)
  size_t panel_stride;    // bytes from panel to panel
  int64_t rows;           // N, output rows
  int64_t cols;           // K
  const uint8_t* acts;    // activation rows (quant/activation.h), 64-byte aligned
  size_t act_stride;      // bytes from row to row
  int64_t tokens;         // M >= 1
  float* out;
  int64_t out_stride;  // floats from token to token
  int64_t panel_begin, panel_end;
  uint8_t* scratch;  // at least gemm_scratch_bytes(cols), 64-byte aligned, private to the call
};
using GemmFn = void (*)(const GemmArgs& args) noexcept;

inline size_t gemm_scratch_bytes(int64_t cols) { return static_cast<size_t>(cols) * 128 + 65536; }

/// Quantises one float row into a kQ8_16 or kQ8_K activation row.
using QuantizeActivationFn = void (*)(const float* x, int64_t cols, uint8_t* row) noexcept;

}  // namespace mete
