// Matmul with super-block weights, AVX-512 without VNNI.
#include "kernels/cpu/gemm_k_avx512.h"
#include "kernels/cpu/gemm_k.h"
#include "kernels/cpu/gemm_k_formats.h"
#include "kernels/cpu/gemm_k_quantize.h"
#include "kernels/cpu/gemm_k_tiles.h"

namespace mete {
namespace avx512 {
namespace {

struct Ops : Avx512Ops {
  static constexpr bool kVnni = false;
  static constexpr int kTokens = 6;
  /// acc + the dot product of each lane's 4 unsigned weights, at most `max`, with 4 activations in -127..127.
  /// maddubs saturates at 32767: not reached if 2 * max * 127 is below; else in int16 throughout.
  template <int max>
  static Int dot(Int acc, Int w, Int x) {
    if constexpr (2 * max * 127 <= 32767) {
      return add(acc, _mm512_madd_epi16(_mm512_maddubs_epi16(w, x), _mm512_set1_epi16(1)));
    } else {
      const Int even = _mm512_madd_epi16(_mm512_and_si512(w, set(0x00ff00ff)),
                                         _mm512_srai_epi16(_mm512_slli_epi16(x, 8), 8));
      const Int odd = _mm512_madd_epi16(_mm512_srli_epi16(w, 8), _mm512_srai_epi16(x, 8));
      return add(acc, add(even, odd));
    }
  }
  /// acc + the dot product of each lane's 2 int16 pairs.
  static Int dot16(Int acc, Int a, Int b) { return add(acc, _mm512_madd_epi16(a, b)); }
};

template <template <typename> class Format>
void gemm(const GemmArgs& args) noexcept {
  KGemm<Ops, Format<Ops>>::gemm(args);
}

}  // namespace
}  // namespace avx512

void gemm_q2_k_avx512(const GemmArgs& args) noexcept { avx512::gemm<FormatQ2K>(args); }
void gemm_q3_k_avx512(const GemmArgs& args) noexcept { avx512::gemm<FormatQ3K>(args); }
void gemm_q4_k_avx512(const GemmArgs& args) noexcept { avx512::gemm<FormatQ4K>(args); }
void gemm_q5_k_avx512(const GemmArgs& args) noexcept { avx512::gemm<FormatQ5K>(args); }
void gemm_q6_k_avx512(const GemmArgs& args) noexcept { avx512::gemm<FormatQ6K>(args); }
void gemm_iq4_xs_avx512(const GemmArgs& args) noexcept { avx512::gemm<FormatIQ4XS>(args); }
void quantize_q8_k_avx512(const float* x, int64_t cols, uint8_t* row) noexcept {
  quantize_q8_k<avx512::Ops>(x, cols, row);
}

}  // namespace mete
