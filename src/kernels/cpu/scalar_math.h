// Scalar elementary functions in double, the same bits everywhere (no libm): for tables and statistics.
// Errors are a few units in the last place of double. Arguments outside the stated range give garbage of
// finite time, never undefined behaviour.
#pragma once

#include <stdint.h>
#include <string.h>

namespace mete {
namespace {

inline double double_from_bits(uint64_t bits) {
  double x;
  memcpy(&x, &bits, 8);
  return x;
}
inline uint64_t bits_from_double(double x) {
  uint64_t bits;
  memcpy(&bits, &x, 8);
  return bits;
}

constexpr double kInverseFactorial[20] = {1.0,
                                          1.0,
                                          1.0 / 2,
                                          1.0 / 6,
                                          1.0 / 24,
                                          1.0 / 120,
                                          1.0 / 720,
                                          1.0 / 5040,
                                          1.0 / 40320,
                                          1.0 / 362880,
                                          1.0 / 3628800,
                                          1.0 / 39916800,
                                          1.0 / 479001600,
                                          1.0 / 6227020800,
                                          1.0 / 87178291200,
                                          1.0 / 1307674368000,
                                          1.0 / 20922789888000,
                                          1.0 / 355687428096000,
                                          1.0 / 6402373705728000,
                                          1.0 / 121645100408832000};

/// Nearest integer for |x| < 2^51, ties to even.
inline double round_even(double x) { return (x + 0x1.8p52) - 0x1.8p52; }

/// exp(x); 0 below -745, infinity above 709.8; results below 2^-1022 are rounded twice.
inline double exp_double(double x) {
  if (x != x) return x;
  if (x > 709.8) return double_from_bits(0x7ff0000000000000u);
  if (x < -745.2) return 0.0;
  const double n = round_even(x * 0x1.71547652b82fep0);
  double r = __builtin_fma(n, -0x1.62e42fefa39efp-1, x);
  r = __builtin_fma(n, -0x1.abc9e3b39803fp-56, r);
  double p = kInverseFactorial[14];  // Taylor: |r| < 0.347 leaves 3e-19
  for (int k = 13; k >= 0; --k) p = __builtin_fma(p, r, kInverseFactorial[k]);
  const int e = static_cast<int>(n), e1 = e / 2, e2 = e - e1;
  return p * double_from_bits(static_cast<uint64_t>(e1 + 1023) << 52) *
         double_from_bits(static_cast<uint64_t>(e2 + 1023) << 52);
}

/// Natural logarithm; -infinity at 0, NaN below.
inline double log_double(double x) {
  if (x != x || x < 0.0) return double_from_bits(0x7ff8000000000000u);
  if (x == 0.0) return double_from_bits(0xfff0000000000000u);
  if (bits_from_double(x) == 0x7ff0000000000000u) return x;
  int e = 0;
  if (x < 0x1p-1022) {
    x *= 0x1p54;
    e = -54;
  }
  uint64_t bits = bits_from_double(x);
  e += static_cast<int>(bits >> 52) - 1023;
  double m = double_from_bits((bits & 0xfffffffffffffu) | 0x3ff0000000000000u);  // [1, 2)
  if (m > 1.4142135623730951) {
    m *= 0.5;
    e += 1;
  }
  const double s = (m - 1.0) / (m + 1.0), s2 = s * s;  // |s| < 0.1716
  double p = 0.0;
  for (int k = 25; k >= 3; k -= 2) p = __builtin_fma(p, s2, 1.0 / k);
  const double tail = 2.0 * s * s2 * p;
  return __builtin_fma(e, 0x1.62e42fefa39efp-1, __builtin_fma(e, 0x1.abc9e3b39803fp-56, tail) + 2.0 * s);
}

/// base^exponent for base > 0.
inline double pow_double(double base, double exponent) { return exp_double(exponent * log_double(base)); }

struct SinCos {
  double sin, cos;
};

/// Sine and cosine for |x| <= 2^22 radians: pi/2 in three parts, products exact by FMA.
inline SinCos sin_cos(double x) {
  const double n = round_even(x * 0x1.45f306dc9c883p-1);
  double r = __builtin_fma(n, -0x1.921fb54442d18p0, x);
  r = __builtin_fma(n, -0x1.1a62633145c07p-54, r);
  r = __builtin_fma(n, 0x1.f1976b7ed8fbcp-110, r);
  const double r2 = r * r;
  double s = 0.0, c = 0.0;
  for (int k = 9; k >= 0; --k) {  // Taylor: |r| <= pi/4 leaves 1e-18
    const double sign = (k & 1) != 0 ? -1.0 : 1.0;
    c = __builtin_fma(c, r2, sign * kInverseFactorial[2 * k]);
    if (k > 0) s = __builtin_fma(s, r2, sign * kInverseFactorial[2 * k + 1]);
  }
  s = __builtin_fma(s * r2, r, r);
  switch (static_cast<int64_t>(n) & 3) {
    case 0:
      return {s, c};
    case 1:
      return {c, -s};
    case 2:
      return {-s, -c};
    default:
      return {-c, s};
  }
}

}  // namespace
}  // namespace mete
