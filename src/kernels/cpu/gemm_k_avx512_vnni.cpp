// Matmul with super-block weights, AVX-512 VNNI.
#include "kernels/cpu/gemm_k.h"
#include "kernels/cpu/gemm_k_avx512.h"
#include "kernels/cpu/gemm_k_formats.h"
#include "kernels/cpu/gemm_k_tiles.h"

namespace mete {
namespace avx512_vnni {
namespace {

struct Ops : Avx512Ops {
  static constexpr bool kVnni = true;
  static constexpr int kTokens = 6;
  /// acc + the dot product of each lane's 4 unsigned weights with 4 signed activations.
  template <int max>
  static Int dot(Int acc, Int w, Int x) {
    return _mm512_dpbusd_epi32(acc, w, x);
  }
  /// acc + the dot product of each lane's 2 int16 pairs.
  static Int dot16(Int acc, Int a, Int b) { return _mm512_dpwssd_epi32(acc, a, b); }
};

template <template <typename> class Format>
void gemm(const GemmArgs& args) noexcept {
  KGemm<Ops, Format<Ops>>::gemm(args);
}

}  // namespace
}  // namespace avx512_vnni

void gemm_q2_k_avx512_vnni(const GemmArgs& args) noexcept { avx512_vnni::gemm<FormatQ2K>(args); }
void gemm_q3_k_avx512_vnni(const GemmArgs& args) noexcept { avx512_vnni::gemm<FormatQ3K>(args); }
void gemm_q4_k_avx512_vnni(const GemmArgs& args) noexcept { avx512_vnni::gemm<FormatQ4K>(args); }
void gemm_q5_k_avx512_vnni(const GemmArgs& args) noexcept { avx512_vnni::gemm<FormatQ5K>(args); }
void gemm_q6_k_avx512_vnni(const GemmArgs& args) noexcept { avx512_vnni::gemm<FormatQ6K>(args); }
void gemm_iq4_xs_avx512_vnni(const GemmArgs& args) noexcept { avx512_vnni::gemm<FormatIQ4XS>(args); }

}  // namespace mete
