#include "kernels/ref/dequant.h"

#include <cmath>
#include <cstring>
#include <limits>

#include "base/error.h"

namespace mete {
namespace {

int bits(const uint8_t* bytes, int first, int count) {
  int value = 0;
  for (int i = 0; i < count; ++i) value |= (bytes[(first + i) / 8] >> ((first + i) % 8) & 1) << i;
  return value;
}

/// IEEE binary16 from its fields.
double half(const uint8_t* p) {
  const int sign = bits(p, 15, 1), exponent = bits(p, 10, 5), mantissa = bits(p, 0, 10);
  double value = exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
  if (exponent == 31) value = mantissa == 0 ? HUGE_VAL : std::numeric_limits<double>::quiet_NaN();
  return sign != 0 ? -value : value;
}

/// Nibble of element i of a 32-block: elements 0..15 are the low nibbles, 16..31 the high ones.
int nibble(const uint8_t* qs, int i) { return i < 16 ? qs[i] % 16 : qs[i - 16] / 16; }

double iq4(int code) {
  constexpr int kValues[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
  return kValues[code];
}

/// E2M1: sign, two exponent bits of bias 1, one mantissa bit.
double e2m1(int code) {
  const int exponent = code / 2 % 4, mantissa = code % 2;
  const double value = exponent == 0 ? 0.5 * mantissa : std::ldexp(1.0 + 0.5 * mantissa, exponent - 1);
  return code >= 8 ? -value : value;
}

/// Scale (which = 0) or minimum (which = 1) of sub-block j of Q4_K and Q5_K: 6 bits each, packed in 12 bytes.
int packed_6bit(const uint8_t* sc, int j, int which) {
  if (j < 4) return sc[4 * which + j] % 64;
  const int low = which == 0 ? sc[4 + j] % 16 : sc[4 + j] / 16;
  return low + 16 * (sc[4 * which + j - 4] / 64);
}

double q2_k(const uint8_t* b, int e) {
  const int h = e / 128, s = e / 32 % 4, p = e % 32, i = e / 16;
  const int q = bits(b + 16 + 32 * h + p, 2 * s, 2);
  return half(b + 80) * (b[i] % 16) * q - half(b + 82) * (b[i] / 16);
}

double q3_k(const uint8_t* b, int e) {
  const int h = e / 128, s = e / 32 % 4, p = e % 32, i = e / 16;
  const int q = bits(b + 32 + 32 * h + p, 2 * s, 2) + 4 * bits(b + p, 4 * h + s, 1) - 4;
  const uint8_t* sc = b + 96;
  const int scale = (i < 8 ? sc[i] % 16 : sc[i - 8] / 16) + 16 * bits(sc + 8 + i % 4, 2 * (i / 4), 2);
  return half(b + 108) * (scale - 32) * q;
}

double q4_k(const uint8_t* b, int e) {
  const int j = e / 32, byte = b[16 + 32 * (j / 2) + e % 32];
  const int q = j % 2 == 0 ? byte % 16 : byte / 16;
  return half(b) * packed_6bit(b + 4, j, 0) * q - half(b + 2) * packed_6bit(b + 4, j, 1);
}

double q5_k(const uint8_t* b, int e) {
  const int j = e / 32, byte = b[48 + 32 * (j / 2) + e % 32];
  const int q = (j % 2 == 0 ? byte % 16 : byte / 16) + 16 * bits(b + 16 + e % 32, j, 1);
  return half(b) * packed_6bit(b + 4, j, 0) * q - half(b + 2) * packed_6bit(b + 4, j, 1);
}

double q6_k(const uint8_t* b, int e) {
  const int h = e / 128, t = e / 32 % 4, l = e % 32, byte = b[64 * h + 32 * (t % 2) + l];
  const int q = (t < 2 ? byte % 16 : byte / 16) + 16 * bits(b + 128 + 32 * h + l, 2 * t, 2) - 32;
  int8_t scale;
  std::memcpy(&scale, b + 192 + e / 16, 1);
  return half(b + 208) * scale * q;
}

double iq4_xs(const uint8_t* b, int e) {
  const int i = e / 32;
  const int scale = bits(b + 4, 4 * i, 4) + 16 * bits(b + 2, 2 * i, 2);
  return half(b) * (scale - 32) * iq4(nibble(b + 8 + 16 * i, e % 32));
}

/// Value of element e of the block at b.
double element(DType type, const uint8_t* b, int e) {
  switch (type) {
    case DType::kF32: {
      float x;
      std::memcpy(&x, b, 4);
      return static_cast<double>(x);
    }
    case DType::kBF16: {
      const uint8_t widened[4] = {0, 0, b[0], b[1]};
      float x;
      std::memcpy(&x, widened, 4);
      return static_cast<double>(x);
    }
    case DType::kF16:
      return half(b);
    case DType::kQ4_0:
      return half(b) * (nibble(b + 2, e) - 8);
    case DType::kQ4_1:
      return half(b) * nibble(b + 4, e) + half(b + 2);
    case DType::kQ5_0:
      return half(b) * (nibble(b + 6, e) + 16 * bits(b + 2, e, 1) - 16);
    case DType::kQ5_1:
      return half(b) * (nibble(b + 8, e) + 16 * bits(b + 4, e, 1)) + half(b + 2);
    case DType::kQ8_0:
      return half(b) * (b[2 + e] < 128 ? b[2 + e] : b[2 + e] - 256);
    case DType::kIQ4_NL:
      return half(b) * iq4(nibble(b + 2, e));
    case DType::kMXFP4:
      return std::ldexp(e2m1(nibble(b + 1, e)), b[0] - 127);
    case DType::kQ2_K:
      return q2_k(b, e);
    case DType::kQ3_K:
      return q3_k(b, e);
    case DType::kQ4_K:
      return q4_k(b, e);
    case DType::kQ5_K:
      return q5_k(b, e);
    case DType::kQ6_K:
      return q6_k(b, e);
    case DType::kIQ4_XS:
      return iq4_xs(b, e);
  }
  METE_CHECK(!"a supported type");
  return 0.0;
}

}  // namespace

void dequantize_row_ref(DType type, const uint8_t* source, double* out, int64_t n) {
  const DTypeInfo& geometry = info(type);
  METE_CHECK(n % geometry.block == 0);
  for (int64_t i = 0; i < n; ++i) {
    out[i] =
        element(type, source + i / geometry.block * geometry.bytes, static_cast<int>(i % geometry.block));
  }
}

}  // namespace mete
