// The executable definition of the 32-block matmul and its activation quantiser (docs/numerics.md).
#include <cmath>
#include <cstring>

#include "base/half.h"
#include "kernels/cpu/gemm_q32.h"

namespace mete {
namespace {

constexpr uint32_t kCanonicalNan = 0x7fc00000u;

float half_at(const uint8_t* p, int lane) {
  Half h;
  std::memcpy(&h.bits, p + 2 * lane, 2);
  return to_float(h);
}

/// Low nibbles of vector v are elements 4v.., high nibbles elements 16 + 4v.. (quant/pack_q32.cpp).
int nibble(const uint8_t* quants, int lane, int element) {
  const int k = element % 16;
  const uint8_t byte = quants[k / 4 * 64 + lane * 4 + k % 4];
  return element < 16 ? byte & 15 : byte >> 4;
}

int fifth_bit(const uint8_t* high, int lane, int element) {
  return ((high[lane * 4 + element % 4] >> (element / 4)) & 1) << 4;
}

// Each type: bytes of a panel block, and the scale, minimum and integer value of an element of a lane.
struct Q4_0 {
  static constexpr int kBytes = 18 * 16;
  static constexpr bool kMin = false;
  static float scale(const uint8_t* block, int lane) { return half_at(block, lane); }
  static float min(const uint8_t*, int) { return 0; }
  static int value(const uint8_t* block, int lane, int e) { return nibble(block + 32, lane, e) - 8; }
};
struct Q4_1 : Q4_0 {
  static constexpr int kBytes = 20 * 16;
  static constexpr bool kMin = true;
  static float min(const uint8_t* block, int lane) { return half_at(block + 32, lane); }
  static int value(const uint8_t* block, int lane, int e) { return nibble(block + 64, lane, e); }
};
struct Q5_0 : Q4_0 {
  static constexpr int kBytes = 22 * 16;
  static int value(const uint8_t* block, int lane, int e) {
    return nibble(block + 96, lane, e) + fifth_bit(block + 32, lane, e) - 16;
  }
};
struct Q5_1 : Q4_1 {
  static constexpr int kBytes = 24 * 16;
  static int value(const uint8_t* block, int lane, int e) {
    return nibble(block + 128, lane, e) + fifth_bit(block + 64, lane, e);
  }
};
struct Q8_0 : Q4_0 {
  static constexpr int kBytes = 34 * 16;
  static int value(const uint8_t* block, int lane, int e) {
    return static_cast<int8_t>(block[32 + e / 4 * 64 + lane * 4 + e % 4]);
  }
};
struct IQ4_NL : Q4_0 {
  static int value(const uint8_t* block, int lane, int e) {
    return kIq4NlValues[nibble(block + 32, lane, e)];
  }
};
struct MXFP4 : Q4_0 {
  static constexpr int kBytes = 17 * 16;
  static float scale(const uint8_t* block, int lane) { return std::ldexp(1.0f, block[lane] - 128); }
  static int value(const uint8_t* block, int lane, int e) {
    return kMxfp4Values[nibble(block + 16, lane, e)];
  }
};

/// One output: the row is cols/32 blocks of 32 values with their scales and minimums.
template <bool kMin>
float dot_row(const int8_t* values, const float* scales, const float* mins, const uint8_t* act,
              const Q32Offsets& at, int64_t blocks) {
  float acc = 0.0f;
  for (int64_t b = 0; b < blocks; ++b) {
    for (int64_t half = 2 * b; half < 2 * b + 2; ++half) {
      int32_t dot = 0;
      for (int64_t e = half * 16; e < half * 16 + 16; ++e) {
        dot += values[e] * static_cast<int8_t>(act[e]);
      }
      float d;
      std::memcpy(&d, act + at.d + half * 4, 4);
      const float scale = scales[b] * d;
      acc = std::fmaf(scale, static_cast<float>(dot), acc);
    }
    if (kMin) {
      float s;
      std::memcpy(&s, act + at.s + b * 4, 4);
      acc = std::fmaf(mins[b], s, acc);
    }
  }
  return acc;
}

template <class Type>
void gemm(const GemmArgs& args) {
  const int64_t blocks = args.cols / 32;
  const Q32Offsets at = q32_offsets(args.cols);
  float* scales = reinterpret_cast<float*>(args.scratch);
  float* mins = scales + blocks;
  int8_t* values = reinterpret_cast<int8_t*>(mins + blocks);
  for (int64_t n = args.panel_begin * 16; n < args.panel_end * 16 && n < args.rows; ++n) {
    const uint8_t* panel = args.panels + static_cast<size_t>(n / 16) * args.panel_stride;
    const int lane = static_cast<int>(n % 16);
    for (int64_t b = 0; b < blocks; ++b) {
      const uint8_t* block = panel + b * Type::kBytes;
      scales[b] = Type::scale(block, lane);
      mins[b] = Type::min(block, lane);
      for (int e = 0; e < 32; ++e) values[b * 32 + e] = static_cast<int8_t>(Type::value(block, lane, e));
    }
    for (int64_t t = 0; t < args.tokens; ++t) {
      const uint8_t* act = args.acts + static_cast<size_t>(t) * args.act_stride;
      float y = dot_row<Type::kMin>(values, scales, mins, act, at, blocks);
      if (y != y) std::memcpy(&y, &kCanonicalNan, 4);
      args.out[t * args.out_stride + n] = y;
    }
  }
}

}  // namespace

void gemm_q4_0_generic(const GemmArgs& args) noexcept { gemm<Q4_0>(args); }
void gemm_q4_1_generic(const GemmArgs& args) noexcept { gemm<Q4_1>(args); }
void gemm_q5_0_generic(const GemmArgs& args) noexcept { gemm<Q5_0>(args); }
void gemm_q5_1_generic(const GemmArgs& args) noexcept { gemm<Q5_1>(args); }
void gemm_q8_0_generic(const GemmArgs& args) noexcept { gemm<Q8_0>(args); }
void gemm_iq4_nl_generic(const GemmArgs& args) noexcept { gemm<IQ4_NL>(args); }
void gemm_mxfp4_generic(const GemmArgs& args) noexcept { gemm<MXFP4>(args); }

void quantize_q8_16_generic(const float* x, int64_t cols, uint8_t* row) noexcept {
  const Q32Offsets at = q32_offsets(cols);
  for (int64_t b = 0; b < cols / 16; ++b) {
    uint32_t largest = 0;  // as integers, magnitudes order like the floats and non-finite ones come last
    for (int i = 0; i < 16; ++i) {
      uint32_t bits;
      std::memcpy(&bits, x + b * 16 + i, 4);
      bits &= 0x7fffffffu;
      if (bits > largest) largest = bits;
    }
    float amax, d = 0.0f, inverse = 0.0f;
    std::memcpy(&amax, &largest, 4);
    const bool finite = largest < 0x7f800000u;
    if (finite && amax >= kQuantizeFloor) {
      d = amax / 127.0f;
      inverse = 127.0f / amax;
    }
    int32_t sum = 0;
    for (int i = 0; i < 16; ++i) {
      // Adding and subtracting 1.5 * 2^23 rounds to nearest even; the product is at most 127.00002 in size.
      const float y = finite ? x[b * 16 + i] * inverse : 0.0f;
      int32_t q = static_cast<int32_t>((y + 0x1.8p23f) - 0x1.8p23f);
      q = q > 127 ? 127 : q < -127 ? -127 : q;
      row[b * 16 + i] = static_cast<uint8_t>(q);
      sum += q;
    }
    if (!finite) std::memcpy(&d, &kCanonicalNan, 4);
    std::memcpy(row + at.d + b * 4, &d, 4);
    std::memcpy(row + at.sum + b * 4, &sum, 4);
  }
  for (int64_t b = 0; b < cols / 32; ++b) {
    float d[2];
    int32_t sum[2];
    std::memcpy(d, row + at.d + b * 8, 8);
    std::memcpy(sum, row + at.sum + b * 8, 8);
    const float first = d[0] * static_cast<float>(sum[0]);
    float s = std::fmaf(d[1], static_cast<float>(sum[1]), first);
    if (s != s) std::memcpy(&s, &kCanonicalNan, 4);
    std::memcpy(row + at.s + b * 4, &s, 4);
  }
}

}  // namespace mete
