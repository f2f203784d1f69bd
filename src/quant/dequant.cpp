#include "quant/dequant.h"

#include <bit>
#include <cstring>

#include "base/error.h"
#include "base/half.h"
#include "quant/codebooks.h"

namespace mete {
namespace {

uint16_t load_u16(const uint8_t* p) { return static_cast<uint16_t>(p[0] | (p[1] << 8)); }

uint32_t load_u32(const uint8_t* p) {
  return p[0] | (uint32_t{p[1]} << 8) | (uint32_t{p[2]} << 16) | (uint32_t{p[3]} << 24);
}

float load_half(const uint8_t* p) { return to_float(Half{load_u16(p)}); }

// One block each. `b` is the block, `y` its 32 or 256 values.

void block_q4_0(const uint8_t* b, float* y) {
  const float d = load_half(b);
  for (int j = 0; j < 16; ++j) {
    y[j] = d * static_cast<float>((b[2 + j] & 15) - 8);
    y[j + 16] = d * static_cast<float>((b[2 + j] >> 4) - 8);
  }
}

void block_q4_1(const uint8_t* b, float* y) {
  const float d = load_half(b), m = load_half(b + 2);
  for (int j = 0; j < 16; ++j) {
    y[j] = d * static_cast<float>(b[4 + j] & 15) + m;
    y[j + 16] = d * static_cast<float>(b[4 + j] >> 4) + m;
  }
}

/// The 5-bit integers of Q5_0 and Q5_1.
void unpack_5bit(const uint8_t* high, const uint8_t* low, int* q) {
  const uint32_t h = load_u32(high);
  for (int j = 0; j < 16; ++j) {
    q[j] = (low[j] & 15) | static_cast<int>((h >> j & 1u) << 4);
    q[j + 16] = (low[j] >> 4) | static_cast<int>((h >> (j + 16) & 1u) << 4);
  }
}

void block_q5_0(const uint8_t* b, float* y) {
  const float d = load_half(b);
  int q[32];
  unpack_5bit(b + 2, b + 6, q);
  for (int j = 0; j < 32; ++j) y[j] = d * static_cast<float>(q[j] - 16);
}

void block_q5_1(const uint8_t* b, float* y) {
  const float d = load_half(b), m = load_half(b + 2);
  int q[32];
  unpack_5bit(b + 4, b + 8, q);
  for (int j = 0; j < 32; ++j) y[j] = d * static_cast<float>(q[j]) + m;
}

void block_q8_0(const uint8_t* b, float* y) {
  const float d = load_half(b);
  for (int j = 0; j < 32; ++j) y[j] = d * static_cast<float>(static_cast<int8_t>(b[2 + j]));
}

void block_iq4_nl(const uint8_t* b, float* y) {
  const float d = load_half(b);
  for (int j = 0; j < 16; ++j) {
    y[j] = d * static_cast<float>(kIq4Values[b[2 + j] & 15]);
    y[j + 16] = d * static_cast<float>(kIq4Values[b[2 + j] >> 4]);
  }
}

void block_mxfp4(const uint8_t* b, float* y) {
  const float d = mxfp4_scale(b[0]);
  for (int j = 0; j < 16; ++j) {
    y[j] = d * static_cast<float>(kMxfp4Values[b[1 + j] & 15]);
    y[j + 16] = d * static_cast<float>(kMxfp4Values[b[1 + j] >> 4]);
  }
}

void block_q2_k(const uint8_t* b, float* y) {
  const uint8_t* quants = b + 16;
  const float d = load_half(b + 80), dmin = load_half(b + 82);
  for (int half = 0; half < 2; ++half) {
    for (int shift = 0; shift < 4; ++shift) {
      for (int l = 0; l < 32; ++l) {
        const uint8_t scale = b[8 * half + 2 * shift + l / 16];
        const float dl = d * static_cast<float>(scale & 15), ml = dmin * static_cast<float>(scale >> 4);
        *y++ = dl * static_cast<float>((quants[32 * half + l] >> (2 * shift)) & 3) - ml;
      }
    }
  }
}

void block_q3_k(const uint8_t* b, float* y) {
  const uint8_t *high = b, *quants = b + 32, *packed = b + 96;
  const float d = load_half(b + 108);
  for (int half = 0; half < 2; ++half) {
    for (int shift = 0; shift < 4; ++shift) {
      for (int l = 0; l < 32; ++l) {
        const int i = 8 * half + 2 * shift + l / 16;
        const int low = i < 8 ? packed[i] & 15 : packed[i - 8] >> 4;
        const int scale = (low | ((packed[8 + i % 4] >> (2 * (i / 4))) & 3) << 4) - 32;
        const int q =
            ((quants[32 * half + l] >> (2 * shift)) & 3) - ((high[l] >> (4 * half + shift) & 1) != 0 ? 0 : 4);
        *y++ = d * static_cast<float>(scale) * static_cast<float>(q);
      }
    }
  }
}

/// Six-bit scale and minimum j (0..7) of Q4_K and Q5_K.
void scale_min_k4(const uint8_t* packed, int j, int* scale, int* min) {
  if (j < 4) {
    *scale = packed[j] & 63;
    *min = packed[j + 4] & 63;
  } else {
    *scale = (packed[j + 4] & 15) | (packed[j - 4] >> 6) << 4;
    *min = (packed[j + 4] >> 4) | (packed[j] >> 6) << 4;
  }
}

void block_q4_k(const uint8_t* b, float* y) {
  const float d = load_half(b), dmin = load_half(b + 2);
  const uint8_t* quants = b + 16;
  for (int j = 0; j < 8; ++j) {
    int scale, min;
    scale_min_k4(b + 4, j, &scale, &min);
    const float dl = d * static_cast<float>(scale), ml = dmin * static_cast<float>(min);
    for (int l = 0; l < 32; ++l) {
      *y++ = dl * static_cast<float>((quants[32 * (j / 2) + l] >> (4 * (j % 2))) & 15) - ml;
    }
  }
}

void block_q5_k(const uint8_t* b, float* y) {
  const float d = load_half(b), dmin = load_half(b + 2);
  const uint8_t *high = b + 16, *quants = b + 48;
  for (int j = 0; j < 8; ++j) {
    int scale, min;
    scale_min_k4(b + 4, j, &scale, &min);
    const float dl = d * static_cast<float>(scale), ml = dmin * static_cast<float>(min);
    for (int l = 0; l < 32; ++l) {
      const int q = ((quants[32 * (j / 2) + l] >> (4 * (j % 2))) & 15) | ((high[l] >> j) & 1) << 4;
      *y++ = dl * static_cast<float>(q) - ml;
    }
  }
}

void block_q6_k(const uint8_t* b, float* y) {
  const float d = load_half(b + 208);
  for (int half = 0; half < 2; ++half) {
    const uint8_t *low = b + 64 * half, *high = b + 128 + 32 * half, *scales = b + 192 + 8 * half;
    for (int t = 0; t < 4; ++t) {
      for (int l = 0; l < 32; ++l) {
        const int nibble = (low[32 * (t % 2) + l] >> (4 * (t / 2))) & 15;
        const int q = (nibble | ((high[l] >> (2 * t)) & 3) << 4) - 32;
        *y++ = d * static_cast<float>(static_cast<int8_t>(scales[2 * t + l / 16])) * static_cast<float>(q);
      }
    }
  }
}

void block_iq4_xs(const uint8_t* b, float* y) {
  const float d = load_half(b);
  const uint16_t high = load_u16(b + 2);
  for (int i = 0; i < 8; ++i) {
    const int scale = (((b[4 + i / 2] >> (4 * (i % 2))) & 15) | ((high >> (2 * i)) & 3) << 4) - 32;
    const float dl = d * static_cast<float>(scale);
    for (int j = 0; j < 16; ++j) {
      y[32 * i + j] = dl * static_cast<float>(kIq4Values[b[8 + 16 * i + j] & 15]);
      y[32 * i + 16 + j] = dl * static_cast<float>(kIq4Values[b[8 + 16 * i + j] >> 4]);
    }
  }
}

template <void (*Block)(const uint8_t*, float*)>
void blocks(DType type, const uint8_t* source, float* out, int64_t n) {
  const DTypeInfo& geometry = info(type);
  for (int64_t i = 0; i < n; i += geometry.block, source += geometry.bytes) Block(source, out + i);
}

}  // namespace

float mxfp4_scale(uint8_t e) {
  return std::bit_cast<float>(e < 2 ? uint32_t{0x00200000} << e : static_cast<uint32_t>(e - 1) << 23);
}

void dequantize_row(DType type, const uint8_t* source, float* out, int64_t n) {
  METE_CHECK(n % info(type).block == 0);
  switch (type) {
    case DType::kF32:
      std::memcpy(out, source, static_cast<size_t>(n) * 4);
      return;
    case DType::kF16:
      for (int64_t i = 0; i < n; ++i) out[i] = load_half(source + 2 * i);
      return;
    case DType::kBF16:
      for (int64_t i = 0; i < n; ++i) out[i] = to_float(BFloat16{load_u16(source + 2 * i)});
      return;
    case DType::kQ4_0:
      return blocks<block_q4_0>(type, source, out, n);
    case DType::kQ4_1:
      return blocks<block_q4_1>(type, source, out, n);
    case DType::kQ5_0:
      return blocks<block_q5_0>(type, source, out, n);
    case DType::kQ5_1:
      return blocks<block_q5_1>(type, source, out, n);
    case DType::kQ8_0:
      return blocks<block_q8_0>(type, source, out, n);
    case DType::kQ2_K:
      return blocks<block_q2_k>(type, source, out, n);
    case DType::kQ3_K:
      return blocks<block_q3_k>(type, source, out, n);
    case DType::kQ4_K:
      return blocks<block_q4_k>(type, source, out, n);
    case DType::kQ5_K:
      return blocks<block_q5_k>(type, source, out, n);
    case DType::kQ6_K:
      return blocks<block_q6_k>(type, source, out, n);
    case DType::kIQ4_NL:
      return blocks<block_iq4_nl>(type, source, out, n);
    case DType::kIQ4_XS:
      return blocks<block_iq4_xs>(type, source, out, n);
    case DType::kMXFP4:
      return blocks<block_mxfp4>(type, source, out, n);
  }
  METE_CHECK(!"a supported type");
}

}  // namespace mete
