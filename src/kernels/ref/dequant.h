// The definition of every weight type in double: what a block's bytes mean, one element at a time. The oracle
// for quant/dequant.h and for the kernels; shares no code with them.
#pragma once

#include <cstdint>

#include "tensor/dtype.h"

namespace mete {

/// out[0..n) = the exact values of n elements at `source` (row_bytes(type, n) bytes). n must be a multiple of
/// the block. Finite scales give exact doubles (every product and sum fits 53 bits).
void dequantize_row_ref(DType type, const uint8_t* source, double* out, int64_t n);

}  // namespace mete
