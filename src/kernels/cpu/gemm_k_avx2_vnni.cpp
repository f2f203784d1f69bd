// Matmul with super-block weights, AVX2 with AVX-VNNI.
#include "kernels/cpu/gemm_k.h"
#include "kernels/cpu/gemm_k_avx2.h"
#include "kernels/cpu/gemm_k_formats.h"
#include "kernels/cpu/gemm_k_tiles.h"

namespace mete {
namespace avx2_vnni {
namespace {

struct Ops : Avx2Ops {
  static constexpr bool kVnni = true;
  static constexpr int kTokens = 2;
  /// acc + the dot product of each lane's 4 unsigned weights with 4 signed activations.
  template <int max>
  static Int dot(Int acc, Int w, Int x) {
    return {_mm256_dpbusd_avx_epi32(acc.lo, w.lo, x.lo), _mm256_dpbusd_avx_epi32(acc.hi, w.hi, x.hi)};
  }
  /// acc + the dot product of each lane's 2 int16 pairs.
  static Int dot16(Int acc, Int a, Int b) {
    return {_mm256_dpwssd_avx_epi32(acc.lo, a.lo, b.lo), _mm256_dpwssd_avx_epi32(acc.hi, a.hi, b.hi)};
  }
};

template <template <typename> class Format>
void gemm(const GemmArgs& args) noexcept {
  KGemm<Ops, Format<Ops>>::gemm(args);
}

}  // namespace
}  // namespace avx2_vnni

void gemm_q2_k_avx2_vnni(const GemmArgs& args) noexcept { avx2_vnni::gemm<FormatQ2K>(args); }
void gemm_q3_k_avx2_vnni(const GemmArgs& args) noexcept { avx2_vnni::gemm<FormatQ3K>(args); }
void gemm_q4_k_avx2_vnni(const GemmArgs& args) noexcept { avx2_vnni::gemm<FormatQ4K>(args); }
void gemm_q5_k_avx2_vnni(const GemmArgs& args) noexcept { avx2_vnni::gemm<FormatQ5K>(args); }
void gemm_q6_k_avx2_vnni(const GemmArgs& args) noexcept { avx2_vnni::gemm<FormatQ6K>(args); }
void gemm_iq4_xs_avx2_vnni(const GemmArgs& args) noexcept { avx2_vnni::gemm<FormatIQ4XS>(args); }

}  // namespace mete
