// Matmul with 256-element super-block weights: the definition (docs/numerics.md). Activations have a scale d
// per 32 elements. For each 32 in ascending order,
//   sub-blocks of 32:  acc = fma((d_w * S) * d, dot, acc)      dot = sum of q_w * q_a
//   sub-blocks of 16:  acc = fma(d_w * d, isum, acc)           isum = S * dot of the first + S * dot of the
//   second
// and then, for types with a minimum, for each sub-block acc = fma(-(dmin_w * M), d * (sum of q_a), acc).
// Integers are exact. So are d_w * S and dmin_w * M: 11 bits times at most 8. A NaN result is the canonical
// quiet NaN.
//
// Bounds, with |q_a| <= 127 for 32 activations, so sum |q_a| <= 4064 < 2^12:
//   Q2_K    q 0..3, S 0..15:              |isum| <= 3 * 15 * 4064 < 2^18
//   Q3_K    q -4..3, S -32..31:           |isum| <= 4 * 32 * 4064 < 2^19
//   Q4_K    q 0..15:                      |dot| <= 15 * 4064 < 2^16
//   Q5_K    q 0..31:                      |dot| <= 31 * 4064 < 2^17
//   Q6_K    q -32..31, S -128..127:       |isum| <= 32 * 128 * 4064 < 2^24
//   IQ4_XS  q -127..113:                  |dot| <= 127 * 4064 < 2^19
// All are exact in float32. SIMD tiers use unsigned weights q + zero point, at most 241, and folded ones
// (q times S), at most 252: their partial sums stay below 252 * 4064 < 2^20.
#include <bit>
#include <cmath>
#include <cstring>

#include "base/half.h"
#include "kernels/cpu/gemm_k.h"
#include "quant/activation.h"
#include "quant/pack.h"

namespace mete {
namespace {

constexpr int kBlock = 256, kScaled = 32;  // elements with a weight scale d, with an activation scale

/// One super-block of 16 rows, decoded.
struct Block {
  int16_t q[kBlock][kPanelRows];
  int32_t scale[16][kPanelRows];
  int32_t min[16][kPanelRows];
  float d[kPanelRows], dmin[kPanelRows];
};

float half_at(const uint8_t* p) {
  uint16_t bits;
  std::memcpy(&bits, p, 2);
  return to_float(Half{bits});
}

void decode_q2_k(const uint8_t* p, int lane, Block& b) {
  for (int j = 0; j < 16; ++j) {
    b.scale[j][lane] = p[j] & 15;
    b.min[j][lane] = p[j] >> 4;
  }
  for (int k = 0; k < kBlock; ++k) {
    const int h = k / 128, s = k / 32 % 4;
    b.q[k][lane] = static_cast<int16_t>((p[16 + 32 * h + k % 32] >> (2 * s)) & 3);
  }
  b.d[lane] = half_at(p + 80);
  b.dmin[lane] = half_at(p + 82);
}

void decode_q3_k(const uint8_t* p, int lane, Block& b) {
  const uint8_t *mask = p, *qs = p + 32, *sc = p + 96;
  for (int j = 0; j < 16; ++j) {
    const int low = j < 8 ? sc[j] & 15 : sc[j - 8] >> 4, high = (sc[8 + j % 4] >> (2 * (j / 4))) & 3;
    b.scale[j][lane] = (low | high << 4) - 32;
  }
  for (int k = 0; k < kBlock; ++k) {
    const int h = k / 128, s = k / 32 % 4, p32 = k % 32;
    const int low = (qs[32 * h + p32] >> (2 * s)) & 3, high = (mask[p32] >> (4 * h + s)) & 1;
    b.q[k][lane] = static_cast<int16_t>(low + 4 * high - 4);
  }
  b.d[lane] = half_at(p + 108);
}

void decode_six_bit_scales(const uint8_t* sc, int lane, Block& b) {
  for (int j = 0; j < 4; ++j) {
    b.scale[j][lane] = sc[j] & 63;
    b.min[j][lane] = sc[j + 4] & 63;
    b.scale[j + 4][lane] = (sc[j + 8] & 15) | (sc[j] >> 6) << 4;
    b.min[j + 4][lane] = (sc[j + 8] >> 4) | (sc[j + 4] >> 6) << 4;
  }
}

int nibble_of_runs(const uint8_t* qs, int k) {
  const int byte = qs[k / 64 * 32 + k % 32];
  return k / 32 % 2 != 0 ? byte >> 4 : byte & 15;
}

void decode_q4_k(const uint8_t* p, int lane, Block& b) {
  b.d[lane] = half_at(p);
  b.dmin[lane] = half_at(p + 2);
  decode_six_bit_scales(p + 4, lane, b);
  for (int k = 0; k < kBlock; ++k) b.q[k][lane] = static_cast<int16_t>(nibble_of_runs(p + 16, k));
}

void decode_q5_k(const uint8_t* p, int lane, Block& b) {
  b.d[lane] = half_at(p);
  b.dmin[lane] = half_at(p + 2);
  decode_six_bit_scales(p + 4, lane, b);
  for (int k = 0; k < kBlock; ++k) {
    const int high = (p[16 + k % 32] >> (k / 32)) & 1;
    b.q[k][lane] = static_cast<int16_t>(nibble_of_runs(p + 48, k) + 16 * high);
  }
}

void decode_q6_k(const uint8_t* p, int lane, Block& b) {
  for (int j = 0; j < 16; ++j) b.scale[j][lane] = static_cast<int8_t>(p[192 + j]);
  for (int k = 0; k < kBlock; ++k) {
    const int h = k / 128, t = k / 32 % 4, l = k % 32;
    const int byte = p[64 * h + 32 * (t % 2) + l], low = t < 2 ? byte & 15 : byte >> 4;
    const int high = (p[128 + 32 * h + l] >> (2 * t)) & 3;
    b.q[k][lane] = static_cast<int16_t>(low + 16 * high - 32);
  }
  b.d[lane] = half_at(p + 208);
}

void decode_iq4_xs(const uint8_t* p, int lane, Block& b) {
  static constexpr int8_t kValues[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                         1,    13,   25,  38,  53,  69,  89,  113};
  b.d[lane] = half_at(p);
  const int high = p[2] | p[3] << 8;
  for (int j = 0; j < 8; ++j)
    b.scale[j][lane] = (((p[4 + j / 2] >> (4 * (j % 2))) & 15) | ((high >> (2 * j)) & 3) << 4) - 32;
  for (int k = 0; k < kBlock; ++k) {
    const int byte = p[8 + k / 32 * 16 + k % 16];
    b.q[k][lane] = kValues[k / 16 % 2 != 0 ? byte >> 4 : byte & 15];
  }
}

struct Type {
  DType dtype;
  void (*decode)(const uint8_t* block, int lane, Block& b);
  int subs;  // sub-blocks
  bool has_min;
};

/// Adds one super-block of one token to its 16 sums.
void add_block(const Type& type, const Block& w, const int8_t* q, const int16_t* sums, const float* d,
               float* acc) {
  const int size = kBlock / type.subs;
  for (int block = 0; block < kBlock / kScaled; ++block) {
    const int first = block * kScaled / size, end = (block + 1) * kScaled / size;
    int32_t isum[kPanelRows] = {};
    for (int j = first; j < end; ++j) {
      int32_t dot[kPanelRows] = {};
      for (int k = j * size; k < (j + 1) * size; ++k)
        for (int lane = 0; lane < kPanelRows; ++lane)
          dot[lane] += static_cast<int32_t>(w.q[k][lane]) * static_cast<int16_t>(q[k]);
      for (int lane = 0; lane < kPanelRows; ++lane)
        isum[lane] += size == kScaled ? dot[lane] : w.scale[j][lane] * dot[lane];
    }
    for (int lane = 0; lane < kPanelRows; ++lane) {
      const float d_w = size == kScaled ? w.d[lane] * static_cast<float>(w.scale[first][lane]) : w.d[lane];
      acc[lane] = std::fmaf(d_w * d[block], static_cast<float>(isum[lane]), acc[lane]);
    }
    for (int j = first; type.has_min && j < end; ++j) {
      const float sum = static_cast<float>(size == kScaled ? sums[2 * j] + sums[2 * j + 1] : sums[j]);
      for (int lane = 0; lane < kPanelRows; ++lane) {
        const float min = w.dmin[lane] * static_cast<float>(w.min[j][lane]);
        acc[lane] = std::fmaf(-min, d[block] * sum, acc[lane]);
      }
    }
  }
}

void gemm_tokens(const Type& type, const GemmArgs& a, int64_t p, int64_t first, int64_t count) {
  constexpr int64_t kTokens = 64;
  float acc[kTokens][kPanelRows] = {};
  const Q8KLayout layout(a.cols);
  const size_t row = row_bytes(type.dtype, a.cols);
  const size_t block_bytes = static_cast<size_t>(info(type.dtype).bytes);
  for (int64_t b = 0; b < a.cols / kBlock; ++b) {
    Block w;
    for (int lane = 0; lane < kPanelRows; ++lane)
      type.decode(a.scratch + static_cast<size_t>(lane) * row + static_cast<size_t>(b) * block_bytes, lane,
                  w);
    for (int64_t t = 0; t < count; ++t) {
      const uint8_t* act = a.acts + static_cast<size_t>(first + t) * a.act_stride;
      add_block(type, w, reinterpret_cast<const int8_t*>(act) + b * kBlock,
                reinterpret_cast<const int16_t*>(act + layout.sum) + b * 16,
                reinterpret_cast<const float*>(act + layout.d) + b * (kBlock / kScaled), acc[t]);
    }
  }
  const int64_t left = a.rows - p * kPanelRows, lanes = left < kPanelRows ? left : kPanelRows;
  for (int64_t t = 0; t < count; ++t)
    for (int64_t lane = 0; lane < lanes; ++lane) {
      const float sum = acc[t][lane];
      a.out[(first + t) * a.out_stride + p * kPanelRows + lane] =
          std::isnan(sum) ? std::bit_cast<float>(0x7fc00000u) : sum;
    }
}

void gemm(const Type& type, const GemmArgs& a) noexcept {
  const size_t row = row_bytes(type.dtype, a.cols);
  for (int64_t p = a.panel_begin; p < a.panel_end; ++p) {
    for (int lane = 0; lane < kPanelRows; ++lane)
      unpack_row(type.dtype, a.panels + static_cast<size_t>(p) * a.panel_stride, lane, a.cols,
                 a.scratch + static_cast<size_t>(lane) * row);
    for (int64_t t = 0; t < a.tokens; t += 64)
      gemm_tokens(type, a, p, t, a.tokens - t < 64 ? a.tokens - t : 64);
  }
}

}  // namespace

void gemm_q2_k_generic(const GemmArgs& args) noexcept { gemm({DType::kQ2_K, decode_q2_k, 16, true}, args); }
void gemm_q3_k_generic(const GemmArgs& args) noexcept { gemm({DType::kQ3_K, decode_q3_k, 16, false}, args); }
void gemm_q4_k_generic(const GemmArgs& args) noexcept { gemm({DType::kQ4_K, decode_q4_k, 8, true}, args); }
void gemm_q5_k_generic(const GemmArgs& args) noexcept { gemm({DType::kQ5_K, decode_q5_k, 8, true}, args); }
void gemm_q6_k_generic(const GemmArgs& args) noexcept { gemm({DType::kQ6_K, decode_q6_k, 16, false}, args); }
void gemm_iq4_xs_generic(const GemmArgs& args) noexcept {
  gemm({DType::kIQ4_XS, decode_iq4_xs, 8, false}, args);
}

void quantize_q8_k_generic(const float* x, int64_t cols, uint8_t* row) noexcept {
  const Q8KLayout layout(cols);
  auto* q = reinterpret_cast<int8_t*>(row);
  auto* d = reinterpret_cast<float*>(row + layout.d);
  auto* sums = reinterpret_cast<int16_t*>(row + layout.sum);
  for (int64_t b = 0; b < cols / kScaled; ++b, x += kScaled, q += kScaled, sums += 2) {
    float amax = 0;
    bool finite = true;
    for (int k = 0; k < kScaled; ++k) {
      finite = finite && std::isfinite(x[k]);
      amax = std::fabs(x[k]) > amax ? std::fabs(x[k]) : amax;
    }
    if (!finite || amax < 0x1p-120f) {
      d[b] = finite ? 0.0f : std::bit_cast<float>(0x7fc00000u);
      std::memset(q, 0, kScaled);
      std::memset(sums, 0, 4);
      continue;
    }
    d[b] = amax / 127.0f;
    const float inverse = 127.0f / amax;
    for (int j = 0; j < 2; ++j) {
      int sum = 0;
      for (int k = 16 * j; k < 16 * (j + 1); ++k) {
        const float rounded = (x[k] * inverse + 0x1.8p23f) - 0x1.8p23f;  // nearest even, |.| < 2^22
        q[k] = static_cast<int8_t>(rounded > 127.0f ? 127.0f : rounded < -127.0f ? -127.0f : rounded);
        sum += q[k];
      }
      sums[j] = static_cast<int16_t>(sum);
    }
  }
}

}  // namespace mete
