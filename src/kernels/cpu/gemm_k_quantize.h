// The kQ8_256 activation quantiser for the SIMD tiers, over the tier's vector operations S. The definition is
// quantize_q8_256_generic. Tier files only.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

namespace mete {

template <typename S>
void quantize_q8_256(const float* x, int64_t cols, uint8_t* row) noexcept {
  const int64_t blocks = cols / 256;
  const size_t d_at = (static_cast<size_t>(cols) + 63) / 64 * 64;
  auto* d = reinterpret_cast<float*>(row + d_at);
  uint8_t* sums = row + d_at + (static_cast<size_t>(blocks) * 4 + 63) / 64 * 64;
  for (int64_t b = 0; b < blocks; ++b, x += 256) {
    uint8_t* q = row + b * 256;
    const uint32_t magnitude = S::max_magnitude_256(x);  // bits of max |x|: ordered like integers
    float amax;
    memcpy(&amax, &magnitude, 4);
    if (magnitude >= 0x7f800000u || amax < 0x1p-120f) {
      const uint32_t nan = 0x7fc00000u, bits = magnitude >= 0x7f800000u ? nan : 0u;
      memcpy(d + b, &bits, 4);
      memset(q, 0, 256);
      memset(sums + b * 32, 0, 32);
      continue;
    }
    d[b] = amax / 127.0f;
    S::quantize_256(x, 127.0f / amax, q, sums + b * 32);
  }
}

}  // namespace mete
