// Matmul with float weights, AVX-512: a lane of a zmm register is an output row.
#include <immintrin.h>

#include "kernels/cpu/gemm_float.h"
#include "kernels/cpu/gemm_float_tiles.h"

namespace mete {
namespace avx512 {
namespace {

struct Lanes {
  static constexpr int kTokens = 12, kPanels = 2, kNarrowPanels = 4;
  __m512 v;
  static Lanes zero() { return {_mm512_setzero_ps()}; }
  static Lanes load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static Lanes load_f16(const uint8_t* p) {
    return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
  }
  static Lanes load_bf16(const uint8_t* p) {
    const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16))};
  }
  static Lanes load_part(const float* p, int lanes) { return {_mm512_maskz_loadu_ps(mask(lanes), p)}; }
  static Lanes fma(Lanes w, const float* x, Lanes acc) {
    return {_mm512_fmadd_ps(w.v, _mm512_set1_ps(*x), acc.v)};
  }
  Lanes canonical() const {
    const __m512i nan = _mm512_set1_epi32(0x7fc00000);
    return {_mm512_mask_mov_ps(v, _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), _mm512_castsi512_ps(nan))};
  }
  void store(float* p) const { _mm512_storeu_ps(p, canonical().v); }
  void store_part(float* p, int lanes) const { _mm512_mask_storeu_ps(p, mask(lanes), canonical().v); }
  static __mmask16 mask(int lanes) { return static_cast<__mmask16>((1u << lanes) - 1u); }
};

}  // namespace
}  // namespace avx512

void gemm_f32_avx512(const GemmArgs& args) noexcept { FloatGemm<avx512::Lanes>::gemm<F32Weights>(args); }
void gemm_f16_avx512(const GemmArgs& args) noexcept { FloatGemm<avx512::Lanes>::gemm<F16Weights>(args); }
void gemm_bf16_avx512(const GemmArgs& args) noexcept { FloatGemm<avx512::Lanes>::gemm<Bf16Weights>(args); }

}  // namespace mete
