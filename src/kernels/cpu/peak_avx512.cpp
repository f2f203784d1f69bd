#include <immintrin.h>

#include "kernels/cpu/peak_tiers.h"

namespace mete::avx512 {

int64_t int8_peak(int64_t rounds) noexcept {
  constexpr int kAccumulators = 12;
  __m512i acc[kAccumulators];
  __m512i a = _mm512_set1_epi32(0x01020304), b = _mm512_set1_epi32(0x04030201);
  const __m512i ones = _mm512_set1_epi16(1);
  for (auto& x : acc) x = _mm512_set1_epi32(1);
  for (int64_t i = 0; i < rounds; ++i) {
    // The empty asm hides the values from the optimiser, which would otherwise hoist the loop's work.
    __asm__ volatile("" : "+v"(a), "+v"(b));
#pragma GCC unroll 16
    for (int j = 0; j < kAccumulators; ++j)
      acc[j] = _mm512_add_epi32(acc[j], _mm512_madd_epi16(_mm512_maddubs_epi16(a, acc[j]), ones));
  }
  for (auto& x : acc) __asm__ volatile("" : "+v"(x));
  return rounds * kAccumulators * 64 * 2;
}

}  // namespace mete::avx512
