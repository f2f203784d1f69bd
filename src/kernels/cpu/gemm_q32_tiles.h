// Kernels of the 32-block weight types over the vectors of gemm_q32_simd{256,512}.h. Included inside a
// tier's namespace. A SIMD lane is an output row; every output is one chain of fused multiply-adds in
// ascending block order whatever the tile, so tiles may be chosen freely (docs/numerics.md).

// How the integer products of half a block are summed. With VNNI every weight is an unsigned byte with a zero
// point. Without it `vpmaddubsw` adds two products u8 * s8 in int16, so activations being at most 127 in
// size:
//   kUnsigned: weights in [0, 31]: the 4 groups stay within 4 * 2 * 31 * 127 = 31496
//   kSigned: |w| <= 128 with the sign moved to the activation: one group is at most 2 * 128 * 127 = 32512
enum class Sum { kUnsigned, kSigned };

constexpr int8_t kIq4NlUnsigned[16] = {1,    24,   45,   63,  79,  93,  106, 118,
                                       -127, -115, -103, -90, -75, -59, -39, -15};  // T + 128 as bytes
constexpr int8_t kMxfp4Unsigned[16] = {16, 17, 18, 19, 20, 22, 24, 28, 16, 15, 14, 13, 12, 10, 8, 4};

/// w[g] = elements 4g..4g+3 of vector `vec`'s lanes, from a panel block's nibbles.
static inline void load_nibbles(const uint8_t* quants, int vec, Int* w) {
  METE_UNROLL
  for (int v = 0; v < 4; ++v) {
    const Int x = load(quants + 64 * v + 4 * kLanes * vec);
    w[v] = bit_and(x, bytes(15));
    w[v + 4] = bit_and(shift16<-4>(x), bytes(15));
  }
}

template <int kGroup>
static inline void add_fifth_bit(Int high, Int* w) {
  w[kGroup] = and_or(shift16<4 - kGroup>(high), bytes(16), w[kGroup]);
}

static inline void load_fives(const uint8_t* high, int vec, Int* w) {
  load_nibbles(high + 64, vec, w);
  const Int h = load(high + 4 * kLanes * vec);
  add_fifth_bit<0>(h, w);
  add_fifth_bit<1>(h, w);
  add_fifth_bit<2>(h, w);
  add_fifth_bit<3>(h, w);
  add_fifth_bit<4>(h, w);
  add_fifth_bit<5>(h, w);
  add_fifth_bit<6>(h, w);
  add_fifth_bit<7>(h, w);
}

static inline void look_up(const int8_t* table, Int* w) {
  METE_UNROLL
  for (int g = 0; g < 8; ++g) w[g] = lookup(table, w[g]);
}

/// What a type's unpacked weights need: log2 of the zero point (-1: none), a minimum or not, the kind of sum.
template <int kZero, bool kHasMin, Sum kKind>
struct Traits {
  static constexpr int kZeroShift = kZero;
  static constexpr bool kMin = kHasMin;
  static constexpr Sum kSum = kVnni ? Sum::kUnsigned : kKind;  // immaterial with VNNI
};

// Each type: bytes of a panel block, its traits, and its fields as vectors.
struct Q4_0 {
  using Tile = Traits<3, false, Sum::kUnsigned>;
  static constexpr int kBytes = 18 * 16;
  static inline Float scale(const uint8_t* block, int vec) { return load_halves(block + 2 * kLanes * vec); }
  static inline Float min(const uint8_t*, int) { return zero_float(); }
  static inline void weights(const uint8_t* block, int vec, Int* w) { load_nibbles(block + 32, vec, w); }
};
struct Q4_1 : Q4_0 {
  using Tile = Traits<-1, true, Sum::kUnsigned>;
  static constexpr int kBytes = 20 * 16;
  static inline Float min(const uint8_t* block, int vec) {
    return load_halves(block + 32 + 2 * kLanes * vec);
  }
  static inline void weights(const uint8_t* block, int vec, Int* w) { load_nibbles(block + 64, vec, w); }
};
struct Q5_0 : Q4_0 {
  using Tile = Traits<4, false, Sum::kUnsigned>;
  static constexpr int kBytes = 22 * 16;
  static inline void weights(const uint8_t* block, int vec, Int* w) { load_fives(block + 32, vec, w); }
};
struct Q5_1 : Q4_1 {
  using Tile = Traits<-1, true, Sum::kUnsigned>;
  static constexpr int kBytes = 24 * 16;
  static inline void weights(const uint8_t* block, int vec, Int* w) { load_fives(block + 64, vec, w); }
};
struct Q8_0 : Q4_0 {
  using Tile = Traits<kVnni ? 7 : -1, false, Sum::kSigned>;
  static constexpr int kBytes = 34 * 16;
  static inline void weights(const uint8_t* block, int vec, Int* w) {
    METE_UNROLL
    for (int g = 0; g < 8; ++g) {
      w[g] = load(block + 32 + 64 * g + 4 * kLanes * vec);
      if constexpr (kVnni) w[g] = bit_xor(w[g], bytes(0x80));
    }
  }
};
struct IQ4_NL : Q4_0 {
  using Tile = Traits<kVnni ? 7 : -1, false, Sum::kSigned>;
  static inline void weights(const uint8_t* block, int vec, Int* w) {
    load_nibbles(block + 32, vec, w);
    look_up(kVnni ? kIq4NlUnsigned : kIq4NlValues, w);
  }
};
struct MXFP4 : Q4_0 {
  using Tile = Traits<4, false, Sum::kUnsigned>;
  static constexpr int kBytes = 17 * 16;
  static inline Float scale(const uint8_t* block, int vec) { return load_exponents(block + kLanes * vec); }
  static inline void weights(const uint8_t* block, int vec, Int* w) {
    load_nibbles(block + 16, vec, w);
    look_up(kMxfp4Unsigned, w);
  }
};

/// -zero point * sum of the half block's activations: where a dot product starts.
template <class Tile>
static inline Int start(const uint8_t* sum) {
  if constexpr (Tile::kZeroShift < 0)
    return zero();
  else
    return sub32(zero(), shift_left32(broadcast32(sum), Tile::kZeroShift));
}

/// The running integer sum of one vector and token over half a block.
template <class Tile>
struct Dot {
  Int total;
  Int narrow;  // int16 sums; unused with VNNI
  inline void begin(Int first) {
    total = first;
    if constexpr (!kVnni) narrow = zero();
  }
  /// Adds group kGroup of four: w the weights, a the broadcast activations.
  template <int kGroup>
  inline void add(Int w, Int a) {
#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)
    total = dot4(total, w, a);
#else
    if constexpr (Tile::kSum == Sum::kSigned) {
      total = add32(total, pair_sums(maddubs(magnitude8(w), with_sign8(a, w))));
    } else {
      narrow = add16(narrow, maddubs(w, a));
      if constexpr (kGroup == 3) total = add32(total, pair_sums(narrow));
    }
#endif
  }
};

/// Where the activations of a tile of tokens are: first token, row stride, offsets of d, s and sum.
struct Tokens {
  const uint8_t* q;
  const uint8_t* d;
  const uint8_t* s;
  const uint8_t* sum;
  size_t stride;
};

static inline Tokens tokens_at(const GemmArgs& args, const Q32Offsets& at, int64_t token, int64_t block) {
  const uint8_t* row = args.acts + static_cast<size_t>(token) * args.act_stride;
  return {row + 32 * block, row + at.d + 8 * block, row + at.s + 4 * block, row + at.sum + 8 * block,
          args.act_stride};
}

// Weights of kTileVectors vectors, unpacked: per block 8 groups of kTileVectors vectors, then scales, then
// minimums.
constexpr int kVectorBytes = 4 * kLanes;
constexpr int kTileRow = kTileVectors * kVectorBytes;
template <class Tile>
constexpr int kTileBlock = (Tile::kMin ? 10 : 9) * kTileRow;

/// Blocks that are unpacked at a time: 110 KB of the second-level cache, and few enough passes over `out`.
constexpr int64_t kChunkBlocks = 96;

template <class Type>
static void unpack_vector(const uint8_t* panel, int vec, int64_t blocks, uint8_t* tile) {
  for (int64_t b = 0; b < blocks; ++b) {
    Int w[8];
    Type::weights(panel, vec, w);
    METE_UNROLL
    for (int g = 0; g < 8; ++g) store(tile + g * kTileRow, w[g]);
    store_float(tile + 8 * kTileRow, Type::scale(panel, vec));
    if constexpr (Type::Tile::kMin) store_float(tile + 9 * kTileRow, Type::min(panel, vec));
    panel += Type::kBytes;
    tile += kTileBlock<typename Type::Tile>;
  }
}

/// Group kGroup (four elements) of half a block of the tile: kTileVectors x kTokens products.
template <class Tile, int kTokens, int kGroup>
static inline void add_group(const uint8_t* weights, const uint8_t* q, size_t stride,
                             Dot<Tile> (&dots)[kTileVectors][kTokens]) {
  Int w[kTileVectors];
  METE_UNROLL
  for (int v = 0; v < kTileVectors; ++v) w[v] = load(weights + kGroup * kTileRow + v * kVectorBytes);
  METE_UNROLL
  for (int t = 0; t < kTokens; ++t) {
    const Int a = broadcast32(q + static_cast<size_t>(t) * stride + 4 * kGroup);
    METE_UNROLL
    for (int v = 0; v < kTileVectors; ++v) dots[v][t].template add<kGroup>(w[v], a);
  }
}

/// Adds half a block: `weights` are its four groups, `scales` the block's, q, d and sum the first token's.
template <class Tile, int kTokens>
static inline void add_half(const uint8_t* weights, const uint8_t* scales, const uint8_t* q, const uint8_t* d,
                            const uint8_t* sum, size_t stride, Float (&acc)[kTileVectors][kTokens]) {
  Dot<Tile> dots[kTileVectors][kTokens];
  METE_UNROLL
  for (int t = 0; t < kTokens; ++t) {
    const Int begin = start<Tile>(sum + static_cast<size_t>(t) * stride);
    METE_UNROLL
    for (int v = 0; v < kTileVectors; ++v) dots[v][t].begin(begin);
  }
  add_group<Tile, kTokens, 0>(weights, q, stride, dots);
  add_group<Tile, kTokens, 1>(weights, q, stride, dots);
  add_group<Tile, kTokens, 2>(weights, q, stride, dots);
  add_group<Tile, kTokens, 3>(weights, q, stride, dots);
  METE_UNROLL
  for (int t = 0; t < kTokens; ++t) {
    const Float factor = broadcast_float(d + static_cast<size_t>(t) * stride);
    METE_UNROLL
    for (int v = 0; v < kTileVectors; ++v) {
      const Float scale = mul(load_float(scales + v * kVectorBytes), factor);
      acc[v][t] = fma(scale, to_float(dots[v][t].total), acc[v][t]);
    }
  }
}

/// kTileVectors vectors x kTokens tokens over `blocks` unpacked blocks, continuing from `out` unless `first`.
template <class Tile, int kTokens>
static void multiply_tile(const uint8_t* tile, int64_t blocks, Tokens act, bool first, float* out,
                          int64_t out_stride, const Mask* masks) {
  Float acc[kTileVectors][kTokens];
  METE_UNROLL
  for (int v = 0; v < kTileVectors; ++v) {
    METE_UNROLL
    for (int t = 0; t < kTokens; ++t) {
      acc[v][t] = first ? zero_float() : load_out(out + t * out_stride + v * kLanes, masks[v]);
    }
  }
  for (int64_t b = 0; b < blocks; ++b) {
    const uint8_t* scales = tile + 8 * kTileRow;
    add_half<Tile>(tile, scales, act.q + 32 * b, act.d + 8 * b, act.sum + 8 * b, act.stride, acc);
    add_half<Tile>(tile + 4 * kTileRow, scales, act.q + 32 * b + 16, act.d + 8 * b + 4, act.sum + 8 * b + 4,
                   act.stride, acc);
    if constexpr (Tile::kMin) {
      METE_UNROLL
      for (int t = 0; t < kTokens; ++t) {
        const Float s = broadcast_float(act.s + static_cast<size_t>(t) * act.stride + 4 * b);
        METE_UNROLL
        for (int v = 0; v < kTileVectors; ++v) {
          acc[v][t] = fma(load_float(tile + 9 * kTileRow + v * kVectorBytes), s, acc[v][t]);
        }
      }
    }
    tile += kTileBlock<Tile>;
  }
  METE_UNROLL
  for (int v = 0; v < kTileVectors; ++v) {
    METE_UNROLL
    for (int t = 0; t < kTokens; ++t) store_out(out + t * out_stride + v * kLanes, masks[v], acc[v][t]);
  }
}

/// The same for any number of tokens up to kTokens.
template <class Tile, int kTokens>
static void multiply_some(int64_t tokens, const uint8_t* tile, int64_t blocks, const Tokens& act, bool first,
                          float* out, int64_t out_stride, const Mask* masks) {
  if constexpr (kTokens > 1) {
    if (tokens < kTokens) {
      multiply_some<Tile, kTokens - 1>(tokens, tile, blocks, act, first, out, out_stride, masks);
      return;
    }
  }
  multiply_tile<Tile, kTokens>(tile, blocks, act, first, out, out_stride, masks);
}

/// Many tokens: kTileVectors vectors at a time, unpacked chunk by chunk. Where the last panel has no partner
/// it is unpacked twice, and the mask hides the second result.
template <class Type>
static void multiply_panels(const GemmArgs& args, const Q32Offsets& at, int64_t panel) {
  const int64_t n = panel * 16, blocks = args.cols / 32;
  const int64_t last = args.panel_end * 16 < args.rows ? args.panel_end * 16 : args.rows;
  Mask masks[kTileVectors];
  METE_UNROLL
  for (int v = 0; v < kTileVectors; ++v) masks[v] = lane_mask(last - n - v * kLanes);
  for (int64_t begin = 0; begin < blocks; begin += kChunkBlocks) {
    const int64_t count = blocks - begin < kChunkBlocks ? blocks - begin : kChunkBlocks;
    METE_UNROLL
    for (int v = 0; v < kTileVectors; ++v) {
      const int64_t from = panel + v / kVectors < args.panel_end ? panel + v / kVectors : panel;
      const uint8_t* source = args.panels + static_cast<size_t>(from) * args.panel_stride;
      unpack_vector<Type>(source + begin * Type::kBytes, v % kVectors, count,
                          args.scratch + v * kVectorBytes);
    }
    for (int64_t t = 0; t < args.tokens; t += kTileTokens) {
      multiply_some<typename Type::Tile, kTileTokens>(
          args.tokens - t, args.scratch, count, tokens_at(args, at, t, begin), begin == 0,
          args.out + t * args.out_stride + n, args.out_stride, masks);
    }
  }
}

constexpr int kPrefetchAhead = 8192;  // bytes, in the order of the panels

/// Few tokens: straight from the packed panel.
template <class Type, int kTokens>
static void multiply_direct(const uint8_t* panel, int64_t blocks, Tokens act, float* out, int64_t out_stride,
                            const Mask* masks) {
  Float acc[kVectors][kTokens];
  METE_UNROLL
  for (int v = 0; v < kVectors; ++v) {
    METE_UNROLL
    for (int t = 0; t < kTokens; ++t) acc[v][t] = zero_float();
  }
  for (int64_t b = 0; b < blocks; ++b) {
    METE_UNROLL
    for (int i = 0; i < Type::kBytes; i += 64) {
      _mm_prefetch(reinterpret_cast<const char*>(panel) + kPrefetchAhead + i, _MM_HINT_T0);
    }
    METE_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      Int w[8];
      Type::weights(panel, v, w);
      METE_UNROLL
      for (int t = 0; t < kTokens; ++t) {
        const size_t row = static_cast<size_t>(t) * act.stride;
        METE_UNROLL
        for (int half = 0; half < 2; ++half) {
          const uint8_t* q = act.q + row + 32 * b + 16 * half;
          const Int* weights = w + 4 * half;
          Dot<typename Type::Tile> dot;
          dot.begin(start<typename Type::Tile>(act.sum + row + 8 * b + 4 * half));
          dot.template add<0>(weights[0], broadcast32(q));
          dot.template add<1>(weights[1], broadcast32(q + 4));
          dot.template add<2>(weights[2], broadcast32(q + 8));
          dot.template add<3>(weights[3], broadcast32(q + 12));
          const Float scale = mul(Type::scale(panel, v), broadcast_float(act.d + row + 8 * b + 4 * half));
          acc[v][t] = fma(scale, to_float(dot.total), acc[v][t]);
        }
        if constexpr (Type::Tile::kMin) {
          acc[v][t] = fma(Type::min(panel, v), broadcast_float(act.s + row + 4 * b), acc[v][t]);
        }
      }
    }
    panel += Type::kBytes;
  }
  METE_UNROLL
  for (int v = 0; v < kVectors; ++v) {
    METE_UNROLL
    for (int t = 0; t < kTokens; ++t) store_out(out + t * out_stride + v * kLanes, masks[v], acc[v][t]);
  }
}

template <class Type, int kTokens>
static void multiply_few(const GemmArgs& args, const Q32Offsets& at) {
  if constexpr (kTokens > 1) {
    if (args.tokens < kTokens) return multiply_few<Type, kTokens - 1>(args, at);
  }
  for (int64_t panel = args.panel_begin; panel < args.panel_end; ++panel) {
    Mask masks[kVectors];
    METE_UNROLL
    for (int v = 0; v < kVectors; ++v) masks[v] = lane_mask(args.rows - panel * 16 - v * kLanes);
    multiply_direct<Type, kTokens>(args.panels + static_cast<size_t>(panel) * args.panel_stride,
                                   args.cols / 32, tokens_at(args, at, 0, 0), args.out + panel * 16,
                                   args.out_stride, masks);
  }
}

template <class Type>
static void gemm(const GemmArgs& args) {
  const Q32Offsets at = q32_offsets(args.cols);
  if (args.tokens <= kDirectTokens) return multiply_few<Type, kDirectTokens>(args, at);
  for (int64_t panel = args.panel_begin; panel < args.panel_end; panel += kTileVectors / kVectors) {
    multiply_panels<Type>(args, at, panel);
  }
}

/// 64 elements: four scales at a time, and two sums for the minimums.
static inline void quantize64(const float* x, uint8_t* q, uint8_t* d_out, uint8_t* s_out, uint8_t* sum_out) {
  const __m128 nan = _mm_castsi128_ps(_mm_set1_epi32(0x7fc00000));
  __m128i largest =
      reduce4<max32>(magnitudes16(x), magnitudes16(x + 16), magnitudes16(x + 32), magnitudes16(x + 48));
  const __m128i wild = _mm_cmpgt_epi32(largest, _mm_set1_epi32(0x7f7fffff));  // NaN or infinite
  float finite[64];
  if (_mm_movemask_epi8(wild) != 0) {
    int32_t zeroed[4];
    _mm_storeu_si128(reinterpret_cast<__m128i*>(zeroed), wild);
    for (int i = 0; i < 64; ++i) finite[i] = zeroed[i / 16] != 0 ? 0.0f : x[i];
    largest = _mm_andnot_si128(wild, largest);
    x = finite;
  }
  const __m128 amax = _mm_castsi128_ps(largest), top = _mm_set1_ps(127.0f);
  const __m128 large = _mm_cmpge_ps(amax, _mm_set1_ps(kQuantizeFloor));
  __m128 d = _mm_and_ps(_mm_div_ps(amax, top), large);
  float inverse[4];
  _mm_storeu_ps(inverse, _mm_and_ps(_mm_div_ps(top, amax), large));
  const __m128i sum =
      reduce4<add32>(quantize16(x, inverse[0], q), quantize16(x + 16, inverse[1], q + 16),
                     quantize16(x + 32, inverse[2], q + 32), quantize16(x + 48, inverse[3], q + 48));
  d = _mm_blendv_ps(d, nan, _mm_castsi128_ps(wild));
  const __m128 y = _mm_cvtepi32_ps(sum);
  const __m128 first = _mm_mul_ps(d, y);
  __m128 s = _mm_fmadd_ps(_mm_movehdup_ps(d), _mm_movehdup_ps(y), first);  // lanes 0 and 2
  s = _mm_blendv_ps(s, nan, _mm_cmpunord_ps(s, s));
  _mm_storeu_ps(reinterpret_cast<float*>(d_out), d);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(sum_out), sum);
  _mm_storel_epi64(reinterpret_cast<__m128i*>(s_out), _mm_shuffle_epi32(_mm_castps_si128(s), 0x08));
}

/// An odd last block is taken with 32 zeros; the padding of the row's arrays has room for them.
static void quantize(const float* x, int64_t cols, uint8_t* row) {
  const Q32Offsets at = q32_offsets(cols);
  for (int64_t i = 0; i < cols; i += 64) {
    const float* from = x + i;
    float padded[64];
    if (cols - i < 64) {
      memset(padded, 0, sizeof padded);
      memcpy(padded, from, 32 * 4);
      from = padded;
    }
    quantize64(from, row + i, row + at.d + i / 4, row + at.s + i / 8, row + at.sum + i / 4);
  }
}
