// Matmul with super-block weights, AVX2 without VNNI.
#include "kernels/cpu/gemm_k_avx2.h"
#include "kernels/cpu/gemm_k.h"
#include "kernels/cpu/gemm_k_formats.h"
#include "kernels/cpu/gemm_k_quantize.h"
#include "kernels/cpu/gemm_k_tiles.h"

namespace mete {
namespace avx2 {
namespace {

struct Ops : Avx2Ops {
  static constexpr bool kVnni = false;
  static constexpr int kTokens = 2;
  /// acc + the dot product of each lane's 4 unsigned weights, at most `max`, with 4 activations in -127..127.
  /// maddubs saturates at 32767: not reached if 2 * max * 127 is below; else in int16 throughout.
  template <int max>
  static __m256i dot(__m256i acc, __m256i w, __m256i x) {
    if constexpr (2 * max * 127 <= 32767) {
      const __m256i pairs = _mm256_maddubs_epi16(w, x);
      return _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    } else {
      const __m256i even = _mm256_madd_epi16(_mm256_and_si256(w, _mm256_set1_epi16(0xff)),
                                             _mm256_srai_epi16(_mm256_slli_epi16(x, 8), 8));
      const __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(w, 8), _mm256_srai_epi16(x, 8));
      return _mm256_add_epi32(acc, _mm256_add_epi32(even, odd));
    }
  }
  template <int max>
  static Int dot(Int acc, Int w, Int x) {
    return {dot<max>(acc.lo, w.lo, x.lo), dot<max>(acc.hi, w.hi, x.hi)};
  }
  /// acc + the dot product of each lane's 2 int16 pairs.
  static Int dot16(Int acc, Int a, Int b) {
    return {_mm256_add_epi32(acc.lo, _mm256_madd_epi16(a.lo, b.lo)),
            _mm256_add_epi32(acc.hi, _mm256_madd_epi16(a.hi, b.hi))};
  }
};

template <template <typename> class Format>
void gemm(const GemmArgs& args) noexcept {
  KGemm<Ops, Format<Ops>>::gemm(args);
}

}  // namespace
}  // namespace avx2

void gemm_q2_k_avx2(const GemmArgs& args) noexcept { avx2::gemm<FormatQ2K>(args); }
void gemm_q3_k_avx2(const GemmArgs& args) noexcept { avx2::gemm<FormatQ3K>(args); }
void gemm_q4_k_avx2(const GemmArgs& args) noexcept { avx2::gemm<FormatQ4K>(args); }
void gemm_q5_k_avx2(const GemmArgs& args) noexcept { avx2::gemm<FormatQ5K>(args); }
void gemm_q6_k_avx2(const GemmArgs& args) noexcept { avx2::gemm<FormatQ6K>(args); }
void gemm_iq4_xs_avx2(const GemmArgs& args) noexcept { avx2::gemm<FormatIQ4XS>(args); }
void quantize_q8_k_avx2(const float* x, int64_t cols, uint8_t* row) noexcept {
  quantize_q8_k<avx2::Ops>(x, cols, row);
}

}  // namespace mete
