// Activation rows as the matmul kernels read them. One row is self-contained, 64-byte aligned:
//   kF32:    float x[cols]
//   kQ8_16:  int8 q[cols]; float d[cols/16]; float s[cols/32]; int32 sum[cols/16]
//   kQ8_K:   int8 q[cols]; float d[cols/32]; int16 sum[cols/16]
// with sum = sum of q over 16 elements, s = sum of d * q over 32. Each array starts at the next multiple of
// 64 bytes. Quantisers and roundings: docs/numerics.md.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tensor/dtype.h"

namespace mete {

enum class ActivationKind { kF32, kQ8_16, kQ8_K };

/// The activation format that a weight type is multiplied with.
inline ActivationKind activation_kind(DType weight) {
  switch (info(weight).block) {
    case 32:
      return ActivationKind::kQ8_16;
    case 256:
      return ActivationKind::kQ8_K;
    default:
      return ActivationKind::kF32;
  }
}

inline size_t round_up_64(size_t bytes) { return (bytes + 63) / 64 * 64; }

/// Byte offsets of the arrays of a kQ8_16 row of `cols` elements (a multiple of 32).
struct Q8x16Layout {
  size_t d, s, sum, bytes;
  explicit Q8x16Layout(int64_t cols) {
    const size_t blocks = static_cast<size_t>(cols / 32);  // of weights: two scales each
    d = round_up_64(static_cast<size_t>(cols));
    s = d + round_up_64(blocks * 8);
    sum = s + round_up_64(blocks * 4);
    bytes = sum + round_up_64(blocks * 8);
  }
};

/// Byte offsets of the arrays of a kQ8_K row of `cols` elements (a multiple of 256).
struct Q8KLayout {
  size_t d, sum, bytes;
  explicit Q8KLayout(int64_t cols) {
    d = round_up_64(static_cast<size_t>(cols));
    sum = d + round_up_64(static_cast<size_t>(cols / 32) * 4);
    bytes = sum + round_up_64(static_cast<size_t>(cols / 16) * 2);
  }
};

inline size_t activation_row_bytes(ActivationKind kind, int64_t cols) {
  switch (kind) {
    case ActivationKind::kQ8_16:
      return Q8x16Layout(cols).bytes;
    case ActivationKind::kQ8_K:
      return Q8KLayout(cols).bytes;
    default:
      return round_up_64(static_cast<size_t>(cols) * 4);
  }
}

}  // namespace mete
