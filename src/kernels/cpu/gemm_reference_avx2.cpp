// Inner tile of the reference matmul, AVX2 with FMA: 8 rows at a time in two ymm registers of double.
#include "kernels/cpu/gemm_reference.h"

#include <immintrin.h>

#include "kernels/cpu/simd_unroll.h"

namespace mete {
namespace avx2 {
namespace {

template <int T>
void tile(const ReferenceTile& a, int row) {
  __m256d lo[T], hi[T];
  METE_UNROLL
  for (int t = 0; t < T; ++t) lo[t] = hi[t] = _mm256_setzero_pd();
  for (int64_t k = 0; k < a.cols; ++k) {
    const __m256d w0 = _mm256_cvtps_pd(_mm_loadu_ps(a.weights + 16 * k + row));
    const __m256d w1 = _mm256_cvtps_pd(_mm_loadu_ps(a.weights + 16 * k + row + 4));
    METE_UNROLL
    for (int t = 0; t < T; ++t) {
      const __m256d x = _mm256_set1_pd(a.acts[t * a.cols + k]);
      lo[t] = _mm256_fmadd_pd(w0, x, lo[t]);
      hi[t] = _mm256_fmadd_pd(w1, x, hi[t]);
    }
  }
  METE_UNROLL
  for (int t = 0; t < T; ++t) {
    _mm256_storeu_pd(a.sums + 16 * t + row, lo[t]);
    _mm256_storeu_pd(a.sums + 16 * t + row + 4, hi[t]);
  }
}

template <int T>
void tokens(const ReferenceTile& a, int row) {
  if (a.tokens == T) return tile<T>(a, row);
  if constexpr (T > 1) tokens<T - 1>(a, row);
}

}  // namespace
}  // namespace avx2

void reference_tile_avx2(const ReferenceTile& a) noexcept {
  avx2::tokens<kReferenceTokens>(a, 0);
  avx2::tokens<kReferenceTokens>(a, 8);
}

}  // namespace mete
