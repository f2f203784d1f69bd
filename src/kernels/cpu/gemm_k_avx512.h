// Vector operations of the super-block kernels on AVX-512; a tier file adds dot(). Tier files only.
#pragma once

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

namespace mete {
namespace {

struct Avx512Ops {
  using Int = __m512i;
  using Float = __m512;
  static Int load(const uint8_t* p) { return _mm512_loadu_si512(p); }
  static void store(uint8_t* p, Int a) { _mm512_storeu_si512(p, a); }
  static Int zero() { return _mm512_setzero_si512(); }
  static Int set(int32_t x) { return _mm512_set1_epi32(x); }
  static __m128i bytes16(const uint8_t* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }
  static __m256i bytes32(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
  static Int load_u8(const uint8_t* p) { return _mm512_cvtepu8_epi32(bytes16(p)); }
  static Int load_i8(const uint8_t* p) { return _mm512_cvtepi8_epi32(bytes16(p)); }
  static void store_i8(uint8_t* p, Int a) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(a));
  }
  static Int load_u16(const uint8_t* p) { return _mm512_cvtepu16_epi32(bytes32(p)); }
  static Int and_(Int a, Int b) { return _mm512_and_si512(a, b); }
  static Int or_(Int a, Int b) { return _mm512_or_si512(a, b); }
  static Int add(Int a, Int b) { return _mm512_add_epi32(a, b); }
  static Int add8(Int a, Int b) { return _mm512_add_epi8(a, b); }
  static Int sub(Int a, Int b) { return _mm512_sub_epi32(a, b); }
  static Int mul(Int a, Int b) { return _mm512_mullo_epi32(a, b); }
  static Int mul16(Int a, Int b) { return _mm512_mullo_epi16(a, b); }
  template <int n>
  static Int srl32(Int a) {
    return _mm512_srli_epi32(a, n);
  }
  template <int n>
  static Int sll32(Int a) {
    return _mm512_slli_epi32(a, n);
  }
  template <int n>
  static Int srl16(Int a) {
    return _mm512_srli_epi16(a, n);
  }
  template <int n>
  static Int sll16(Int a) {
    return _mm512_slli_epi16(a, n);
  }
  static Int srl16_by(Int a, int n) { return _mm512_srl_epi16(a, _mm_cvtsi32_si128(n)); }
  static Int table(const uint8_t* p) { return _mm512_broadcast_i32x4(bytes16(p)); }
  static Int lookup(Int table16, Int index) { return _mm512_shuffle_epi8(table16, index); }
  static Float to_float(Int a) { return _mm512_cvtepi32_ps(a); }
  static Float load_half(const uint8_t* p) { return _mm512_cvtph_ps(bytes32(p)); }
  static Float zero_float() { return _mm512_setzero_ps(); }
  static Float set_float(float x) { return _mm512_set1_ps(x); }
  static Float mul_float(Float a, Float b) { return _mm512_mul_ps(a, b); }
  static Float fma(Float a, Float b, Float c) { return _mm512_fmadd_ps(a, b, c); }
  static Float fnma(Float a, Float b, Float c) { return _mm512_fnmadd_ps(a, b, c); }
  static Float load_float(const float* p) { return _mm512_loadu_ps(p); }
  static void store_float(float* p, Float a) { _mm512_storeu_ps(p, a); }
  static __mmask16 mask(int lanes) { return static_cast<__mmask16>((1u << lanes) - 1u); }
  static Float load_part(const float* p, int lanes) { return _mm512_maskz_loadu_ps(mask(lanes), p); }
  /// Stores the first `lanes` lanes; NaN becomes the canonical quiet NaN.
  static void store_part(float* p, int lanes, Float a) {
    const __m512 nan = _mm512_castsi512_ps(_mm512_set1_epi32(0x7fc00000));
    _mm512_mask_storeu_ps(p, mask(lanes), _mm512_mask_mov_ps(a, _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q), nan));
  }
  /// Bits of the largest |x| of 32.
  static uint32_t max_magnitude_32(const float* x) {
    const Int mask31 = set(0x7fffffff);
    return _mm512_reduce_max_epu32(
        _mm512_max_epu32(and_(_mm512_loadu_si512(x), mask31), and_(_mm512_loadu_si512(x + 16), mask31)));
  }
  /// q = clamp(round to nearest even(x * inverse), -127, 127) of 32 values; int16 sums of each 16.
  static void quantize_32(const float* x, float inverse, uint8_t* q, uint8_t* sums) {
    for (int i = 0; i < 2; ++i) {
      Int n = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + 16 * i), _mm512_set1_ps(inverse)));
      n = _mm512_max_epi32(_mm512_min_epi32(n, set(127)), set(-127));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(q + 16 * i), _mm512_cvtepi32_epi8(n));
      const int16_t sum = static_cast<int16_t>(_mm512_reduce_add_epi32(n));
      memcpy(sums + 2 * i, &sum, 2);
    }
  }
};

}  // namespace
}  // namespace mete
