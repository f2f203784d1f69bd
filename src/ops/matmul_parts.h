// What matmul and matmul_grouped share; for ops/matmul*.cpp only.
#pragma once

#include <cstdint>

#include "ops/context.h"
#include "ops/matmul.h"
#include "quant/activation.h"

namespace mete {

inline constexpr int kActivationKinds = 3;  // of ActivationKind

/// Activation rows of one kind, ready for the kernels.
struct Activations {
  const uint8_t* rows = nullptr;
  size_t stride = 0;
};

/// What the kernel of `weight` reads in this context's numeric mode.
ActivationKind activation_kind_of(const Context& ctx, const Linear& weight);

/// Quantises float rows x [rows][x_stride] to `out`, activation_row_bytes(kind, cols) apart; not for kF32.
void quantize_rows(Context& ctx, ActivationKind kind, const float* x, int64_t rows, int64_t x_stride,
                   int64_t cols, uint8_t* out);

/// Panels [begin, end) of one target for all tokens. `scratch` holds gemm_scratch_bytes(cols).
void run_panels(Context& ctx, const MatmulTarget& target, const Activations& acts, int64_t tokens,
                int64_t begin, int64_t end, uint8_t* scratch);

}  // namespace mete
