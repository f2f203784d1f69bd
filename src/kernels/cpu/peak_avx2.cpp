#include <immintrin.h>

#include "kernels/cpu/peak_tiers.h"

namespace mete::avx2 {

int64_t int8_peak(int64_t rounds) noexcept {
  constexpr int kAccumulators = 12;
  __m256i acc[kAccumulators];
  __m256i a = _mm256_set1_epi32(0x01020304), b = _mm256_set1_epi32(0x04030201);
  const __m256i ones = _mm256_set1_epi16(1);
  for (auto& x : acc) x = _mm256_set1_epi32(1);
  for (int64_t i = 0; i < rounds; ++i) {
    // The empty asm hides the values from the optimiser, which would otherwise hoist the loop's work.
    __asm__ volatile("" : "+x"(a), "+x"(b));
#pragma GCC unroll 16
    for (int j = 0; j < kAccumulators; ++j)
      acc[j] = _mm256_add_epi32(acc[j], _mm256_madd_epi16(_mm256_maddubs_epi16(a, acc[j]), ones));
  }
  for (auto& x : acc) __asm__ volatile("" : "+x"(x));
  return rounds * kAccumulators * 32 * 2;
}

}  // namespace mete::avx2
