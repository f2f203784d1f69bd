// F16: sixteen floats, the unit of every float kernel, and the operations on them. A lane computes the same
// bits in every tier. Everything has internal linkage: each tier file compiles its own copy.
#pragma once

#include <stdint.h>
#include <string.h>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace mete {
namespace {

inline float bits_to_float(uint32_t u) {
  float f;
  memcpy(&f, &u, 4);
  return f;
}
inline uint32_t float_to_bits(float f) {
  uint32_t u;
  memcpy(&u, &f, 4);
  return u;
}
inline uint16_t load_u16(const uint8_t* p) {
  uint16_t x;
  memcpy(&x, p, 2);
  return x;
}

// The conversions of base/half.h, in C: NaN stays NaN, round to nearest even, subnormals kept.
inline float half_to_float(uint16_t h) {
#if defined(__F16C__)
  return _cvtsh_ss(h);
#else
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000u) << 16, exponent = (h >> 10) & 0x1fu;
  const uint32_t mantissa = h & 0x3ffu;
  if (exponent == 0x1f) {
    return bits_to_float(sign | 0x7f800000u | (mantissa != 0 ? 0x400000u : 0u) | (mantissa << 13));
  }
  if (exponent != 0) return bits_to_float(sign | ((exponent + 112) << 23) | (mantissa << 13));
  return bits_to_float(sign | float_to_bits(static_cast<float>(mantissa) * 0x1p-24f));
#endif
}
inline uint16_t float_to_half(float x) {
  const uint32_t u = float_to_bits(x), magnitude = u & 0x7fffffffu;
  const uint16_t sign = static_cast<uint16_t>((u >> 16) & 0x8000u);
  if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u | ((magnitude >> 13) & 0x3ffu));
  if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);
  if (magnitude < 0x38800000u) {
    const float rounded = (bits_to_float(magnitude) * 0x1p24f + 0x1p23f) - 0x1p23f;
    return static_cast<uint16_t>(sign | static_cast<uint16_t>(rounded));
  }
  return static_cast<uint16_t>(sign | ((magnitude + 0xfffu + ((magnitude >> 13) & 1u) - 0x38000000u) >> 13));
}
inline uint16_t float_to_bfloat(float x) {
  const uint32_t u = float_to_bits(x);
  if ((u & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((u >> 16) | 0x40u);
  return static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

#if defined(__AVX512F__)

struct F16 {
  __m512 v;
};
using Mask16 = __mmask16;

inline F16 zero() { return {_mm512_setzero_ps()}; }
inline F16 set1(float x) { return {_mm512_set1_ps(x)}; }
inline F16 load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline Mask16 first(int64_t n) { return static_cast<Mask16>((1u << n) - 1u); }
inline F16 load_first(const float* p, int64_t n) { return {_mm512_maskz_loadu_ps(first(n), p)}; }
inline void store(float* p, F16 a) { _mm512_storeu_ps(p, a.v); }
inline void store_first(float* p, F16 a, int64_t n) { _mm512_mask_storeu_ps(p, first(n), a.v); }
inline F16 add(F16 a, F16 b) { return {_mm512_add_ps(a.v, b.v)}; }
inline F16 sub(F16 a, F16 b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline F16 mul(F16 a, F16 b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline F16 div(F16 a, F16 b) { return {_mm512_div_ps(a.v, b.v)}; }
inline F16 fma(F16 a, F16 b, F16 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline F16 max(F16 a, F16 b) { return {_mm512_max_ps(a.v, b.v)}; }
inline F16 min(F16 a, F16 b) { return {_mm512_min_ps(a.v, b.v)}; }
inline F16 abs(F16 a) { return {_mm512_abs_ps(a.v)}; }
inline F16 copy_sign(F16 magnitude, F16 sign) {
  const __m512i bit = _mm512_set1_epi32(INT32_MIN);
  return {_mm512_castsi512_ps(
      _mm512_or_si512(_mm512_castps_si512(magnitude.v), _mm512_and_si512(bit, _mm512_castps_si512(sign.v))))};
}
inline Mask16 less(F16 a, F16 b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ); }
inline Mask16 mask_of(uint16_t bits) { return bits; }
inline F16 select(Mask16 m, F16 yes, F16 no) { return {_mm512_mask_blend_ps(m, no.v, yes.v)}; }
inline F16 scale_pow2(F16 p, F16 n) { return {_mm512_scalef_ps(p.v, n.v)}; }
inline F16 swap_pairs(F16 a) { return {_mm512_permute_ps(a.v, 0xb1)}; }
inline F16 load_twice(const float* p, int64_t n) {
  const __m512i index = _mm512_set_epi32(7, 7, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1, 0, 0);
  return {_mm512_permutexvar_ps(index, _mm512_maskz_loadu_ps(first(n), p))};
}
inline F16 fma_sub_add(F16 a, F16 b, F16 c) { return {_mm512_fmaddsub_ps(a.v, b.v, c.v)}; }
inline F16 load_half(const uint8_t* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
inline void store_half(uint16_t* p, F16 a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
inline F16 load_bfloat(const uint8_t* p) {
  const __m512i x = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(x, 16))};
}
inline F16 load_int8(const uint8_t* p) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))))};
}
inline void store_int8(int8_t* p, F16 a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(a.v)));
}
inline __m256 low(F16 a) { return _mm512_castps512_ps256(a.v); }
inline __m256 high(F16 a) { return _mm512_extractf32x8_ps(a.v, 1); }

#elif defined(__AVX2__)

struct F16 {
  __m256 a, b;
};
struct Mask16 {
  __m256 a, b;
};

inline F16 zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
inline F16 set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline F16 load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline __m256i first8(int64_t n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), _mm256_set_epi32(7, 6, 5, 4, 3, 2, 1, 0));
}
inline F16 load_first(const float* p, int64_t n) {
  return {_mm256_maskload_ps(p, first8(n)), _mm256_maskload_ps(p + 8, first8(n - 8))};
}
inline void store(float* p, F16 x) {
  _mm256_storeu_ps(p, x.a);
  _mm256_storeu_ps(p + 8, x.b);
}
inline void store_first(float* p, F16 x, int64_t n) {
  _mm256_maskstore_ps(p, first8(n), x.a);
  _mm256_maskstore_ps(p + 8, first8(n - 8), x.b);
}
inline F16 add(F16 x, F16 y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
inline F16 sub(F16 x, F16 y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
inline F16 mul(F16 x, F16 y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
inline F16 div(F16 x, F16 y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
inline F16 fma(F16 x, F16 y, F16 z) {
  return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
inline F16 max(F16 x, F16 y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
inline F16 min(F16 x, F16 y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
inline F16 abs(F16 x) {
  const __m256 bit = _mm256_set1_ps(-0.0f);
  return {_mm256_andnot_ps(bit, x.a), _mm256_andnot_ps(bit, x.b)};
}
inline F16 copy_sign(F16 magnitude, F16 sign) {
  const __m256 bit = _mm256_set1_ps(-0.0f);
  return {_mm256_or_ps(magnitude.a, _mm256_and_ps(bit, sign.a)),
          _mm256_or_ps(magnitude.b, _mm256_and_ps(bit, sign.b))};
}
inline Mask16 less(F16 x, F16 y) {
  return {_mm256_cmp_ps(x.a, y.a, _CMP_LT_OQ), _mm256_cmp_ps(x.b, y.b, _CMP_LT_OQ)};
}
inline Mask16 mask_of(uint16_t bits) {
  const __m256i lane = _mm256_set_epi32(128, 64, 32, 16, 8, 4, 2, 1);
  const __m256i low8 = _mm256_set1_epi32(bits & 0xff), high8 = _mm256_set1_epi32(bits >> 8);
  return {_mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_and_si256(low8, lane), lane)),
          _mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_and_si256(high8, lane), lane))};
}
inline F16 select(Mask16 m, F16 yes, F16 no) {
  return {_mm256_blendv_ps(no.a, yes.a, m.a), _mm256_blendv_ps(no.b, yes.b, m.b)};
}
inline __m256 scale_pow2_half(__m256 p, __m256 n) {
  const __m256i e = _mm256_cvtps_epi32(n);
  const __m256i e1 = _mm256_srai_epi32(e, 1), e2 = _mm256_sub_epi32(e, e1), bias = _mm256_set1_epi32(127);
  const __m256 s1 = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(e1, bias), 23));
  const __m256 s2 = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(e2, bias), 23));
  return _mm256_mul_ps(_mm256_mul_ps(p, s1), s2);
}
inline F16 scale_pow2(F16 p, F16 n) { return {scale_pow2_half(p.a, n.a), scale_pow2_half(p.b, n.b)}; }
inline F16 swap_pairs(F16 x) { return {_mm256_permute_ps(x.a, 0xb1), _mm256_permute_ps(x.b, 0xb1)}; }
inline F16 load_twice(const float* p, int64_t n) {
  const __m256 x = _mm256_maskload_ps(p, first8(n));
  return {_mm256_permutevar8x32_ps(x, _mm256_set_epi32(3, 3, 2, 2, 1, 1, 0, 0)),
          _mm256_permutevar8x32_ps(x, _mm256_set_epi32(7, 7, 6, 6, 5, 5, 4, 4))};
}
inline F16 fma_sub_add(F16 x, F16 y, F16 z) {
  return {_mm256_fmaddsub_ps(x.a, y.a, z.a), _mm256_fmaddsub_ps(x.b, y.b, z.b)};
}
inline F16 load_half(const uint8_t* p) {
  const __m128i* h = reinterpret_cast<const __m128i*>(p);
  return {_mm256_cvtph_ps(_mm_loadu_si128(h)), _mm256_cvtph_ps(_mm_loadu_si128(h + 1))};
}
inline void store_half(uint16_t* p, F16 x) {
  __m128i* h = reinterpret_cast<__m128i*>(p);
  _mm_storeu_si128(h, _mm256_cvtps_ph(x.a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  _mm_storeu_si128(h + 1, _mm256_cvtps_ph(x.b, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
inline __m256 bfloat_to_float(__m128i x) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16));
}
inline F16 load_bfloat(const uint8_t* p) {
  const __m128i* h = reinterpret_cast<const __m128i*>(p);
  return {bfloat_to_float(_mm_loadu_si128(h)), bfloat_to_float(_mm_loadu_si128(h + 1))};
}
inline F16 load_int8(const uint8_t* p) {
  const __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(x)),
          _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_unpackhi_epi64(x, x)))};
}
inline void store_int8(int8_t* p, F16 x) {
  const __m256i words =
      _mm256_permute4x64_epi64(_mm256_packs_epi32(_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b)), 0xd8);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                   _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
}
inline __m256 low(F16 x) { return x.a; }
inline __m256 high(F16 x) { return x.b; }

#else

struct F16 {
  float v[16];
};
struct Mask16 {
  bool on[16];
};

#define METE_LANES(expression)   \
  F16 r;                         \
  for (int i = 0; i < 16; ++i) { \
    r.v[i] = (expression);       \
  }                              \
  return r

inline F16 set1(float x) { METE_LANES(x); }
inline F16 zero() { return set1(0.0f); }
inline F16 load(const float* p) { METE_LANES(p[i]); }
inline F16 load_first(const float* p, int64_t n) { METE_LANES(i < n ? p[i] : 0.0f); }
inline void store(float* p, const F16& a) { memcpy(p, a.v, sizeof a.v); }
inline void store_first(float* p, const F16& a, int64_t n) {
  for (int i = 0; i < 16 && i < n; ++i) p[i] = a.v[i];
}
inline F16 add(const F16& a, const F16& b) { METE_LANES(a.v[i] + b.v[i]); }
inline F16 sub(const F16& a, const F16& b) { METE_LANES(a.v[i] - b.v[i]); }
inline F16 mul(const F16& a, const F16& b) { METE_LANES(a.v[i] * b.v[i]); }
inline F16 div(const F16& a, const F16& b) { METE_LANES(a.v[i] / b.v[i]); }
inline F16 fma(const F16& a, const F16& b, const F16& c) {
  METE_LANES(__builtin_fmaf(a.v[i], b.v[i], c.v[i]));
}
inline F16 max(const F16& a, const F16& b) { METE_LANES(a.v[i] > b.v[i] ? a.v[i] : b.v[i]); }
inline F16 min(const F16& a, const F16& b) { METE_LANES(a.v[i] < b.v[i] ? a.v[i] : b.v[i]); }
inline F16 abs(const F16& a) { METE_LANES(__builtin_fabsf(a.v[i])); }
inline F16 copy_sign(const F16& a, const F16& sign) {
  METE_LANES(__builtin_signbit(sign.v[i]) ? -a.v[i] : a.v[i]);
}
inline Mask16 less(const F16& a, const F16& b) {
  Mask16 m;
  for (int i = 0; i < 16; ++i) m.on[i] = a.v[i] < b.v[i];
  return m;
}
inline Mask16 mask_of(uint16_t bits) {
  Mask16 m;
  for (int i = 0; i < 16; ++i) m.on[i] = ((bits >> i) & 1) != 0;
  return m;
}
inline F16 select(const Mask16& m, const F16& yes, const F16& no) {
  METE_LANES(m.on[i] ? yes.v[i] : no.v[i]);
}
// Two exact-or-last-rounding steps: 2^n itself may be out of range.
inline float scale_pow2_lane(float p, float n) {
  if (n != n) return n;
  const int e = static_cast<int>(n), e1 = e >> 1, e2 = e - e1;
  return p * bits_to_float(static_cast<uint32_t>(e1 + 127) << 23) *
         bits_to_float(static_cast<uint32_t>(e2 + 127) << 23);
}
inline F16 scale_pow2(const F16& p, const F16& n) { METE_LANES(scale_pow2_lane(p.v[i], n.v[i])); }
inline F16 swap_pairs(const F16& a) { METE_LANES(a.v[i ^ 1]); }
inline F16 load_twice(const float* p, int64_t n) { METE_LANES(i / 2 < n ? p[i / 2] : 0.0f); }
inline F16 fma_sub_add(const F16& a, const F16& b, const F16& c) {
  METE_LANES(__builtin_fmaf(a.v[i], b.v[i], (i & 1) != 0 ? c.v[i] : -c.v[i]));
}

inline F16 load_half(const uint8_t* p) { METE_LANES(half_to_float(load_u16(p + 2 * i))); }
inline void store_half(uint16_t* p, const F16& a) {
  for (int i = 0; i < 16; ++i) p[i] = float_to_half(a.v[i]);
}
inline F16 load_bfloat(const uint8_t* p) {
  METE_LANES(bits_to_float(static_cast<uint32_t>(load_u16(p + 2 * i)) << 16));
}
inline void store_int8(int8_t* p, const F16& a) {
  for (int i = 0; i < 16; ++i) p[i] = static_cast<int8_t>(static_cast<int>(a.v[i]));
}
inline F16 load_int8(const uint8_t* p) { METE_LANES(static_cast<float>(static_cast<int8_t>(p[i]))); }

#undef METE_LANES
#endif

// Meanings that need a word: max(a, b) is a > b ? a : b and min(a, b) is a < b ? a : b, so a NaN in either
// gives b; copy_sign wants a magnitude >= 0; scale_pow2(p, n) is p * 2^n rounded once, n an integer in
// [-160, 160], p in [0.5, 2]; load_twice(p, n) gives lanes p0 p0 p1 p1 ... for n <= 8; fma_sub_add subtracts
// c in even lanes and adds it in odd ones; store_int8 wants integers in [-128, 127]; *_first(p, n) touch only
// the first n elements, 0 <= n <= 16.

/// Fixed tree over the lanes: l += l + 8, then + 4, + 2, + 1.
#if defined(__AVX2__)
inline float sum_lanes(F16 x) {
  const __m256 a = _mm256_add_ps(low(x), high(x));
  const __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  const __m128 c = _mm_add_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_add_ss(c, _mm_shuffle_ps(c, c, 1)));
}
inline float max_lanes(F16 x) {
  const __m256 a = _mm256_max_ps(low(x), high(x));
  const __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  const __m128 c = _mm_max_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_max_ss(c, _mm_shuffle_ps(c, c, 1)));
}
#else
inline float sum_lanes(const F16& x) {
  float t[16];
  memcpy(t, x.v, sizeof t);
  for (int step = 8; step >= 1; step /= 2) {
    for (int i = 0; i < step; ++i) t[i] = t[i] + t[i + step];
  }
  return t[0];
}
inline float max_lanes(const F16& x) {
  float t[16];
  memcpy(t, x.v, sizeof t);
  for (int step = 8; step >= 1; step /= 2) {
    for (int i = 0; i < step; ++i) t[i] = t[i] > t[i + step] ? t[i] : t[i + step];
  }
  return t[0];
}
#endif

}  // namespace
}  // namespace mete
