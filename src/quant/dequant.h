// Dequantisation of GGUF blocks to float32, rounding where ggml's reference decoders round.
#pragma once

#include <cstdint>

#include "tensor/dtype.h"

namespace mete {

/// out[0..n) = the values of the n elements at `source` (row_bytes(type, n) bytes, unaligned). n must be a
/// multiple of the type's block. Scales that are not finite give what IEEE arithmetic gives.
void dequantize_row(DType type, const uint8_t* source, float* out, int64_t n);

/// 2^(e - 128), the halved E8M0 scale of an MXFP4 block; e < 2 gives subnormals.
float mxfp4_scale(uint8_t e);

}  // namespace mete
