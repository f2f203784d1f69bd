// Matmul with float weights, AVX2 with FMA and F16C: two ymm registers hold 16 output rows.
#include <immintrin.h>

#include "kernels/cpu/gemm_float.h"
#include "kernels/cpu/gemm_float_tiles.h"

namespace mete {
namespace avx2 {
namespace {

struct Lanes {
  static constexpr int kTokens = 6, kPanels = 1, kNarrowPanels = 2;
  __m256 lo, hi;
  static Lanes zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  static Lanes load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
  static __m128i half(const uint8_t* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }
  static Lanes load_f16(const uint8_t* p) {
    return {_mm256_cvtph_ps(half(p)), _mm256_cvtph_ps(half(p + 16))};
  }
  static __m256 widen_bf16(const uint8_t* p) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half(p)), 16));
  }
  static Lanes load_bf16(const uint8_t* p) { return {widen_bf16(p), widen_bf16(p + 16)}; }
  static Lanes load_part(const float* p, int lanes) {
    alignas(32) float part[16] = {};
    for (int i = 0; i < lanes; ++i) part[i] = p[i];
    return load(part);
  }
  static Lanes fma(Lanes w, const float* x, Lanes acc) {
    const __m256 b = _mm256_set1_ps(*x);
    return {_mm256_fmadd_ps(w.lo, b, acc.lo), _mm256_fmadd_ps(w.hi, b, acc.hi)};
  }
  static __m256 canonical(__m256 v) {
    const __m256 nan = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fc00000));
    return _mm256_blendv_ps(v, nan, _mm256_cmp_ps(v, v, _CMP_UNORD_Q));
  }
  void store(float* p) const {
    _mm256_storeu_ps(p, canonical(lo));
    _mm256_storeu_ps(p + 8, canonical(hi));
  }
  void store_part(float* p, int lanes) const {
    alignas(32) float part[16];
    store(part);
    for (int i = 0; i < lanes; ++i) p[i] = part[i];
  }
};

}  // namespace
}  // namespace avx2

void gemm_f32_avx2(const GemmArgs& args) noexcept { FloatGemm<avx2::Lanes>::gemm<F32Weights>(args); }
void gemm_f16_avx2(const GemmArgs& args) noexcept { FloatGemm<avx2::Lanes>::gemm<F16Weights>(args); }
void gemm_bf16_avx2(const GemmArgs& args) noexcept { FloatGemm<avx2::Lanes>::gemm<Bf16Weights>(args); }

}  // namespace mete
