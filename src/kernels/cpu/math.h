// Elementary functions on sixteen floats; the same bits on every tier. Errors: docs/numerics.md.
#pragma once

#include "kernels/cpu/vec.h"

namespace mete {
namespace {

/// exp(x), within 1 ulp; 0 for x <= -104, infinity for x >= 88.73, subnormal results rounded once.
inline F16 exp(F16 x) {
  x = min(set1(89.0f), max(set1(-104.0f), x));
  const F16 magic = set1(0x1.8p23f);
  const F16 n = sub(fma(x, set1(0x1.715476p0f), magic), magic);
  F16 r = fma(n, set1(-0x1.62e4p-1f), x);
  r = fma(n, set1(-0x1.7f7d1cp-20f), r);
  F16 p = set1(0x1.6a2314p-10f);
  p = fma(p, r, set1(0x1.123a8ep-7f));
  p = fma(p, r, set1(0x1.5558f6p-5f));
  p = fma(p, r, set1(0x1.555490p-3f));
  p = fma(p, r, set1(0x1.fffffcp-2f));
  return scale_pow2(add(fma(p, mul(r, r), r), set1(1.0f)), n);
}

/// x / (1 + exp(-x))
inline F16 silu(F16 x) { return div(x, add(set1(1.0f), exp(sub(zero(), x)))); }

/// x / (1 + exp(-2u)), u = sqrt(2/pi) (x + 0.044715 x^3): the tanh form of GELU.
inline F16 gelu(F16 x) {
  const F16 inner = fma(mul(set1(0.044715f), mul(x, x)), x, x);
  return div(x, add(set1(1.0f), exp(mul(set1(-1.5957691216057308f), inner))));
}

/// tanh(x), within 2 ulp.
inline F16 tanh(F16 x) {
  const F16 a = abs(x), x2 = mul(x, x);
  F16 p = set1(-0.0057049785f);
  p = fma(p, x2, set1(0.020639079f));
  p = fma(p, x2, set1(-0.05373971f));
  p = fma(p, x2, set1(0.13331442f));
  p = fma(p, x2, set1(-0.3333328f));
  const F16 small = fma(mul(p, x2), x, x);
  const F16 two = set1(2.0f), one = set1(1.0f);
  const F16 large = sub(one, div(two, add(exp(mul(two, a)), one)));
  return select(less(a, set1(0.625f)), small, copy_sign(large, x));
}

}  // namespace
}  // namespace mete
