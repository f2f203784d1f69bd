// Vector operations of the super-block kernels on AVX2 (two ymm registers for 16 rows); a tier file adds
// dot(). Tier files only.
#pragma once

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

namespace mete {
namespace {

struct Int256x2 {
  __m256i lo, hi;
};
struct Float256x2 {
  __m256 lo, hi;
};

struct Avx2Ops {
  using Int = Int256x2;
  using Float = Float256x2;
  static __m256i bytes32(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
  static __m128i bytes16(const uint8_t* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }
  static __m128i bytes8(const uint8_t* p) { return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)); }
  static Int load(const uint8_t* p) { return {bytes32(p), bytes32(p + 32)}; }
  static void store(uint8_t* p, Int a) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a.lo);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 32), a.hi);
  }
  static Int zero() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
  static Int set(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
  static Int load_u8(const uint8_t* p) {
    return {_mm256_cvtepu8_epi32(bytes8(p)), _mm256_cvtepu8_epi32(bytes8(p + 8))};
  }
  static Int load_i8(const uint8_t* p) {
    return {_mm256_cvtepi8_epi32(bytes8(p)), _mm256_cvtepi8_epi32(bytes8(p + 8))};
  }
  static void store_i8(uint8_t* p, Int a) {  // values that fit int8
    const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(a.lo, a.hi), 0xd8);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                     _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
  }
  static Int load_u16(const uint8_t* p) {
    return {_mm256_cvtepu16_epi32(bytes16(p)), _mm256_cvtepu16_epi32(bytes16(p + 16))};
  }
  static Int and_(Int a, Int b) { return {_mm256_and_si256(a.lo, b.lo), _mm256_and_si256(a.hi, b.hi)}; }
  static Int or_(Int a, Int b) { return {_mm256_or_si256(a.lo, b.lo), _mm256_or_si256(a.hi, b.hi)}; }
  static Int add(Int a, Int b) { return {_mm256_add_epi32(a.lo, b.lo), _mm256_add_epi32(a.hi, b.hi)}; }
  static Int add8(Int a, Int b) { return {_mm256_add_epi8(a.lo, b.lo), _mm256_add_epi8(a.hi, b.hi)}; }
  static Int sub(Int a, Int b) { return {_mm256_sub_epi32(a.lo, b.lo), _mm256_sub_epi32(a.hi, b.hi)}; }
  static Int mul(Int a, Int b) { return {_mm256_mullo_epi32(a.lo, b.lo), _mm256_mullo_epi32(a.hi, b.hi)}; }
  static Int mul16(Int a, Int b) { return {_mm256_mullo_epi16(a.lo, b.lo), _mm256_mullo_epi16(a.hi, b.hi)}; }
  template <int n>
  static Int srl32(Int a) {
    return {_mm256_srli_epi32(a.lo, n), _mm256_srli_epi32(a.hi, n)};
  }
  template <int n>
  static Int sll32(Int a) {
    return {_mm256_slli_epi32(a.lo, n), _mm256_slli_epi32(a.hi, n)};
  }
  template <int n>
  static Int srl16(Int a) {
    return {_mm256_srli_epi16(a.lo, n), _mm256_srli_epi16(a.hi, n)};
  }
  template <int n>
  static Int sll16(Int a) {
    return {_mm256_slli_epi16(a.lo, n), _mm256_slli_epi16(a.hi, n)};
  }
  static Int srl16_by(Int a, int n) {
    const __m128i count = _mm_cvtsi32_si128(n);
    return {_mm256_srl_epi16(a.lo, count), _mm256_srl_epi16(a.hi, count)};
  }
  static Int table(const uint8_t* p) {
    const __m256i t = _mm256_broadcastsi128_si256(bytes16(p));
    return {t, t};
  }
  static Int lookup(Int table16, Int index) {
    return {_mm256_shuffle_epi8(table16.lo, index.lo), _mm256_shuffle_epi8(table16.hi, index.hi)};
  }
  static Float to_float(Int a) { return {_mm256_cvtepi32_ps(a.lo), _mm256_cvtepi32_ps(a.hi)}; }
  static Float load_half(const uint8_t* p) {
    return {_mm256_cvtph_ps(bytes16(p)), _mm256_cvtph_ps(bytes16(p + 16))};
  }
  static Float zero_float() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  static Float set_float(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
  static Float mul_float(Float a, Float b) { return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
  static Float fma(Float a, Float b, Float c) {
    return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
  }
  static Float fnma(Float a, Float b, Float c) {
    return {_mm256_fnmadd_ps(a.lo, b.lo, c.lo), _mm256_fnmadd_ps(a.hi, b.hi, c.hi)};
  }
  static Float load_float(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
  static void store_float(float* p, Float a) {
    _mm256_storeu_ps(p, a.lo);
    _mm256_storeu_ps(p + 8, a.hi);
  }
  static Float load_part(const float* p, int lanes) {
    alignas(32) float part[16] = {};
    for (int i = 0; i < lanes; ++i) part[i] = p[i];
    return load_float(part);
  }
  static __m256 canonical(__m256 a) {
    const __m256 nan = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fc00000));
    return _mm256_blendv_ps(a, nan, _mm256_cmp_ps(a, a, _CMP_UNORD_Q));
  }
  /// Stores the first `lanes` lanes; NaN becomes the canonical quiet NaN.
  static void store_part(float* p, int lanes, Float a) {
    alignas(32) float part[16];
    store_float(part, {canonical(a.lo), canonical(a.hi)});
    for (int i = 0; i < lanes; ++i) p[i] = part[i];
  }
  /// Bits of the largest |x| of 32.
  static uint32_t max_magnitude_32(const float* x) {
    const __m256i mask31 = _mm256_set1_epi32(0x7fffffff);
    __m256i top = _mm256_setzero_si256();
    for (int i = 0; i < 4; ++i)
      top = _mm256_max_epu32(top,
                             _mm256_and_si256(bytes32(reinterpret_cast<const uint8_t*>(x + 8 * i)), mask31));
    __m128i four = _mm_max_epu32(_mm256_castsi256_si128(top), _mm256_extracti128_si256(top, 1));
    four = _mm_max_epu32(four, _mm_shuffle_epi32(four, 0x4e));
    four = _mm_max_epu32(four, _mm_shuffle_epi32(four, 0xb1));
    return static_cast<uint32_t>(_mm_cvtsi128_si32(four));
  }
  static __m256i quantize_8(const float* x, __m256 inverse) {
    const __m256i n = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x), inverse));
    return _mm256_max_epi32(_mm256_min_epi32(n, _mm256_set1_epi32(127)), _mm256_set1_epi32(-127));
  }
  /// q = clamp(round to nearest even(x * inverse), -127, 127) of 32 values; int16 sums of each 16.
  static void quantize_32(const float* x, float inverse, uint8_t* q, uint8_t* sums) {
    const __m256 inv = _mm256_set1_ps(inverse);
    for (int i = 0; i < 2; ++i) {
      const __m256i lo = quantize_8(x + 16 * i, inv), hi = quantize_8(x + 16 * i + 8, inv);
      const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(lo, hi), 0xd8);
      const __m128i bytes =
          _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(q + 16 * i), bytes);
      const __m256i both = _mm256_add_epi32(lo, hi);
      __m128i four = _mm_add_epi32(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1));
      four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
      four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0xb1));
      const int16_t sum = static_cast<int16_t>(_mm_cvtsi128_si32(four));
      memcpy(sums + 2 * i, &sum, 2);
    }
  }
};

}  // namespace
}  // namespace mete
