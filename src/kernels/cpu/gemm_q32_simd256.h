// 256-bit vectors for gemm_q32_tiles.h: a panel of 16 lanes is two vectors. Included inside a tier's
// namespace; __AVXVNNI__ chooses the integer product.

#if defined(__AVXVNNI__)
constexpr bool kVnni = true;
#else
constexpr bool kVnni = false;
#endif
using Int = __m256i;
using Float = __m256;
using Mask = __m256i;
constexpr int kLanes = 8;
constexpr int kVectors = 2;      // vectors per panel
constexpr int kTileVectors = 2;  // vectors per prefill tile: one panel
constexpr int kTileTokens = kVnni ? 6 : 3;
constexpr int kDirectTokens = 2;

static inline Int load(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
static inline void store(void* p, Int x) { _mm256_storeu_si256(static_cast<__m256i*>(p), x); }
static inline Float load_float(const void* p) { return _mm256_loadu_ps(static_cast<const float*>(p)); }
static inline void store_float(void* p, Float x) { _mm256_storeu_ps(static_cast<float*>(p), x); }
static inline Int zero() { return _mm256_setzero_si256(); }
static inline Float zero_float() { return _mm256_setzero_ps(); }
static inline Int bytes(int x) { return _mm256_set1_epi8(static_cast<char>(x)); }
static inline Int bit_and(Int a, Int b) { return _mm256_and_si256(a, b); }
static inline Int bit_xor(Int a, Int b) { return _mm256_xor_si256(a, b); }
template <int kShift>  // of 16-bit lanes; negative: right
static inline Int shift16(Int x) {
  if constexpr (kShift >= 0)
    return _mm256_slli_epi16(x, kShift);
  else
    return _mm256_srli_epi16(x, -kShift);
}
/// (a & b) | c
static inline Int and_or(Int a, Int b, Int c) { return _mm256_or_si256(_mm256_and_si256(a, b), c); }
static inline Int shift_left32(Int x, int n) { return _mm256_slli_epi32(x, n); }
static inline Int sub32(Int a, Int b) { return _mm256_sub_epi32(a, b); }
static inline Int add32(Int a, Int b) { return _mm256_add_epi32(a, b); }
static inline Int lookup(const int8_t* table, Int index) {
  return _mm256_shuffle_epi8(
      _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table))), index);
}
static inline Int broadcast32(const void* p) {
  int32_t x;
  memcpy(&x, p, 4);
  return _mm256_set1_epi32(x);
}
static inline Float broadcast_float(const void* p) {
  float x;
  memcpy(&x, p, 4);
  return _mm256_set1_ps(x);
}
static inline Float mul(Float a, Float b) { return _mm256_mul_ps(a, b); }
static inline Float fma(Float a, Float b, Float c) { return _mm256_fmadd_ps(a, b, c); }
static inline Float to_float(Int x) { return _mm256_cvtepi32_ps(x); }
/// Lanes' halves, widened exactly.
static inline Float load_halves(const uint8_t* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
/// 2^(e - 128) of the lanes' exponent bytes; e = 0, 1 give denormals.
static inline Float load_exponents(const uint8_t* p) {
  const Int e = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  const Int normal = _mm256_slli_epi32(_mm256_sub_epi32(e, _mm256_set1_epi32(1)), 23);
  const Int denormal = _mm256_sllv_epi32(_mm256_set1_epi32(0x00200000), e);
  const Int small = _mm256_cmpgt_epi32(_mm256_set1_epi32(2), e);
  return _mm256_castsi256_ps(_mm256_blendv_epi8(normal, denormal, small));
}

static inline Mask lane_mask(int64_t count) {
  const int n = count > 8 ? 8 : count < 0 ? 0 : static_cast<int>(count);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
static inline Float load_out(const float* p, Mask mask) { return _mm256_maskload_ps(p, mask); }
/// NaN is stored as 0x7fc00000.
static inline void store_out(float* p, Mask mask, Float x) {
  const Float canonical = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fc00000));
  _mm256_maskstore_ps(p, mask, _mm256_blendv_ps(x, canonical, _mm256_cmp_ps(x, x, _CMP_UNORD_Q)));
}

#if defined(__AVXVNNI__)
static inline Int dot4(Int acc, Int w, Int a) { return _mm256_dpbusd_avx_epi32(acc, w, a); }
#endif
static inline Int maddubs(Int w, Int a) { return _mm256_maddubs_epi16(w, a); }
static inline Int add16(Int a, Int b) { return _mm256_add_epi16(a, b); }
static inline Int pair_sums(Int x) { return _mm256_madd_epi16(x, _mm256_set1_epi16(1)); }
static inline Int magnitude8(Int x) { return _mm256_abs_epi8(x); }
/// a with the sign of w, 0 where w is 0
static inline Int with_sign8(Int a, Int w) { return _mm256_sign_epi8(a, w); }

static inline Int max32(Int a, Int b) { return _mm256_max_epi32(a, b); }
/// Lane i: kOp over the eight lanes of the i-th argument.
template <Int (*kOp)(Int, Int)>
static inline __m128i reduce4(Int a, Int b, Int c, Int d) {
  const Int ab = kOp(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
  const Int cd = kOp(_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
  const Int x = kOp(_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd));
  return _mm256_castsi256_si128(kOp(x, _mm256_permute2x128_si256(x, x, 1)));
}
/// Bits of the magnitudes of 16 floats, the larger of each two eight apart.
static inline Int magnitudes16(const float* x) {
  const Int mask = _mm256_set1_epi32(0x7fffffff);
  return max32(bit_and(load(x), mask), bit_and(load(x + 8), mask));
}
/// q = clamp(nearest even(x * inverse), +-127) of 16 floats; the result's lanes add up to the sum of q.
static inline Int quantize16(const float* x, float inverse, uint8_t* q) {
  const Int high = _mm256_set1_epi32(127), low = _mm256_set1_epi32(-127);
  const Float factor = _mm256_set1_ps(inverse);
  Int a = _mm256_cvtps_epi32(mul(load_float(x), factor)),
      b = _mm256_cvtps_epi32(mul(load_float(x + 8), factor));
  a = max32(_mm256_min_epi32(a, high), low);
  b = max32(_mm256_min_epi32(b, high), low);
  // The first pack works within 128-bit halves; the permutation restores the order.
  const Int words = _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xd8);
  const __m128i packed = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(q), packed);
  return add32(a, b);
}
