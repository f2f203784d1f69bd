// Bodies of AttentionKernels, compiled once per tier (attention.cpp, attention_<tier>.cpp).
#pragma once

#include <xmmintrin.h>

#include "kernels/cpu/attention.h"
#include "kernels/cpu/math.h"
#include "kernels/cpu/scalar_math.h"

#if defined(__clang__)
#define METE_UNROLL _Pragma("unroll")
#else
#define METE_UNROLL _Pragma("GCC unroll 16")
#endif

namespace mete {
namespace {

constexpr int64_t kScoreStride = kSplitKeys + 16;  // not a power of two: rows of scores use different sets

/// Key tiles, and value chunks of 16 elements, of a register block of query vectors.
#if defined(__AVX512F__)
constexpr int kBlock = 12;
constexpr int tiles_for(int vectors) { return vectors <= 7 ? 4 : vectors == 8 ? 3 : 2; }
#elif defined(__AVX2__)
constexpr int kBlock = 6;
constexpr int tiles_for(int vectors) { return vectors <= 2 ? 2 : 1; }
#else
constexpr int kBlock = 4;
constexpr int tiles_for(int) { return 1; }
#endif

/// To the second-level cache: a split ahead is too far for the first.
/// A hint for base + offset; base may be null (nothing to come), so the sum is taken as an integer.
inline void prefetch(const uint8_t* base, int64_t offset) {
  const uintptr_t address = reinterpret_cast<uintptr_t>(base) + static_cast<uintptr_t>(offset);
  _mm_prefetch(reinterpret_cast<const char*>(address), _MM_HINT_T1);
}

template <KvType kType>
inline F16 load_elements(const uint8_t* p, int64_t index) {
  if constexpr (kType == KvType::kF32) {
    return load(reinterpret_cast<const float*>(p) + index);
  } else if constexpr (kType == KvType::kF16) {
    return load_half(p + 2 * index);
  } else if constexpr (kType == KvType::kBF16) {
    return load_bfloat(p + 2 * index);
  } else {
    return load_int8(p + index);
  }
}

/// scores[r][tile * 16 + lane] = one FMA chain over d, ascending, for R vectors and T tiles.
template <int R, int T, KvType kType>
inline void score_tiles(const SplitArgs& a, const float* q, const int* tiles) {
  const int64_t head_dim = a.head_dim, stride = a.vectors;
  const uint8_t *keys[T], *next[T];
  F16 acc[R][T];
  METE_UNROLL
  for (int t = 0; t < T; ++t) {
    keys[t] = a.keys[tiles[t]];
    next[t] = a.next_keys[tiles[t]];
    METE_UNROLL
    for (int r = 0; r < R; ++r) acc[r][t] = zero();
  }
  // A group is the scale block of kQ8_0, else a cache line (head_dim is even).
  constexpr int64_t kGroup = kType == KvType::kQ8_0 ? 32 : kType == KvType::kF32 ? 1 : 2;
  for (int64_t d0 = 0; d0 < head_dim; d0 += kGroup) {
    F16 scale[T];
    if constexpr (kType == KvType::kQ8_0) {
      METE_UNROLL
      for (int t = 0; t < T; ++t) scale[t] = load_half(keys[t] + head_dim * 16 + d0);  // d0 / 32 * 16 halves
    }
    if constexpr (kType != KvType::kF32) {
      METE_UNROLL
      for (int t = 0; t < T; ++t) {
        for (int64_t line = 0; line < (kType == KvType::kQ8_0 ? 8 : 1); ++line) {
          prefetch(next[t], d0 * (kType == KvType::kQ8_0 ? 16 : 32) + line * 64);
        }
        if constexpr (kType == KvType::kQ8_0) prefetch(next[t], head_dim * 16 + d0);
      }
    }
    for (int64_t d = d0; d < d0 + kGroup; ++d) {
      F16 key[T];
      METE_UNROLL
      for (int t = 0; t < T; ++t) {
        key[t] = load_elements<kType>(keys[t], d * 16);
        if constexpr (kType == KvType::kQ8_0) key[t] = mul(key[t], scale[t]);  // exact: 8 + 11 bits
      }
      METE_UNROLL
      for (int r = 0; r < R; ++r) {
        const F16 x = set1(q[d * stride + r]);
        METE_UNROLL
        for (int t = 0; t < T; ++t) acc[r][t] = fma(x, key[t], acc[r][t]);
      }
    }
  }
  METE_UNROLL
  for (int t = 0; t < T; ++t) {
    METE_UNROLL
    for (int r = 0; r < R; ++r) store(a.scores + r * kScoreStride + tiles[t] * 16, acc[r][t]);
  }
}

template <int R, KvType kType>
void score_block(const SplitArgs& a, const float* q, const int* tiles, int count) {
  constexpr int kTiles = tiles_for(R);
  int i = 0;
  for (; i + kTiles <= count; i += kTiles) score_tiles<R, kTiles, kType>(a, q, tiles + i);
  for (; i < count; ++i) score_tiles<R, 1, kType>(a, q, tiles + i);
}

/// Scores of one vector become weights p = exp(score - m), 0 where masked; m and l are returned.
inline void soften(const SplitArgs& a, float* scores, const uint16_t* mask, const int* tiles, int count,
                   float* m_out, float* l_out) {
  const F16 lowest = set1(-__builtin_inff()), scale = set1(a.scale), cap = set1(a.softcap);
  F16 highest = lowest;
  for (int i = 0; i < count; ++i) {
    float* at = scores + tiles[i] * 16;
    F16 s = mul(load(at), scale);
    if (a.softcap > 0.0f) s = mul(cap, tanh(div(s, cap)));
    if (a.log_weights != nullptr) s = add(s, load(a.log_weights + tiles[i] * 16));
    s = select(mask_of(mask[tiles[i]]), s, lowest);
    store(at, s);
    highest = max(highest, s);
  }
  const float m = max_lanes(highest);
  F16 sum = zero();
  if (m != -__builtin_inff()) {
    for (int i = 0; i < count; ++i) {
      float* at = scores + tiles[i] * 16;
      const F16 p = exp(sub(load(at), set1(m)));
      store(at, p);
      sum = add(sum, p);
    }
  }
  *m_out = m;
  *l_out = sum_lanes(sum);
}

/// o[r][d0 ..] += p[r][j] * v[j][d0 ..] for keys j of [begin, end), ascending, R vectors and C chunks.
template <int R, int C, KvType kType>
inline void weigh_chunks(const SplitArgs& a, const float* p, float* o, int64_t d0, int begin, int end) {
  const int64_t stride = value_stride(a.value_dim), blocks = a.value_dim / 32;
  F16 acc[R][C];
  METE_UNROLL
  for (int r = 0; r < R; ++r) {
    METE_UNROLL
    for (int c = 0; c < C; ++c) acc[r][c] = load(o + r * stride + d0 + c * 16);
  }
  for (int j = begin; j < end;) {
    const uint8_t *tile = a.values[j / 16], *next = a.next_values[j / 16];
    const int stop = (j / 16 + 1) * 16 < end ? (j / 16 + 1) * 16 : end;
    for (; j < stop; ++j) {
      F16 v[C];
      if constexpr (kType != KvType::kF32) {
        constexpr int64_t kBytes = kType == KvType::kQ8_0 ? 1 : 2;
        METE_UNROLL
        for (int64_t byte = 0; byte < C * 16 * kBytes; byte += 64) {
          prefetch(next, ((j % 16) * stride + d0) * kBytes + byte);
        }
      }
      METE_UNROLL
      for (int c = 0; c < C; ++c) {
        v[c] = load_elements<kType>(tile, (j % 16) * stride + d0 + c * 16);
        if constexpr (kType == KvType::kQ8_0) {
          const int64_t block = (j % 16) * blocks + (d0 + c * 16) / 32;
          v[c] = mul(v[c], set1(half_to_float(load_u16(tile + stride * 16 + 2 * block))));
        }
      }
      METE_UNROLL
      for (int r = 0; r < R; ++r) {
        const F16 x = set1(p[r * kScoreStride + j]);
        METE_UNROLL
        for (int c = 0; c < C; ++c) acc[r][c] = fma(x, v[c], acc[r][c]);
      }
    }
  }
  METE_UNROLL
  for (int r = 0; r < R; ++r) {
    METE_UNROLL
    for (int c = 0; c < C; ++c) store(o + r * stride + d0 + c * 16, acc[r][c]);
  }
}

template <int R, KvType kType>
void weigh_run(const SplitArgs& a, const float* p, float* o, int begin, int end) {
  constexpr int kChunks = tiles_for(R);
  const int64_t stride = value_stride(a.value_dim);
  int64_t d = 0;
  for (; d + kChunks * 16 <= stride; d += kChunks * 16)
    weigh_chunks<R, kChunks, kType>(a, p, o, d, begin, end);
  for (; d < stride; d += 16) weigh_chunks<R, 1, kType>(a, p, o, d, begin, end);
}

/// The keys of `bits` of one tile, for a single vector.
template <KvType kType>
void weigh_bits(const SplitArgs& a, const float* p, float* o, int tile, uint32_t bits) {
  while (bits != 0) {
    const int begin = __builtin_ctz(bits);
    const int end = begin + __builtin_ctz(~(bits >> begin));
    weigh_run<1, kType>(a, p, o, tile * 16 + begin, tile * 16 + end);
    bits &= ~((1u << end) - 1u);
  }
}

/// Sums of R vectors. Keys that all see go through the register block; the others one vector at a time. Each
/// vector meets its visible keys in ascending order and no other key.
template <int R, KvType kType>
void weigh_block(const SplitArgs& a, const uint16_t* const* masks, float* o, const int* tiles, int count) {
  const int64_t stride = value_stride(a.value_dim);
  int run_begin = 0, run_end = 0;  // keys of the pending common run
  const auto flush = [&] {
    if (run_end > run_begin) weigh_run<R, kType>(a, a.scores, o, run_begin, run_end);
    run_begin = run_end = 0;
  };
  for (int i = 0; i < count; ++i) {
    const int tile = tiles[i];
    uint32_t every = 0xffffu, any = 0;
    for (int r = 0; r < R; ++r) every &= masks[r][tile], any |= masks[r][tile];
    const int begin = every != 0 ? __builtin_ctz(every) : 16;
    const int end = every != 0 ? begin + __builtin_ctz(~(every >> begin)) : 16;
    const uint32_t before = (1u << begin) - 1u, after = 0xffffu & ~((1u << end) - 1u);
    if ((any & before) != 0) {
      flush();
      for (int r = 0; r < R; ++r) {
        weigh_bits<kType>(a, a.scores + r * kScoreStride, o + r * stride, tile, masks[r][tile] & before);
      }
    }
    if (begin < end) {
      if (run_end != tile * 16 + begin) flush(), run_begin = tile * 16 + begin;
      run_end = tile * 16 + end;
    }
    if ((any & after) != 0) {
      flush();
      for (int r = 0; r < R; ++r) {
        weigh_bits<kType>(a, a.scores + r * kScoreStride, o + r * stride, tile, masks[r][tile] & after);
      }
    }
  }
  flush();
}

template <int R>
void attend_block(const SplitArgs& a, int64_t first) {
  const int64_t stride = value_stride(a.value_dim);
  const uint16_t* const* masks = a.masks + first;
  int tiles[kSplitTiles], count = 0;
  for (int t = 0; t < kSplitTiles; ++t) {
    uint32_t any = 0;
    for (int r = 0; r < R; ++r) any |= masks[r][t];
    if (any != 0) tiles[count++] = t;
  }
  const float* q = a.q + first;
  switch (a.key_type) {
    case KvType::kF32:
      score_block<R, KvType::kF32>(a, q, tiles, count);
      break;
    case KvType::kF16:
      score_block<R, KvType::kF16>(a, q, tiles, count);
      break;
    case KvType::kBF16:
      score_block<R, KvType::kBF16>(a, q, tiles, count);
      break;
    case KvType::kQ8_0:
      score_block<R, KvType::kQ8_0>(a, q, tiles, count);
      break;
  }
  float* o = a.o + first * stride;
  for (int r = 0; r < R; ++r) {
    soften(a, a.scores + r * kScoreStride, masks[r], tiles, count, a.m + first + r, a.l + first + r);
    memset(o + r * stride, 0, static_cast<size_t>(stride) * sizeof(float));
  }
  switch (a.value_type) {
    case KvType::kF32:
      weigh_block<R, KvType::kF32>(a, masks, o, tiles, count);
      break;
    case KvType::kF16:
      weigh_block<R, KvType::kF16>(a, masks, o, tiles, count);
      break;
    case KvType::kBF16:
      weigh_block<R, KvType::kBF16>(a, masks, o, tiles, count);
      break;
    case KvType::kQ8_0:
      weigh_block<R, KvType::kQ8_0>(a, masks, o, tiles, count);
      break;
  }
}

void split_kernel(const SplitArgs& a) noexcept {
  for (int64_t first = 0; first < a.vectors;) {
    const int64_t left = a.vectors - first;
#if defined(__AVX512F__)
    if (a.key_type != KvType::kF32 && left > 8) {  // stored tiles: more of them at once hides their latency
      attend_block<6>(a, first), first += 6;
      continue;
    }
    if (left >= 12) {
      attend_block<12>(a, first), first += 12;
      continue;
    }
    if (left >= 8) {
      attend_block<8>(a, first), first += 8;
      continue;
    }
    if (left == 7) {
      attend_block<7>(a, first), first += 7;
      continue;
    }
#endif
#if defined(__AVX2__)
    if (left >= 6) {
      attend_block<6>(a, first), first += 6;
      continue;
    }
    if (left == 5) {
      attend_block<5>(a, first), first += 5;
      continue;
    }
    if (left == 3) {
      attend_block<3>(a, first), first += 3;
      continue;
    }
#endif
    if (left >= 4) {
      attend_block<4>(a, first), first += 4;
    } else if (left >= 2) {
      attend_block<2>(a, first), first += 2;
    } else {
      attend_block<1>(a, first), first += 1;
    }
  }
}

void pack_queries_kernel(const float* const* rows, int64_t count, int64_t head_dim, float* out) noexcept {
  const int64_t whole = head_dim / 4 * 4;
  int64_t i = 0;
  for (; i + 4 <= count; i += 4) {
    for (int64_t d = 0; d < whole; d += 4) {
      __m128 a = _mm_loadu_ps(rows[i] + d), b = _mm_loadu_ps(rows[i + 1] + d);
      __m128 c = _mm_loadu_ps(rows[i + 2] + d), e = _mm_loadu_ps(rows[i + 3] + d);
      _MM_TRANSPOSE4_PS(a, b, c, e);
      float* to = out + d * count + i;
      _mm_storeu_ps(to, a);
      _mm_storeu_ps(to + count, b);
      _mm_storeu_ps(to + 2 * count, c);
      _mm_storeu_ps(to + 3 * count, e);
    }
    for (int64_t d = whole; d < head_dim; ++d) {
      for (int64_t k = 0; k < 4; ++k) out[d * count + i + k] = rows[i + k][d];
    }
  }
  for (; i < count; ++i) {
    for (int64_t d = 0; d < head_dim; ++d) out[d * count + i] = rows[i][d];
  }
}

void fold_kernel(float* total_o, float* total_m, float* total_l, const float* o, float m, float l,
                 int64_t n) noexcept {
  if (l == 0.0f) return;
  if (*total_l == 0.0f) {
    memcpy(total_o, o, static_cast<size_t>(n) * sizeof(float));
    *total_m = m;
    *total_l = l;
    return;
  }
  const float top = *total_m > m ? *total_m : m;
  const F16 old_factor = exp(set1(*total_m - top)), new_factor = exp(set1(m - top));
  float a[16], b[16];
  store(a, old_factor);
  store(b, new_factor);
  *total_l = __builtin_fmaf(*total_l, a[0], l * b[0]);
  *total_m = top;
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    store(total_o + i, fma(load(total_o + i), old_factor, mul(load(o + i), new_factor)));
  }
  if (i < n) {
    const F16 r = fma(load_first(total_o + i, n - i), old_factor, mul(load_first(o + i, n - i), new_factor));
    store_first(total_o + i, r, n - i);
  }
}

float finish_kernel(const float* o, float m, float l, int64_t n, float* out) noexcept {
  if (l == 0.0f) {
    memset(out, 0, static_cast<size_t>(n) * sizeof(float));
    return -__builtin_inff();
  }
  const F16 inverse = set1(1.0f / l);
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) store(out + i, mul(load(o + i), inverse));
  if (i < n) store_first(out + i, mul(load_first(o + i, n - i), inverse), n - i);
  return m + static_cast<float>(log_double(static_cast<double>(l)));
}

/// d and the 32 quants of a block: d = half(amax / 127), q = nearest even of x * (127 / amax). A block with a
/// NaN or an infinity has d = NaN and q = 0, so that all of it reads back as NaN.
inline uint16_t quantise_block(const float* x, int8_t* q) {
  const F16 a = load(x), b = load(x + 16);
  const float amax = max_lanes(max(abs(a), abs(b)));
  const float nothing = sum_lanes(add(mul(a, zero()), mul(b, zero())));  // NaN unless all are finite
  const float inverse = 127.0f / amax;
  if (nothing != 0.0f || !(inverse <= 3.4028234663852886e38f)) {
    memset(q, 0, 32);
    return nothing != 0.0f ? uint16_t{0x7e00} : float_to_half(amax / 127.0f);
  }
  const F16 magic = set1(0x1.8p23f), top = set1(127.0f), factor = set1(inverse);
  for (int i = 0; i < 2; ++i) {
    const F16 r = sub(add(mul(i == 0 ? a : b, factor), magic), magic);
    store_int8(q + i * 16, min(max(r, sub(zero(), top)), top));
  }
  return float_to_half(amax / 127.0f);
}

/// `width` (1 .. 16) floats to half or bfloat16; zeros beyond.
inline void encode16(KvType type, const float* x, int64_t width, uint16_t* out) {
  const F16 v = width == 16 ? load(x) : load_first(x, width);
  if (type == KvType::kF16) return store_half(out, v);
  float lanes[16];
  store(lanes, v);
  for (int i = 0; i < 16; ++i) out[i] = float_to_bfloat(lanes[i]);
}

void store_key_kernel(KvType type, const float* k, int64_t head_dim, int slot, uint8_t* tile) noexcept {
  if (type == KvType::kQ8_0) {
    for (int64_t block = 0; block < head_dim / 32; ++block) {
      int8_t q[32];
      const uint16_t d = quantise_block(k + block * 32, q);
      for (int64_t i = 0; i < 32; ++i) tile[(block * 32 + i) * 16 + slot] = static_cast<uint8_t>(q[i]);
      memcpy(tile + head_dim * 16 + (block * 16 + slot) * 2, &d, 2);
    }
    return;
  }
  if (type == KvType::kF32) {
    for (int64_t d = 0; d < head_dim; ++d) memcpy(tile + (d * 16 + slot) * 4, k + d, 4);
    return;
  }
  for (int64_t d = 0; d < head_dim; d += 16) {
    const int64_t width = head_dim - d < 16 ? head_dim - d : 16;
    uint16_t x[16];
    encode16(type, k + d, width, x);
    for (int64_t i = 0; i < width; ++i) memcpy(tile + ((d + i) * 16 + slot) * 2, x + i, 2);
  }
}

void store_value_kernel(KvType type, const float* v, int64_t head_dim, int slot, uint8_t* tile) noexcept {
  const int64_t stride = value_stride(head_dim);
  if (type == KvType::kQ8_0) {
    for (int64_t block = 0; block < head_dim / 32; ++block) {
      int8_t q[32];
      const uint16_t d = quantise_block(v + block * 32, q);
      memcpy(tile + slot * stride + block * 32, q, 32);
      memcpy(tile + stride * 16 + (slot * (head_dim / 32) + block) * 2, &d, 2);
    }
    return;
  }
  for (int64_t d = 0; d < stride; d += 16) {
    const int64_t width = head_dim - d < 16 ? head_dim - d : 16;
    if (type == KvType::kF32) {
      store(reinterpret_cast<float*>(tile) + slot * stride + d, load_first(v + d, width));
    } else {
      uint16_t x[16];
      encode16(type, v + d, width, x);
      memcpy(tile + (slot * stride + d) * 2, x, 32);
    }
  }
}

/// One element of a tile: `index` counts elements, `scale` half scales.
inline float decode(KvType type, const uint8_t* tile, int64_t index, int64_t elements, int64_t scale) {
  switch (type) {
    case KvType::kF32: {
      float x;
      memcpy(&x, tile + index * 4, 4);
      return x;
    }
    case KvType::kF16:
      return half_to_float(load_u16(tile + index * 2));
    case KvType::kBF16:
      return bits_to_float(static_cast<uint32_t>(load_u16(tile + index * 2)) << 16);
    case KvType::kQ8_0:
      break;
  }
  return static_cast<float>(static_cast<int8_t>(tile[index])) *
         half_to_float(load_u16(tile + elements + scale * 2));
}

void gather_key_kernel(KvType type, const uint8_t* tile, int slot, int64_t head_dim, int lane,
                       float* out) noexcept {
  for (int64_t d = 0; d < head_dim; ++d) {
    out[d * 16 + lane] = decode(type, tile, d * 16 + slot, head_dim * 16, d / 32 * 16 + slot);
  }
}

void gather_value_kernel(KvType type, const uint8_t* tile, int slot, int64_t head_dim, int lane,
                         float* out) noexcept {
  const int64_t stride = value_stride(head_dim), blocks = head_dim / 32;
  for (int64_t d = 0; d < stride; ++d) {
    out[lane * stride + d] = decode(type, tile, slot * stride + d, stride * 16, slot * blocks + d / 32);
  }
}

template <KvType kType>
inline void expand(const uint8_t* tile, int64_t elements, float* out) {
  for (int64_t i = 0; i < elements; i += 16) store(out + i, load_elements<kType>(tile, i));
}

void expand_keys_kernel(KvType type, const uint8_t* tile, int64_t head_dim, float* out) noexcept {
  const int64_t elements = head_dim * 16;
  if (type == KvType::kF16) return expand<KvType::kF16>(tile, elements, out);
  if (type == KvType::kBF16) return expand<KvType::kBF16>(tile, elements, out);
  if (type == KvType::kF32) return expand<KvType::kF32>(tile, elements, out);
  for (int64_t d = 0; d < head_dim; ++d) {
    store(out + d * 16, mul(load_int8(tile + d * 16), load_half(tile + elements + d / 32 * 32)));
  }
}

void expand_values_kernel(KvType type, const uint8_t* tile, int64_t head_dim, float* out) noexcept {
  const int64_t stride = value_stride(head_dim), elements = stride * 16;
  if (type == KvType::kF16) return expand<KvType::kF16>(tile, elements, out);
  if (type == KvType::kBF16) return expand<KvType::kBF16>(tile, elements, out);
  if (type == KvType::kF32) return expand<KvType::kF32>(tile, elements, out);
  for (int64_t i = 0; i < elements; i += 16) {
    const float d = half_to_float(load_u16(tile + elements + i / 32 * 2));
    store(out + i, mul(load_int8(tile + i), set1(d)));
  }
}

void values_of_keys_kernel(const float* keys, int64_t value_dim, float* out) noexcept {
  const int64_t stride = value_stride(value_dim), whole = value_dim / 4 * 4;
  for (int64_t j = 0; j < kTileSlots; j += 4) {
    float* to = out + j * stride;
    for (int64_t d = 0; d < whole; d += 4) {
      const float* from = keys + d * kTileSlots + j;
      __m128 a = _mm_loadu_ps(from), b = _mm_loadu_ps(from + kTileSlots);
      __m128 c = _mm_loadu_ps(from + 2 * kTileSlots), e = _mm_loadu_ps(from + 3 * kTileSlots);
      _MM_TRANSPOSE4_PS(a, b, c, e);
      _mm_storeu_ps(to + d, a);
      _mm_storeu_ps(to + stride + d, b);
      _mm_storeu_ps(to + 2 * stride + d, c);
      _mm_storeu_ps(to + 3 * stride + d, e);
    }
    for (int64_t d = whole; d < stride; ++d) {
      for (int64_t i = 0; i < 4; ++i)
        to[i * stride + d] = d < value_dim ? keys[d * kTileSlots + j + i] : 0.0f;
    }
  }
}

inline void fill(AttentionKernels& k) {
  k.block = kBlock;
  k.pack_queries = pack_queries_kernel;
  k.split = split_kernel;
  k.fold = fold_kernel;
  k.finish = finish_kernel;
  k.store_key = store_key_kernel;
  k.store_value = store_value_kernel;
  k.expand_keys = expand_keys_kernel;
  k.expand_values = expand_values_kernel;
  k.values_of_keys = values_of_keys_kernel;
  k.gather_key = gather_key_kernel;
  k.gather_value = gather_value_kernel;
}

}  // namespace
}  // namespace mete

#undef METE_UNROLL
