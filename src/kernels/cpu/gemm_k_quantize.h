// The kQ8_K activation quantiser for the SIMD tiers, over the tier's vector operations S. The definition is
// quantize_q8_k_generic. Tier files only.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

namespace mete {

template <typename S>
void quantize_q8_k(const float* x, int64_t cols, uint8_t* row) noexcept {
  const int64_t blocks = cols / 32;
  const size_t d_at = (static_cast<size_t>(cols) + 63) / 64 * 64;
  auto* d = reinterpret_cast<float*>(row + d_at);
  uint8_t* sums = row + d_at + (static_cast<size_t>(blocks) * 4 + 63) / 64 * 64;
  for (int64_t b = 0; b < blocks; ++b, x += 32) {
    uint8_t* q = row + b * 32;
    const uint32_t magnitude = S::max_magnitude_32(x);  // bits of max |x|: ordered like integers
    float amax;
    memcpy(&amax, &magnitude, 4);
    if (magnitude >= 0x7f800000u || amax < 0x1p-120f) {
      const uint32_t nan = 0x7fc00000u, bits = magnitude >= 0x7f800000u ? nan : 0u;
      memcpy(d + b, &bits, 4);
      memset(q, 0, 32);
      memset(sums + b * 4, 0, 4);
      continue;
    }
    d[b] = amax / 127.0f;
    S::quantize_32(x, 127.0f / amax, q, sums + b * 4);
  }
}

}  // namespace mete
