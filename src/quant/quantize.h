// Simple quantisers to GGUF blocks, for tests and synthetic models. Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 and MXFP4 follow
// ggml's reference definitions; the super-block types take each sub-block's range and search nothing.
#pragma once

#include <cstdint>

#include "tensor/dtype.h"

namespace mete {

/// Writes row_bytes(type, n) bytes for the n values at x, which must be finite. n must be a multiple of the
/// type's block. Values beyond what float16 scales can express saturate.
void quantize_row(DType type, const float* x, uint8_t* out, int64_t n);

}  // namespace mete
