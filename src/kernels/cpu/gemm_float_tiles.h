// Matmul with float weights for the SIMD tiers, written once over V, the tier's vector of 16 floats:
//   V::zero(), load(const float*), load_f16 / load_bf16(const uint8_t*), fma(w, const float* x, acc) with x
//   broadcast, load_part(const float*, lanes), store(float*), store_part(float*, lanes) (NaN: canonical),
//   kTokens, kPanels: register tile; kNarrowPanels: panels of the tile for at most 3 tokens.
// V is local to its tier file, so every instantiation is too.
#pragma once

#include <immintrin.h>

#include "kernels/cpu/matmul.h"
#include "kernels/cpu/simd_unroll.h"

namespace mete {

struct F32Weights {
  static constexpr int kBytes = 4;
  template <typename V>
  static V load(const uint8_t* p) {
    return V::load(reinterpret_cast<const float*>(p));
  }
};
struct F16Weights {
  static constexpr int kBytes = 2;
  template <typename V>
  static V load(const uint8_t* p) {
    return V::load_f16(p);
  }
};
struct Bf16Weights {
  static constexpr int kBytes = 2;
  template <typename V>
  static V load(const uint8_t* p) {
    return V::load_bf16(p);
  }
};

template <typename V>
struct FloatGemm {
  static constexpr int kRows = 16;
  static constexpr int64_t kChunk = 2048;  // k per pass: two panels of it fit L2 beside the activations

  struct Tile {
    const uint8_t* weights[V::kNarrowPanels];  // panels at the first k of the pass
    const uint8_t* acts;                       // first token at the first k
    size_t act_stride;
    float* out;  // first token, first row of the first panel
    int64_t out_stride;
    int64_t depth;                // k of the pass
    int lanes[V::kNarrowPanels];  // rows of each panel that exist; 0: the panel repeats the last one
    bool first;                   // start from zero instead of from out
  };

  template <typename W, int P, int T>
  static void tile(const Tile& a) {
    V acc[T][P];
    METE_UNROLL
    for (int t = 0; t < T; ++t) {
      METE_UNROLL
      for (int p = 0; p < P; ++p)
        acc[t][p] = a.first ? V::zero() : V::load_part(a.out + t * a.out_stride + p * kRows, a.lanes[p]);
    }
    const uint8_t* w[P];
    METE_UNROLL
    for (int p = 0; p < P; ++p) w[p] = a.weights[p];
    const uint8_t* x = a.acts;
    for (int64_t k = 0; k < a.depth; ++k) {
      V wk[P];
      METE_UNROLL
      for (int p = 0; p < P; ++p) {
        wk[p] = W::template load<V>(w[p]);
        if constexpr (T <= 3) _mm_prefetch(reinterpret_cast<const char*>(w[p]) + 2048, _MM_HINT_T0);
        w[p] += kRows * W::kBytes;
      }
      METE_UNROLL
      for (int t = 0; t < T; ++t) {
        const auto* xt = reinterpret_cast<const float*>(x + static_cast<size_t>(t) * a.act_stride);
        METE_UNROLL
        for (int p = 0; p < P; ++p) acc[t][p] = V::fma(wk[p], xt, acc[t][p]);
      }
      x += sizeof(float);
    }
    METE_UNROLL
    for (int t = 0; t < T; ++t) {
      METE_UNROLL
      for (int p = 0; p < P; ++p) {
        float* out = a.out + t * a.out_stride + p * kRows;
        if (a.lanes[p] == kRows) {
          acc[t][p].store(out);
        } else if (a.lanes[p] > 0) {
          acc[t][p].store_part(out, a.lanes[p]);
        }
      }
    }
  }

  /// Tokens [0, T') of the tile, T' <= T.
  template <typename W, int P, int T>
  static void tile_tokens(const Tile& a, int64_t tokens) {
    if (tokens >= T) {
      tile<W, P, T>(a);
    } else if constexpr (T > 1) {
      tile_tokens<W, P, T - 1>(a, tokens);
    }
  }

  template <typename W, int P, int T>
  static void pass(Tile a, int64_t tokens) {
    for (int64_t t = 0; t < tokens; t += T) {
      tile_tokens<W, P, T>(a, tokens - t);
      a.acts += a.act_stride * T;
      a.out += a.out_stride * T;
    }
  }

  /// One group of P panels from panel p; the last group of the call may be short.
  template <typename W, int P>
  static Tile group(const GemmArgs& g, int64_t p) {
    Tile a;
    for (int i = 0; i < V::kNarrowPanels; ++i) {
      const int64_t q = i < P && p + i < g.panel_end ? p + i : g.panel_end - 1;
      const int64_t left = g.rows - q * kRows;
      a.weights[i] = g.panels + static_cast<size_t>(q) * g.panel_stride;
      a.lanes[i] = i >= P || q != p + i ? 0 : left < kRows ? static_cast<int>(left) : kRows;
    }
    a.acts = g.acts;
    a.act_stride = g.act_stride;
    a.out = g.out + p * kRows;
    a.out_stride = g.out_stride;
    a.depth = g.cols;
    a.first = true;
    return a;
  }

  template <typename W>
  static void gemm(const GemmArgs& g) {
    if (g.tokens <= 3) {
      for (int64_t p = g.panel_begin; p < g.panel_end; p += V::kNarrowPanels)
        pass<W, V::kNarrowPanels, 3>(group<W, V::kNarrowPanels>(g, p), g.tokens);
      return;
    }
    constexpr int P = V::kPanels;
    for (int64_t p = g.panel_begin; p < g.panel_end; p += P) {
      const Tile whole = group<W, P>(g, p);
      for (int64_t k = 0; k < g.cols; k += kChunk) {
        Tile a = whole;
        a.first = k == 0;
        a.depth = g.cols - k < kChunk ? g.cols - k : kChunk;
        a.acts += static_cast<size_t>(k) * sizeof(float);
        for (int i = 0; i < P; ++i) {
          a.weights[i] += static_cast<size_t>(k) * kRows * W::kBytes;
          if (W::kBytes != 4) a.weights[i] = widen<W>(a.weights[i], a.depth, g.scratch, i);
        }
        pass<F32Weights, P, V::kTokens>(a, g.tokens);
      }
    }
  }

  /// Writes depth k of a panel as float32 into slot i of scratch; returns them.
  template <typename W>
  static const uint8_t* widen(const uint8_t* weights, int64_t depth, uint8_t* scratch, int i) {
    auto* to = reinterpret_cast<float*>(scratch) + i * kChunk * kRows;
    if (depth < kChunk) to = reinterpret_cast<float*>(scratch) + i * depth * kRows;
    for (int64_t k = 0; k < depth; ++k)
      W::template load<V>(weights + static_cast<size_t>(k) * kRows * W::kBytes).store(to + k * kRows);
    return reinterpret_cast<const uint8_t*>(to);
  }
};

}  // namespace mete
