#include "quant/quantize.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/half.h"
#include "quant/codebooks.h"
#include "quant/dequant.h"

namespace mete {
namespace {

void store_u16(uint8_t* p, uint16_t x) {
  p[0] = static_cast<uint8_t>(x);
  p[1] = static_cast<uint8_t>(x >> 8);
}

/// Stores x rounded to float16 and returns the stored value; too large: the largest finite float16.
float store_half(uint8_t* p, float x) {
  const Half h = to_half(std::clamp(x, -65504.0f, 65504.0f));
  store_u16(p, h.bits);
  return to_float(h);
}

/// x rounded half away from zero and clamped to [low, high].
int round_clamp(float x, int low, int high) {
  if (!(x > static_cast<float>(low))) return low;
  if (x >= static_cast<float>(high)) return high;
  return static_cast<int>(std::round(x));
}

/// floor(x), for x >= 0 up to rounding, clamped to [0, high].
int floor_clamp(float x, int high) {
  if (!(x > 0.0f)) return 0;
  return x >= static_cast<float>(high) ? high : static_cast<int>(x);
}

float inverse(float d) { return d != 0.0f ? 1.0f / d : 0.0f; }

/// The first value of largest magnitude, with its sign.
float signed_extreme(const float* x, int n) {
  return *std::max_element(x, x + n, [](float a, float b) { return std::fabs(a) < std::fabs(b); });
}

int nearest(const int8_t (&values)[16], float x) {
  int best = 0;
  for (int i = 1; i < 16; ++i) {
    if (std::fabs(static_cast<float>(values[i]) - x) < std::fabs(static_cast<float>(values[best]) - x))
      best = i;
  }
  return best;
}

/// 32 values of 4 bits: the low nibbles are elements 0..15.
void pack_nibbles(const int* q, uint8_t* out) {
  for (int j = 0; j < 16; ++j) out[j] = static_cast<uint8_t>((q[j] & 15) | (q[j + 16] & 15) << 4);
}

void pack_5bit(const int* q, uint8_t* high, uint8_t* low) {
  pack_nibbles(q, low);
  std::memset(high, 0, 4);
  for (int j = 0; j < 32; ++j) high[j / 8] = static_cast<uint8_t>(high[j / 8] | (q[j] >> 4) << (j % 8));
}

/// Q4_0 and Q5_0: d = extreme / -2^(bits - 1), zero point 2^(bits - 1).
void integers_symmetric(const float* x, int half_range, float* d, int* q) {
  *d = signed_extreme(x, 32) / static_cast<float>(-half_range);
  const float id = inverse(*d), offset = static_cast<float>(half_range) + 0.5f;
  for (int j = 0; j < 32; ++j) q[j] = floor_clamp(x[j] * id + offset, 2 * half_range - 1);
}

/// Q4_1 and Q5_1: d = (max - min) / top, zero at the minimum.
void integers_affine(const float* x, int top, float* d, float* min, int* q) {
  const auto [low, high] = std::minmax_element(x, x + 32);
  *min = *low;
  *d = (*high - *low) / static_cast<float>(top);
  const float id = inverse(*d);
  for (int j = 0; j < 32; ++j) q[j] = floor_clamp((x[j] - *min) * id + 0.5f, top);
}

void block_q4_0(const float* x, uint8_t* b) {
  float d;
  int q[32];
  integers_symmetric(x, 8, &d, q);
  store_half(b, d);
  pack_nibbles(q, b + 2);
}

void block_q5_0(const float* x, uint8_t* b) {
  float d;
  int q[32];
  integers_symmetric(x, 16, &d, q);
  store_half(b, d);
  pack_5bit(q, b + 2, b + 6);
}

void block_q4_1(const float* x, uint8_t* b) {
  float d, min;
  int q[32];
  integers_affine(x, 15, &d, &min, q);
  store_half(b, d);
  store_half(b + 2, min);
  pack_nibbles(q, b + 4);
}

void block_q5_1(const float* x, uint8_t* b) {
  float d, min;
  int q[32];
  integers_affine(x, 31, &d, &min, q);
  store_half(b, d);
  store_half(b + 2, min);
  pack_5bit(q, b + 4, b + 8);
}

void block_q8_0(const float* x, uint8_t* b) {
  const float d = std::fabs(signed_extreme(x, 32)) / 127.0f, id = inverse(d);
  store_half(b, d);
  for (int j = 0; j < 32; ++j) b[2 + j] = static_cast<uint8_t>(round_clamp(x[j] * id, -127, 127));
}

void block_iq4_nl(const float* x, uint8_t* b) {
  const float id = inverse(store_half(b, signed_extreme(x, 32) / static_cast<float>(kIq4Values[0])));
  int q[32];
  for (int j = 0; j < 32; ++j) q[j] = nearest(kIq4Values, x[j] * id);
  pack_nibbles(q, b + 2);
}

void block_mxfp4(const float* x, uint8_t* b) {
  const float amax = std::fabs(signed_extreme(x, 32));
  b[0] = static_cast<uint8_t>(amax > 0.0f ? std::clamp(std::ilogb(amax) - 2 + 127, 0, 254) : 0);
  const float d = mxfp4_scale(b[0]);
  int q[32];
  for (int j = 0; j < 32; ++j) {
    q[j] = 0;
    for (int i = 1; i < 16; ++i) {
      const auto error = [&](int k) { return std::fabs(d * static_cast<float>(kMxfp4Values[k]) - x[j]); };
      if (error(i) < error(q[j])) q[j] = i;
    }
  }
  pack_nibbles(q, b + 1);
}

/// Scales and minima of the sub-blocks of Q2_K, Q4_K and Q5_K, and the integers that they give.
struct AffineSuperBlock {
  float d, dmin;  ///< as stored
  int scale[16], min[16];
  int q[256];
};

/// `size` elements per sub-block, integers 0..top, sub-scales 0..scale_top. Stores d and dmin.
AffineSuperBlock fit_affine(const float* x, int size, int top, int scale_top, uint8_t* d_out,
                            uint8_t* dmin_out) {
  AffineSuperBlock s{};
  const int count = 256 / size;
  float scales[16], mins[16];
  for (int j = 0; j < count; ++j) {
    const auto [low, high] = std::minmax_element(x + j * size, x + (j + 1) * size);
    mins[j] = -std::min(*low, 0.0f);
    scales[j] = (std::max(*high, 0.0f) + mins[j]) / static_cast<float>(top);
  }
  s.d = store_half(d_out, *std::max_element(scales, scales + count) / static_cast<float>(scale_top));
  s.dmin = store_half(dmin_out, *std::max_element(mins, mins + count) / static_cast<float>(scale_top));
  for (int j = 0; j < count; ++j) {
    s.scale[j] = round_clamp(scales[j] * inverse(s.d), 0, scale_top);
    s.min[j] = round_clamp(mins[j] * inverse(s.dmin), 0, scale_top);
    const float id = inverse(s.d * static_cast<float>(s.scale[j])), m = s.dmin * static_cast<float>(s.min[j]);
    for (int i = j * size; i < (j + 1) * size; ++i) s.q[i] = round_clamp((x[i] + m) * id, 0, top);
  }
  return s;
}

/// Scales of the sub-blocks of Q3_K, Q6_K and IQ4_XS: sub-scale j is in [-limit, limit - 1] and its
/// sub-block's extreme maps to `lowest`, the most negative integer or codebook value. Stores d, returns it.
float fit_symmetric(const float* x, int size, int lowest, int limit, int* scale, uint8_t* d_out) {
  const int count = 256 / size;
  float scales[16];
  for (int j = 0; j < count; ++j) scales[j] = signed_extreme(x + j * size, size) / static_cast<float>(lowest);
  const float d = store_half(d_out, signed_extreme(scales, count) / static_cast<float>(-limit));
  for (int j = 0; j < count; ++j) scale[j] = round_clamp(scales[j] * inverse(d), -limit, limit - 1);
  return d;
}

/// Two-bit fields of Q2_K and Q3_K, and Q3_K's high bits: element 128h + 32s + l is byte 32h + l, shift 2s.
void pack_2bit(const int* q, uint8_t* out) {
  std::memset(out, 0, 64);
  for (int i = 0; i < 256; ++i) {
    uint8_t& byte = out[32 * (i / 128) + i % 32];
    byte = static_cast<uint8_t>(byte | (q[i] & 3) << (2 * (i / 32 % 4)));
  }
}

void block_q2_k(const float* x, uint8_t* b) {
  const AffineSuperBlock s = fit_affine(x, 16, 3, 15, b + 80, b + 82);
  for (int j = 0; j < 16; ++j) b[j] = static_cast<uint8_t>(s.scale[j] | s.min[j] << 4);
  pack_2bit(s.q, b + 16);
}

void block_q3_k(const float* x, uint8_t* b) {
  int scale[16], q[256];
  const float d = fit_symmetric(x, 16, -4, 32, scale, b + 108);
  std::memset(b, 0, 32);
  std::memset(b + 96, 0, 12);
  for (int i = 0; i < 256; ++i) {
    q[i] = round_clamp(x[i] * inverse(d * static_cast<float>(scale[i / 16])), -4, 3) + 4;
    b[i % 32] = static_cast<uint8_t>(b[i % 32] | (q[i] >> 2) << (i / 32));
  }
  pack_2bit(q, b + 32);
  for (int j = 0; j < 16; ++j) {
    const int code = scale[j] + 32;
    uint8_t &low = b[96 + j % 8], &high = b[104 + j % 4];
    low = static_cast<uint8_t>(low | (code & 15) << (4 * (j / 8)));
    high = static_cast<uint8_t>(high | (code >> 4) << (2 * (j / 4)));
  }
}

/// Eight pairs of 6 bits in 12 bytes.
void pack_scales_k4(const AffineSuperBlock& s, uint8_t* out) {
  for (int j = 0; j < 4; ++j) {
    out[j] = static_cast<uint8_t>(s.scale[j] | (s.scale[j + 4] >> 4) << 6);
    out[j + 4] = static_cast<uint8_t>(s.min[j] | (s.min[j + 4] >> 4) << 6);
    out[j + 8] = static_cast<uint8_t>((s.scale[j + 4] & 15) | (s.min[j + 4] & 15) << 4);
  }
}

/// Low nibbles of Q4_K and Q5_K: element 64g + 32h + l is byte 32g + l, nibble h.
void pack_k4(const int* q, uint8_t* out) {
  for (int i = 0; i < 128; ++i) {
    const int first = 64 * (i / 32) + i % 32;
    out[i] = static_cast<uint8_t>((q[first] & 15) | (q[first + 32] & 15) << 4);
  }
}

void block_q4_k(const float* x, uint8_t* b) {
  const AffineSuperBlock s = fit_affine(x, 32, 15, 63, b, b + 2);
  pack_scales_k4(s, b + 4);
  pack_k4(s.q, b + 16);
}

void block_q5_k(const float* x, uint8_t* b) {
  const AffineSuperBlock s = fit_affine(x, 32, 31, 63, b, b + 2);
  pack_scales_k4(s, b + 4);
  std::memset(b + 16, 0, 32);
  for (int i = 0; i < 256; ++i)
    b[16 + i % 32] = static_cast<uint8_t>(b[16 + i % 32] | (s.q[i] >> 4) << (i / 32));
  pack_k4(s.q, b + 48);
}

void block_q6_k(const float* x, uint8_t* b) {
  int scale[16];
  const float d = fit_symmetric(x, 16, -32, 128, scale, b + 208);
  std::memset(b, 0, 192);
  for (int j = 0; j < 16; ++j) b[192 + j] = static_cast<uint8_t>(scale[j]);
  for (int i = 0; i < 256; ++i) {
    const int q = round_clamp(x[i] * inverse(d * static_cast<float>(scale[i / 16])), -32, 31) + 32;
    const int half = i / 128, t = i / 32 % 4, l = i % 32;
    uint8_t &low = b[64 * half + 32 * (t % 2) + l], &high = b[128 + 32 * half + l];
    low = static_cast<uint8_t>(low | (q & 15) << (4 * (t / 2)));
    high = static_cast<uint8_t>(high | (q >> 4) << (2 * t));
  }
}

void block_iq4_xs(const float* x, uint8_t* b) {
  int scale[8], q[32];
  const float d = fit_symmetric(x, 32, kIq4Values[0], 32, scale, b);
  unsigned high = 0;
  std::memset(b + 4, 0, 4);
  for (int i = 0; i < 8; ++i) {
    const int code = scale[i] + 32;
    b[4 + i / 2] = static_cast<uint8_t>(b[4 + i / 2] | (code & 15) << (4 * (i % 2)));
    high |= static_cast<unsigned>(code >> 4) << (2 * i);
    const float id = inverse(d * static_cast<float>(scale[i]));
    for (int j = 0; j < 32; ++j) q[j] = nearest(kIq4Values, x[32 * i + j] * id);
    pack_nibbles(q, b + 8 + 16 * i);
  }
  store_u16(b + 2, static_cast<uint16_t>(high));
}

template <void (*Block)(const float*, uint8_t*)>
void blocks(DType type, const float* x, uint8_t* out, int64_t n) {
  const DTypeInfo& geometry = info(type);
  for (int64_t i = 0; i < n; i += geometry.block, out += geometry.bytes) Block(x + i, out);
}

}  // namespace

void quantize_row(DType type, const float* x, uint8_t* out, int64_t n) {
  METE_CHECK(n % info(type).block == 0);
  switch (type) {
    case DType::kF32:
      std::memcpy(out, x, static_cast<size_t>(n) * 4);
      return;
    case DType::kF16:
      for (int64_t i = 0; i < n; ++i) store_half(out + 2 * i, x[i]);
      return;
    case DType::kBF16:
      for (int64_t i = 0; i < n; ++i) store_u16(out + 2 * i, to_bfloat16(x[i]).bits);
      return;
    case DType::kQ4_0:
      return blocks<block_q4_0>(type, x, out, n);
    case DType::kQ4_1:
      return blocks<block_q4_1>(type, x, out, n);
    case DType::kQ5_0:
      return blocks<block_q5_0>(type, x, out, n);
    case DType::kQ5_1:
      return blocks<block_q5_1>(type, x, out, n);
    case DType::kQ8_0:
      return blocks<block_q8_0>(type, x, out, n);
    case DType::kQ2_K:
      return blocks<block_q2_k>(type, x, out, n);
    case DType::kQ3_K:
      return blocks<block_q3_k>(type, x, out, n);
    case DType::kQ4_K:
      return blocks<block_q4_k>(type, x, out, n);
    case DType::kQ5_K:
      return blocks<block_q5_k>(type, x, out, n);
    case DType::kQ6_K:
      return blocks<block_q6_k>(type, x, out, n);
    case DType::kIQ4_NL:
      return blocks<block_iq4_nl>(type, x, out, n);
    case DType::kIQ4_XS:
      return blocks<block_iq4_xs>(type, x, out, n);
    case DType::kMXFP4:
      return blocks<block_mxfp4>(type, x, out, n);
  }
  METE_CHECK(!"a supported type");
}

}  // namespace mete
