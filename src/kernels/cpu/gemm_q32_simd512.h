// 512-bit vectors for gemm_q32_tiles.h: one vector is a whole panel of 16 lanes. Included inside a tier's
// namespace; __AVX512VNNI__ chooses the integer product.

#if defined(__AVX512VNNI__)
constexpr bool kVnni = true;
#else
constexpr bool kVnni = false;
#endif
using Int = __m512i;
using Float = __m512;
using Mask = __mmask16;
constexpr int kLanes = 16;
constexpr int kVectors = 1;      // vectors per panel
constexpr int kTileVectors = 2;  // vectors per prefill tile: two panels
constexpr int kTileTokens = 4;
constexpr int kDirectTokens = 7;

static inline Int load(const void* p) { return _mm512_loadu_si512(p); }
static inline void store(void* p, Int x) { _mm512_storeu_si512(p, x); }
static inline Float load_float(const void* p) { return _mm512_loadu_ps(p); }
static inline void store_float(void* p, Float x) { _mm512_storeu_ps(p, x); }
static inline Int zero() { return _mm512_setzero_si512(); }
static inline Float zero_float() { return _mm512_setzero_ps(); }
static inline Int bytes(int x) { return _mm512_set1_epi8(static_cast<char>(x)); }
static inline Int bit_and(Int a, Int b) { return _mm512_and_si512(a, b); }
static inline Int bit_xor(Int a, Int b) { return _mm512_xor_si512(a, b); }
template <int kShift>  // of 16-bit lanes; negative: right
static inline Int shift16(Int x) {
  if constexpr (kShift >= 0)
    return _mm512_slli_epi16(x, kShift);
  else
    return _mm512_srli_epi16(x, -kShift);
}
/// (a & b) | c
static inline Int and_or(Int a, Int b, Int c) { return _mm512_ternarylogic_epi32(a, b, c, 0xea); }
static inline Int shift_left32(Int x, int n) { return _mm512_slli_epi32(x, static_cast<unsigned>(n)); }
static inline Int sub32(Int a, Int b) { return _mm512_sub_epi32(a, b); }
static inline Int add32(Int a, Int b) { return _mm512_add_epi32(a, b); }
static inline Int lookup(const int8_t* table, Int index) {
  return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table))),
                             index);
}
static inline Int broadcast32(const void* p) {
  int32_t x;
  memcpy(&x, p, 4);
  return _mm512_set1_epi32(x);
}
static inline Float broadcast_float(const void* p) {
  float x;
  memcpy(&x, p, 4);
  return _mm512_set1_ps(x);
}
static inline Float mul(Float a, Float b) { return _mm512_mul_ps(a, b); }
static inline Float fma(Float a, Float b, Float c) { return _mm512_fmadd_ps(a, b, c); }
static inline Float to_float(Int x) { return _mm512_cvtepi32_ps(x); }
/// Lanes' halves, widened exactly.
static inline Float load_halves(const uint8_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
/// 2^(e - 128) of the lanes' exponent bytes; e = 0, 1 give denormals.
static inline Float load_exponents(const uint8_t* p) {
  const Int e = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  const Int normal = _mm512_slli_epi32(_mm512_sub_epi32(e, _mm512_set1_epi32(1)), 23);
  const Int denormal = _mm512_sllv_epi32(_mm512_set1_epi32(0x00200000), e);
  const __mmask16 small = _mm512_cmplt_epi32_mask(e, _mm512_set1_epi32(2));
  return _mm512_castsi512_ps(_mm512_mask_mov_epi32(normal, small, denormal));
}

static inline Mask lane_mask(int64_t count) {
  return count >= 16 ? static_cast<Mask>(0xffff) : static_cast<Mask>((1u << (count < 0 ? 0 : count)) - 1u);
}
static inline Float load_out(const float* p, Mask mask) { return _mm512_maskz_loadu_ps(mask, p); }
/// NaN is stored as 0x7fc00000.
static inline void store_out(float* p, Mask mask, Float x) {
  const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  const Float canonical = _mm512_castsi512_ps(_mm512_set1_epi32(0x7fc00000));
  _mm512_mask_storeu_ps(p, mask, _mm512_mask_mov_ps(x, nan, canonical));
}

#if defined(__AVX512VNNI__)
static inline Int dot4(Int acc, Int w, Int a) { return _mm512_dpbusd_epi32(acc, w, a); }
#endif
static inline Int maddubs(Int w, Int a) { return _mm512_maddubs_epi16(w, a); }
static inline Int add16(Int a, Int b) { return _mm512_add_epi16(a, b); }
static inline Int pair_sums(Int x) { return _mm512_madd_epi16(x, _mm512_set1_epi16(1)); }
static inline Int magnitude8(Int x) { return _mm512_abs_epi8(x); }
/// a with the sign of w (a where w is 0: the product with |w| is 0 all the same)
static inline Int with_sign8(Int a, Int w) {
  return _mm512_mask_sub_epi8(a, _mm512_movepi8_mask(w), _mm512_setzero_si512(), a);
}

static inline Int max32(Int a, Int b) { return _mm512_max_epi32(a, b); }
/// Lane i: kOp over the sixteen lanes of the i-th argument.
template <Int (*kOp)(Int, Int)>
static inline __m128i reduce4(Int a, Int b, Int c, Int d) {
  const Int ab = kOp(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
  const Int cd = kOp(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
  Int x = kOp(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
  x = kOp(x, _mm512_shuffle_i64x2(x, x, 0x4e));
  return _mm512_castsi512_si128(kOp(x, _mm512_shuffle_i64x2(x, x, 0xb1)));
}
/// Bits of the magnitudes of 16 floats.
static inline Int magnitudes16(const float* x) { return bit_and(load(x), _mm512_set1_epi32(0x7fffffff)); }
/// q = clamp(nearest even(x * inverse), +-127) of 16 floats; the result's lanes add up to the sum of q.
static inline Int quantize16(const float* x, float inverse, uint8_t* q) {
  Int a = _mm512_cvtps_epi32(mul(load_float(x), _mm512_set1_ps(inverse)));
  a = max32(_mm512_min_epi32(a, _mm512_set1_epi32(127)), _mm512_set1_epi32(-127));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(q), _mm512_cvtepi32_epi8(a));
  return a;
}
