// Matmul with super-block weights for the SIMD tiers, written once over S, the tier's vector operations, and
// F, the weight format (gemm_k_formats.h). The bits are those of gemm_k_generic.cpp: the dot product of 32
// elements, an activation scale's, is exact in int32 (bounds there), and they are added in ascending order.
//
// Two ways to the same bits. Up to kNarrowLimit tokens: one panel, weights unpacked in registers, the
// speed of memory. More: two panels are unpacked into scratch, and tiles of up to kTokens tokens pass over
// them.
#pragma once

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "kernels/cpu/matmul.h"
#include "kernels/cpu/simd_unroll.h"

namespace mete {

template <typename S, typename F>
struct KGemm {
  using Int = typename S::Int;
  using Float = typename S::Float;
  static constexpr int kRows = 16, kBlock = 256, kNarrowTokens = 4, kPanels = 2;
  static constexpr int kNarrowLimit = F::kSubs == 8 ? 16 : 8;
  static constexpr int kSubs = F::kSubs;
  static constexpr int kScaled = 32, kScales = kBlock / kScaled;  // activations per scale
  static constexpr int kHalves = kSubs / kScales;                 // sub-blocks per activation scale
  static constexpr int kParts = F::kFold ? 1 : kHalves;  // separate dots per activation scale in the wide way
  static constexpr int kTokens = kParts > 1 && S::kTokens > 4 ? 4 : S::kTokens;  // a tile's; fits registers
  static constexpr int kDepth = 64;    // super-blocks per pass of the wide way: two panels of it fit L2
  static constexpr int kAhead = 8192;  // bytes that the narrow way prefetches ahead
  // One unpacked super-block of one panel in scratch, byte offsets: groups of weights in order of k; scales
  // of sub-blocks, float d * S if of 32 elements, else int32 S; float dmin * M of sub-blocks; float d.
  static constexpr int kScaleAt = 4096, kMinAt = kScaleAt + 64 * kSubs;
  static constexpr int kDAt = kMinAt + (F::kMin ? 64 * kSubs : 0), kUnpacked = kDAt + 64;

  /// What a super-block of one activation row contributes besides its int8 values and scales.
  struct Sums {
    int32_t start[kSubs];  // -kZero * sum over the sub-block; folded: kFoldedZero * sum over each 32
    float scaled[kSubs];   // d * sum over the sub-block
  };

  static const uint8_t* tail(const uint8_t* panel, int64_t blocks, int64_t b) {
    return panel + blocks * F::kBody + b * 32;
  }

  static void read_sums(const uint8_t* sums16, const float* d8, bool folded, Sums* s) {
    const __m256i sums = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(sums16));
    if constexpr (F::kMin) {
      const __m256 d = _mm256_loadu_ps(d8);
      if constexpr (kSubs == 16) {
        const __m256i lo = _mm256_cvtepi16_epi32(_mm256_castsi256_si128(sums));
        const __m256i hi = _mm256_cvtepi16_epi32(_mm256_extracti128_si256(sums, 1));
        const __m256 d_lo = _mm256_permutevar8x32_ps(d, _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3));
        const __m256 d_hi = _mm256_permutevar8x32_ps(d, _mm256_setr_epi32(4, 4, 5, 5, 6, 6, 7, 7));
        _mm256_storeu_ps(s->scaled, _mm256_mul_ps(d_lo, _mm256_cvtepi32_ps(lo)));
        _mm256_storeu_ps(s->scaled + 8, _mm256_mul_ps(d_hi, _mm256_cvtepi32_ps(hi)));
      } else {
        const __m256i eight = _mm256_madd_epi16(sums, _mm256_set1_epi16(1));
        _mm256_storeu_ps(s->scaled, _mm256_mul_ps(d, _mm256_cvtepi32_ps(eight)));
      }
    }
    auto* start = reinterpret_cast<__m256i*>(s->start);
    if constexpr (F::kFold) {
      if (folded) {
        if constexpr (F::kFoldedZero != 0)
          _mm256_storeu_si256(start, _mm256_madd_epi16(sums, _mm256_set1_epi16(F::kFoldedZero)));
        return;
      }
    }
    if constexpr (F::kZero != 0) {
      if constexpr (kSubs == 16) {
        const __m256i factor = _mm256_set1_epi32(-F::kZero & 0xffff);  // beside a zero in each pair of int16
        _mm256_storeu_si256(start,
                            _mm256_madd_epi16(_mm256_cvtepu16_epi32(_mm256_castsi256_si128(sums)), factor));
        _mm256_storeu_si256(
            start + 1, _mm256_madd_epi16(_mm256_cvtepu16_epi32(_mm256_extracti128_si256(sums, 1)), factor));
      } else {
        _mm256_storeu_si256(start, _mm256_madd_epi16(sums, _mm256_set1_epi16(-F::kZero)));
      }
    }
  }

  /// acc + (d_w * d) * isum for one token and panel.
  static Float add_dot(Float acc, Float d_w, const float* d, Int isum) {
    return S::fma(S::mul_float(d_w, S::set_float(*d)), S::to_float(isum), acc);
  }

  struct Acts {  // of the first token of a tile, at the first super-block of a pass
    const uint8_t *q, *d, *sums;
    size_t stride;
    const float* d_at(int t, int64_t b) const {
      return reinterpret_cast<const float*>(d + static_cast<size_t>(t) * stride) + b * kScales;
    }
    const uint8_t* sums_at(int t, int64_t b) const { return sums + static_cast<size_t>(t) * stride + b * 32; }
  };
  static Acts acts_at(const GemmArgs& g, int64_t token, int64_t b) {
    const size_t cols = static_cast<size_t>(g.cols);
    const size_t d = (cols + 63) / 64 * 64, sums = d + (cols / kScaled * 4 + 63) / 64 * 64;
    const uint8_t* row = g.acts + static_cast<size_t>(token) * g.act_stride;
    return {row + b * kBlock, row + d + b * kScales * 4, row + sums + b * 32, g.act_stride};
  }

  template <int T>
  static void narrow(const GemmArgs& g, int64_t p, int64_t first) {
    constexpr int kLocal = F::kParts / F::kShare;
    const uint8_t* panel = g.panels + static_cast<size_t>(p) * g.panel_stride;
    const int64_t blocks = g.cols / kBlock;
    const Acts acts = acts_at(g, first, 0);
    Float acc[T];
    METE_UNROLL
    for (int t = 0; t < T; ++t) acc[t] = S::zero_float();
    prefetch_tail(panel + g.panel_stride, blocks);
    for (int64_t b = 0; b < blocks; ++b) {
      const uint8_t* body = panel + b * F::kBody;
      alignas(64) uint8_t buffer[256];
      const uint8_t* scales = F::scales(body, buffer);
      alignas(64) uint8_t mins[256];
      if constexpr (F::kMin) F::mins(body, mins);
      Sums sums[T];
      METE_UNROLL
      for (int t = 0; t < T; ++t) read_sums(acts.sums_at(t, b), acts.d_at(t, b), false, &sums[t]);
      const Float d = F::d(body, tail(panel, blocks, b));
      Int isum[kScales][T];
      if constexpr (kHalves > 1) {
        METE_UNROLL
        for (int j = 0; j < kScales; ++j) {
          METE_UNROLL
          for (int t = 0; t < T; ++t) isum[j][t] = S::zero();
        }
      }
      for (int c = 0; c < F::kChunks; ++c) {  // rolled: slower from memory when unrolled
        Int inner[kLocal][T];
        METE_UNROLL
        for (int j = 0; j < kLocal; ++j) {
          METE_UNROLL
          for (int t = 0; t < T; ++t)
            inner[j][t] = F::kZero == 0 ? S::zero() : S::set(sums[t].start[F::sub(c, j * F::kShare)]);
        }
        METE_UNROLL
        for (int i = 0; i < F::kSteps; ++i) {
          Int w[F::kParts];
          F::load(body, c, i, w);
          METE_UNROLL
          for (int n = 0; n < F::kParts; ++n) {
            METE_UNROLL
            for (int t = 0; t < T; ++t) {
              const uint8_t* q = acts.q + static_cast<size_t>(t) * acts.stride + b * kBlock + F::k(c, i, n);
              inner[n / F::kShare][t] = S::template dot<F::kMax>(inner[n / F::kShare][t], w[n], group(q));
            }
          }
        }
        prefetch(body + kAhead, c);
        METE_UNROLL
        for (int j = 0; j < kLocal; ++j) {
          const int sub = F::sub(c, j * F::kShare);
          METE_UNROLL
          for (int t = 0; t < T; ++t) {
            Int& sum = isum[sub / kHalves][t];
            if constexpr (kHalves == 1) {
              sum = inner[j][t];
            } else {
              sum = S::add(sum, S::mul(inner[j][t], S::load_i8(scales + 16 * sub)));
            }
          }
        }
      }
      for (int j = 0; j < kScales; ++j) {
        const Float d_w = kHalves == 1 ? S::mul_float(d, S::to_float(S::load_i8(scales + 16 * j))) : d;
        METE_UNROLL
        for (int t = 0; t < T; ++t) acc[t] = add_dot(acc[t], d_w, acts.d_at(t, b) + j, isum[j][t]);
        if constexpr (F::kMin) {
          METE_UNROLL
          for (int sub = j * kHalves; sub < (j + 1) * kHalves; ++sub) {
            const Float min = S::mul_float(F::dmin(body), S::to_float(S::load_u8(mins + 16 * sub)));
            METE_UNROLL
            for (int t = 0; t < T; ++t) acc[t] = S::fnma(min, S::set_float(sums[t].scaled[sub]), acc[t]);
          }
        }
      }
    }
    const int lanes = lanes_of(g, p);
    METE_UNROLL
    for (int t = 0; t < T; ++t) S::store_part(g.out + (first + t) * g.out_stride + p * kRows, lanes, acc[t]);
  }

  /// Asks for chunk c's share of the super-block body at p.
  static void prefetch(const uint8_t* p, int c) {
    constexpr int kShareBytes = F::kBody / F::kChunks;
    for (int line = 0; line < kShareBytes; line += 64)
      _mm_prefetch(reinterpret_cast<const char*>(p) + kShareBytes * c + line, _MM_HINT_T0);
  }

  /// Asks for the d of a panel where they lie apart from its super-blocks.
  static void prefetch_tail(const uint8_t* panel, int64_t blocks) {
    if constexpr (F::kTail) {
      for (int64_t at = 0; at < blocks * 32; at += 64)
        _mm_prefetch(reinterpret_cast<const char*>(tail(panel, blocks, 0)) + at, _MM_HINT_T0);
    }
  }

  static float* floats(uint8_t* p) { return reinterpret_cast<float*>(p); }
  static const float* floats(const uint8_t* p) { return reinterpret_cast<const float*>(p); }

  static Int group(const uint8_t* q) {
    int32_t four;
    memcpy(&four, q, 4);
    return S::set(four);
  }

  static int lanes_of(const GemmArgs& g, int64_t p) {
    const int64_t left = g.rows - p * kRows;
    return left < kRows ? static_cast<int>(left) : kRows;
  }

  /// Super-block b of a panel into `to` (kUnpacked bytes).
  static void unpack(const uint8_t* panel, int64_t blocks, int64_t b, uint8_t* to) {
    const uint8_t* body = panel + b * F::kBody;
    alignas(64) uint8_t buffer[256];
    const uint8_t* scales = F::scales(body, buffer);
    const Float d = F::d(body, tail(panel, blocks, b));
    S::store_float(floats(to + kDAt), d);
    for (int j = 0; j < kSubs; ++j) {
      const Int scale = S::load_i8(scales + 16 * j);
      if constexpr (kHalves == 1) {
        S::store_float(floats(to + kScaleAt + 64 * j), S::mul_float(d, S::to_float(scale)));
      } else {
        S::store(to + kScaleAt + 64 * j, scale);
      }
    }
    if constexpr (F::kMin) {
      alignas(64) uint8_t mins[256];
      F::mins(body, mins);
      const Float dmin = F::dmin(body);
      for (int j = 0; j < kSubs; ++j)
        S::store_float(floats(to + kMinAt + 64 * j),
                       S::mul_float(dmin, S::to_float(S::load_u8(mins + 16 * j))));
    }
    for (int c = 0; c < F::kChunks; ++c) {
      for (int i = 0; i < F::kSteps; ++i) {
        Int w[F::kParts];
        F::load(body, c, i, w);
        METE_UNROLL
        for (int n = 0; n < F::kParts; ++n) {
          if constexpr (F::kFold) w[n] = F::fold(w[n], S::load(to + kScaleAt + 64 * F::sub(c, n)));
          S::store(to + F::k(c, i, n) * kRows, w[n]);
        }
      }
    }
  }

  struct Pass {
    const uint8_t* weights[kPanels];  // unpacked super-blocks
    Acts acts;
    float* out;  // first token of the tile, first row of the first panel
    int64_t out_stride;
    int depth;                     // super-blocks
    int lanes[kPanels];            // 0: the panel does not exist and repeats the other
    bool first;                    // start from zero instead of from out
    const uint8_t* next[kPanels];  // packed super-blocks of the next pass, asked for piece by piece:
    int64_t next_at, next_bytes;   // at offset next_at, so many bytes per super-block of this tile
  };

  template <int T>
  static void wide(const Pass& a) {
    Float acc[T][kPanels];
    METE_UNROLL
    for (int t = 0; t < T; ++t) {
      METE_UNROLL
      for (int p = 0; p < kPanels; ++p)
        acc[t][p] =
            a.first ? S::zero_float() : S::load_part(a.out + t * a.out_stride + p * kRows, a.lanes[p]);
    }
    constexpr int kGroups = 8 / kParts;
    for (int b = 0; b < a.depth; ++b) {
      Sums sums[T];
      METE_UNROLL
      for (int t = 0; t < T; ++t) read_sums(a.acts.sums_at(t, b), a.acts.d_at(t, b), F::kFold, &sums[t]);
      const uint8_t* w[kPanels];
      METE_UNROLL
      for (int p = 0; p < kPanels; ++p) w[p] = a.weights[p] + b * kUnpacked;
      for (int64_t at = a.next_at + b * a.next_bytes, end = at + a.next_bytes; at < end; at += 64) {
        METE_UNROLL
        for (int p = 0; p < kPanels; ++p)
          _mm_prefetch(reinterpret_cast<const char*>(a.next[p]) + at, _MM_HINT_T0);
      }
      const uint8_t* q = a.acts.q + b * kBlock;
      for (int j = 0; j < kScales; ++j) {
        Int isum[T][kPanels];
        METE_UNROLL
        for (int h = 0; h < kParts; ++h) {
          const int sub = j * kParts + h;
          Int inner[T][kPanels];
          METE_UNROLL
          for (int t = 0; t < T; ++t) {
            METE_UNROLL
            for (int p = 0; p < kPanels; ++p)
              inner[t][p] = F::kFold || F::kZero == 0 ? S::zero() : S::set(sums[t].start[sub]);
          }
          METE_UNROLL
          for (int i = 0; i < kGroups; ++i) {
            Int wi[kPanels];
            METE_UNROLL
            for (int p = 0; p < kPanels; ++p) wi[p] = S::load(w[p] + 64 * (sub * kGroups + i));
            METE_UNROLL
            for (int t = 0; t < T; ++t) {
              const Int x = group(q + static_cast<size_t>(t) * a.acts.stride + 4 * (sub * kGroups + i));
              METE_UNROLL
              for (int p = 0; p < kPanels; ++p) inner[t][p] = S::template dot<F::kMax>(inner[t][p], wi[p], x);
            }
          }
          METE_UNROLL
          for (int p = 0; p < kPanels; ++p) {
            METE_UNROLL
            for (int t = 0; t < T; ++t) {
              if constexpr (kParts == 1) {
                isum[t][p] = inner[t][p];
              } else {
                const Int part = S::mul(inner[t][p], S::load(w[p] + kScaleAt + 64 * sub));
                isum[t][p] = h == 0 ? part : S::add(isum[t][p], part);
              }
            }
          }
        }
        METE_UNROLL
        for (int p = 0; p < kPanels; ++p) {
          const Float d_w = S::load_float(floats(w[p] + (kHalves == 1 ? kScaleAt + 64 * j : kDAt)));
          METE_UNROLL
          for (int t = 0; t < T; ++t) {
            if constexpr (F::kFold) {
              if constexpr (F::kFoldedNegated) isum[t][p] = S::sub(S::set(sums[t].start[j]), isum[t][p]);
            }
            acc[t][p] = add_dot(acc[t][p], d_w, a.acts.d_at(t, b) + j, isum[t][p]);
            if constexpr (F::kMin) {
              METE_UNROLL
              for (int h = 0; h < kHalves; ++h) {
                const int sub = j * kHalves + h;
                const Float min = S::load_float(floats(w[p] + kMinAt + 64 * sub));
                acc[t][p] = S::fnma(min, S::set_float(sums[t].scaled[sub]), acc[t][p]);
              }
            }
          }
        }
      }
    }
    METE_UNROLL
    for (int t = 0; t < T; ++t) {
      METE_UNROLL
      for (int p = 0; p < kPanels; ++p)
        if (a.lanes[p] > 0) S::store_part(a.out + t * a.out_stride + p * kRows, a.lanes[p], acc[t][p]);
    }
  }

  template <int T>
  static void wide_tokens(const Pass& a, int64_t tokens) {
    if (tokens >= T) {
      wide<T>(a);
    } else if constexpr (T > 1) {
      wide_tokens<T - 1>(a, tokens);
    }
  }

  template <int T>
  static void narrow_tokens(const GemmArgs& g, int64_t p, int64_t first) {
    if (g.tokens - first >= T) {
      narrow<T>(g, p, first);
    } else if constexpr (T > 1) {
      narrow_tokens<T - 1>(g, p, first);
    }
  }

  static void gemm(const GemmArgs& g) {
    if (g.tokens <= kNarrowLimit) {
      for (int64_t p = g.panel_begin; p < g.panel_end; ++p)
        for (int64_t t = 0; t < g.tokens; t += kNarrowTokens) narrow_tokens<kNarrowTokens>(g, p, t);
      return;
    }
    const int64_t blocks = g.cols / kBlock;
    for (int64_t p = g.panel_begin; p < g.panel_end; p += kPanels) {
      for (int64_t b = 0; b < blocks; b += kDepth) {
        const Pass pass = unpack_pass(g, p, b);
        const int64_t tiles = (g.tokens + kTokens - 1) / kTokens;
        for (int64_t i = 0; i < tiles; ++i) {
          Pass a = pass;
          a.acts = acts_at(g, i * kTokens, b);
          a.out = g.out + i * kTokens * g.out_stride + p * kRows;
          a.next_bytes = F::kBody / tiles + 1;
          a.next_at = i * a.depth * a.next_bytes;
          wide_tokens<kTokens>(a, g.tokens - i * kTokens);
        }
      }
    }
  }

  /// Unpacks super-blocks b .. b + kDepth - 1 of panels p and p + 1 into scratch.
  static Pass unpack_pass(const GemmArgs& g, int64_t p, int64_t b) {
    const int64_t blocks = g.cols / kBlock;
    Pass a{};
    a.depth = blocks - b < kDepth ? static_cast<int>(blocks - b) : kDepth;
    a.first = b == 0;
    a.out_stride = g.out_stride;
    for (int i = 0; i < kPanels; ++i) {
      const bool exists = p + i < g.panel_end;
      const uint8_t* panel = g.panels + static_cast<size_t>(exists ? p + i : p) * g.panel_stride;
      a.lanes[i] = exists ? lanes_of(g, p + i) : 0;
      a.next[i] = b + kDepth < blocks ? panel + (b + kDepth) * F::kBody : panel + kPanels * g.panel_stride;
      if (b == 0) prefetch_tail(panel + kPanels * g.panel_stride, blocks);
      uint8_t* to = g.scratch + (exists ? i : 0) * a.depth * kUnpacked;
      for (int j = 0; exists && j < a.depth; ++j) unpack(panel, blocks, b + j, to + j * kUnpacked);
      a.weights[i] = to;
    }
    return a;
  }
};

}  // namespace mete
