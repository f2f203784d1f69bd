// Inner tile of the reference matmul, AVX-512: two zmm registers of double hold 16 rows.
#include "kernels/cpu/gemm_reference.h"

#include <immintrin.h>

#include "kernels/cpu/simd_unroll.h"

namespace mete {
namespace avx512 {
namespace {

template <int T>
void tile(const ReferenceTile& a) {
  __m512d lo[T], hi[T];
  METE_UNROLL
  for (int t = 0; t < T; ++t) lo[t] = hi[t] = _mm512_setzero_pd();
  for (int64_t k = 0; k < a.cols; ++k) {
    const __m512d w0 = _mm512_cvtps_pd(_mm256_loadu_ps(a.weights + 16 * k));
    const __m512d w1 = _mm512_cvtps_pd(_mm256_loadu_ps(a.weights + 16 * k + 8));
    METE_UNROLL
    for (int t = 0; t < T; ++t) {
      const __m512d x = _mm512_set1_pd(a.acts[t * a.cols + k]);
      lo[t] = _mm512_fmadd_pd(w0, x, lo[t]);
      hi[t] = _mm512_fmadd_pd(w1, x, hi[t]);
    }
  }
  METE_UNROLL
  for (int t = 0; t < T; ++t) {
    _mm512_storeu_pd(a.sums + 16 * t, lo[t]);
    _mm512_storeu_pd(a.sums + 16 * t + 8, hi[t]);
  }
}

template <int T>
void tokens(const ReferenceTile& a) {
  if (a.tokens == T) return tile<T>(a);
  if constexpr (T > 1) tokens<T - 1>(a);
}

}  // namespace
}  // namespace avx512

void reference_tile_avx512(const ReferenceTile& a) noexcept { avx512::tokens<kReferenceTokens>(a); }

}  // namespace mete
