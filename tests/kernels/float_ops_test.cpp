#include "kernels/cpu/float_ops.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "base/rng.h"
#include "kernels/cpu/scalar_math.h"
#include "kernels/cpu/table.h"

namespace mete {
namespace {

FloatKernels floats_of(CpuTier tier) {
  KernelTable table{};
  fill_floats(tier, table);
  return table.floats;
}

std::vector<float> random_floats(int64_t n, uint64_t seed, float scale) {
  std::vector<float> x(static_cast<size_t>(n));
  for (size_t i = 0; i < x.size(); ++i) {
    x[i] = scale * static_cast<float>(2.0 * random_unit(seed, i, Purpose::kTest) - 1.0);
  }
  return x;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

constexpr int64_t kLengths[] = {1, 2, 7, 15, 16, 17, 31, 33, 64, 100, 576, 1023};

/// Every function once, on n elements at a misaligned address; all results behind each other.
std::vector<float> run_all(const FloatKernels& f, int64_t n, float scale) {
  std::vector<float> a = random_floats(n + 1, 1, scale), b = random_floats(n + 1, 2, scale), all;
  std::vector<float> out(static_cast<size_t>(n));
  const auto keep = [&] { all.insert(all.end(), out.begin(), out.end()); };
  const float *x = a.data() + 1, *y = b.data() + 1;
  f.rms_norm(x, y, 1e-5f, n, out.data()), keep();
  f.rms_norm(x, nullptr, 1e-5f, n, out.data()), keep();
  f.layer_norm(x, y, x, 1e-5f, n, out.data()), keep();
  f.layer_norm(x, nullptr, nullptr, 1e-5f, n, out.data()), keep();
  f.add(x, y, n, out.data()), keep();
  f.mul(x, y, n, out.data()), keep();
  f.scale(x, 0.3f, n, out.data()), keep();
  f.silu_mul(x, y, n, out.data()), keep();
  f.gelu_mul(x, y, n, out.data()), keep();
  f.softcap(x, 7.5f, n, out.data()), keep();
  f.exp(x, n, out.data()), keep();
  const RowStats s = f.row_stats(x, n);
  all.insert(all.end(), {static_cast<float>(s.argmax), s.max, s.margin, s.log_sum_exp, s.entropy});
  const int64_t half = n / 2;
  for (bool neox : {false, true}) {
    std::vector<float> v = random_floats(3 * n, 4, scale);
    f.rope(v.data(), 3, n, x, y, half, neox);
    all.insert(all.end(), v.begin(), v.end());
  }
  return all;
}

/// As run_all, of the functions that only gemma3n needs.
std::vector<float> run_gemma3n(const FloatKernels& f, int64_t n, float scale) {
  const std::vector<float> x = random_floats(n + 1, 1, scale);
  std::vector<float> out(static_cast<size_t>(n));
  f.gaussian_topk(x.data() + 1, 0.5f, n, out.data());
  out.push_back(f.mean_square(x.data() + 1, n));
  return out;
}

uint64_t hash_of(const std::vector<float>& all) {
  uint64_t hash = 0xcbf29ce484222325u;  // FNV-1a
  for (const float x : all) hash = (hash ^ std::bit_cast<uint32_t>(x)) * 0x100000001b3u;
  return hash;
}

TEST(FloatOps, EveryTierGivesTheBitsOfGeneric) {
  const FloatKernels generic = floats_of(CpuTier::kGeneric);
  for (CpuTier tier : supported_tiers()) {
    const FloatKernels f = floats_of(tier);
    for (int64_t n : kLengths) {
      for (float scale : {0.1f, 3.0f, 60.0f, 1e4f}) {
        EXPECT_TRUE(same_bits(run_all(generic, n, scale), run_all(f, n, scale)))
            << name(tier) << " n=" << n << " scale=" << scale;
        EXPECT_TRUE(same_bits(run_gemma3n(generic, n, scale), run_gemma3n(f, n, scale)))
            << name(tier) << " n=" << n << " scale=" << scale;
      }
    }
  }
}

TEST(FloatOps, EveryTierGivesTheBitsOfGenericOverTheWholeRangeOfExpAndTanh) {
  const FloatKernels generic = floats_of(CpuTier::kGeneric);
  std::vector<float> x;
  for (uint64_t u = 0; u < (uint64_t{1} << 32); u += 65521) {  // a prime stride over all bit patterns
    const float v = std::bit_cast<float>(static_cast<uint32_t>(u));
    if (!std::isnan(v)) x.push_back(v);
  }
  const int64_t n = static_cast<int64_t>(x.size());
  std::vector<float> want(x.size()), got(x.size());
  for (CpuTier tier : supported_tiers()) {
    const FloatKernels f = floats_of(tier);
    generic.exp(x.data(), n, want.data()), f.exp(x.data(), n, got.data());
    EXPECT_TRUE(same_bits(want, got)) << name(tier);
    generic.softcap(x.data(), 1.0f, n, want.data()), f.softcap(x.data(), 1.0f, n, got.data());
    EXPECT_TRUE(same_bits(want, got)) << name(tier);
  }
}

// Ties compilers and machines together: a change of this number is a change of every model's bits.
TEST(FloatOps, TheBitsAreThoseOfEveryCompiler) {
  const FloatKernels f = floats_of(supported_tiers().back());
  EXPECT_EQ(hash_of(run_all(f, 1023, 3.0f)), 10046967436939100760u);
  EXPECT_EQ(hash_of(run_gemma3n(f, 1023, 3.0f)), 11646266775696676040u);
}

/// Distance of `got` from `want` in units of the last place of float at `want`.
double ulps(float got, double want) {
  const float nearest = static_cast<float>(want);
  const float above = std::nextafterf(std::fabs(nearest), std::numeric_limits<float>::infinity());
  return std::fabs(static_cast<double>(got) - want) / (static_cast<double>(above) - std::fabs(nearest));
}

TEST(FloatOps, ExpIsWithinOneUlp) {
  const FloatKernels f = floats_of(supported_tiers().back());
  double worst = 0.0;
  for (int i = -105000000; i < 89000000; i += 97) {
    const float x = static_cast<float>(i) * 1e-6f;
    float y;
    f.exp(&x, 1, &y);
    const double want = std::exp(static_cast<double>(x));
    if (want > 3.4028234e38) {
      EXPECT_TRUE(std::isinf(y)) << x;
    } else {
      worst = std::max(worst, ulps(y, want));
    }
  }
  EXPECT_LT(worst, 1.0);
  RecordProperty("exp_ulp", std::to_string(worst));
}

TEST(FloatOps, ExpAtItsEnds) {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  for (CpuTier tier : supported_tiers()) {
    const FloatKernels f = floats_of(tier);
    const std::vector<float> x = {-inf, -1e30f, -104.0f, -103.0f, -0.0f, 0.0f, 88.0f, 89.0f, inf, nan};
    std::vector<float> y(x.size());
    f.exp(x.data(), static_cast<int64_t>(x.size()), y.data());
    EXPECT_EQ(y[0], 0.0f);
    EXPECT_EQ(y[1], 0.0f);
    EXPECT_EQ(y[2], 0.0f);
    EXPECT_GT(y[3], 0.0f);
    EXPECT_EQ(y[4], 1.0f);
    EXPECT_EQ(y[5], 1.0f);
    EXPECT_FALSE(std::isinf(y[6]));
    EXPECT_TRUE(std::isinf(y[7]));
    EXPECT_TRUE(std::isinf(y[8]));
    EXPECT_TRUE(std::isnan(y[9]));
  }
}

TEST(FloatOps, ClampedSwigluAgreesWithDoubleOnEveryTier) {
  const int64_t n = 4001;
  std::vector<float> gate(n), up(n), want(n), got(n);
  for (size_t i = 0; i < gate.size(); ++i) {
    gate[i] = static_cast<float>(i) * 0.01f - 20.0f;
    up[i] = static_cast<float>(i * 7919 % 4001) * 0.005f - 10.0f;
  }
  gate[5] = up[7] = NAN;
  floats_of(CpuTier::kGeneric).swiglu_clamped(gate.data(), up.data(), 1.702f, 7.0f, n, want.data());
  for (size_t i = 0; i < gate.size(); ++i) {
    if (i == 5 || i == 7) {
      EXPECT_TRUE(std::isnan(want[i])) << i;
      continue;
    }
    const double g = std::min(7.0, static_cast<double>(gate[i]));
    const double u = std::clamp(static_cast<double>(up[i]), -7.0, 7.0);
    const double exact = g / (1.0 + std::exp(-static_cast<double>(1.702f) * g)) * (u + 1.0);
    EXPECT_NEAR(want[i], exact, std::fabs(exact) * 6e-8 * (6.0 + 2.0 * std::fabs(g)) + 1e-30) << gate[i];
  }
  for (CpuTier tier : supported_tiers()) {
    floats_of(tier).swiglu_clamped(gate.data(), up.data(), 1.702f, 7.0f, n, got.data());
    for (size_t i = 0; i < got.size(); ++i) {
      EXPECT_TRUE(got[i] == want[i] || (std::isnan(got[i]) && std::isnan(want[i]))) << name(tier) << ' ' << i;
    }
  }
}

TEST(FloatOps, ActivationsAgreeWithDouble) {
  const FloatKernels f = floats_of(supported_tiers().back());
  const float one = 1.0f;
  for (int i = -20000; i <= 20000; ++i) {
    const float x = static_cast<float>(i) * 1e-3f;
    const double d = x;
    float y;
    f.silu_mul(&x, &one, 1, &y);
    EXPECT_LE(ulps(y, d / (1.0 + std::exp(-d))), 2.5) << x;
    f.softcap(&x, 1.0f, 1, &y);
    EXPECT_LE(ulps(y, std::tanh(d)), 2.0) << x;
    f.gelu_mul(&x, &one, 1, &y);
    const double u = std::sqrt(2.0 / M_PI) * (d + 0.044715 * d * d * d);
    const double want = d / (1.0 + std::exp(-2.0 * u));
    // The exponent's rounding error (some half-ulps of 2u) is amplified by exp.
    EXPECT_NEAR(y, want, std::fabs(want) * 6e-8 * (4.0 + 12.0 * std::fabs(u)) + 1e-37)
        << x;  // 0 once exp overflows
  }
}

TEST(FloatOps, NormsAgreeWithDouble) {
  const FloatKernels f = floats_of(supported_tiers().back());
  for (int64_t n : kLengths) {
    const std::vector<float> x = random_floats(n, 5, 4.0f), w = random_floats(n, 6, 2.0f);
    double sum = 0.0, squares = 0.0, central = 0.0;
    for (float v : x) sum += v, squares += static_cast<double>(v) * v;
    const double count = static_cast<double>(n), mean = sum / count;
    for (float v : x) central += (v - mean) * (v - mean);
    std::vector<float> rms(x.size()), layer(x.size());
    f.rms_norm(x.data(), w.data(), 1e-5f, n, rms.data());
    f.layer_norm(x.data(), w.data(), x.data(), 1e-5f, n, layer.data());
    for (size_t i = 0; i < x.size(); ++i) {
      const double want_rms = x[i] / std::sqrt(squares / count + 1e-5) * w[i];
      const double want_layer = (x[i] - mean) / std::sqrt(central / count + 1e-5) * w[i] + x[i];
      EXPECT_NEAR(rms[i], want_rms, 1e-6 * (1.0 + std::fabs(want_rms)));
      EXPECT_NEAR(layer[i], want_layer, 1e-5 * (1.0 + std::fabs(want_layer)));
    }
  }
}

TEST(FloatOps, GaussianTopkAndMeanSquareAgreeWithDouble) {
  const FloatKernels f = floats_of(supported_tiers().back());
  for (int64_t n : kLengths) {
    const std::vector<float> x = random_floats(n, 8, 4.0f);
    double sum = 0.0, squares = 0.0, central = 0.0;
    for (float v : x) sum += v, squares += static_cast<double>(v) * v;
    const double count = static_cast<double>(n), mean = sum / count;
    for (float v : x) central += (v - mean) * (v - mean);
    EXPECT_NEAR(f.mean_square(x.data(), n), squares / count, 1e-6 * squares / count);
    for (const float multiplier : {-0.5f, 0.0f, 1.25f}) {
      std::vector<float> out(x.size());
      f.gaussian_topk(x.data(), multiplier, n, out.data());
      const double cutoff = mean + static_cast<double>(multiplier) * std::sqrt(central / count);
      for (size_t i = 0; i < x.size(); ++i) EXPECT_NEAR(out[i], std::max(0.0, x[i] - cutoff), 1e-5);
    }
  }
}

TEST(FloatOps, RowStatsAgreeWithDouble) {
  const FloatKernels f = floats_of(supported_tiers().back());
  for (int64_t n : {int64_t{2}, int64_t{17}, int64_t{1000}, int64_t{49152}}) {
    std::vector<float> x = random_floats(n, 7, 12.0f);
    const size_t top = static_cast<size_t>(n) / 2;
    x[top] = 13.0f;
    if (n > 17) x[top + 5] = 13.0f;
    const RowStats s = f.row_stats(x.data(), n);
    double z = 0.0, t = 0.0, second = -1e300;
    for (size_t i = 0; i < x.size(); ++i) {
      const double d = static_cast<double>(x[i]) - 13.0;
      z += std::exp(d), t += std::exp(d) * d;
      if (i != top) second = std::max(second, static_cast<double>(x[i]));
    }
    EXPECT_EQ(s.argmax, static_cast<int32_t>(top));
    EXPECT_EQ(s.max, 13.0f);
    EXPECT_NEAR(s.margin, 13.0 - second, 1e-6);
    EXPECT_NEAR(s.log_sum_exp, 13.0 + std::log(z), 1e-5);
    EXPECT_NEAR(s.entropy, std::log(z) - t / z, 1e-4);
  }
}

TEST(FloatOps, RowStatsIgnoreMinusInfinity) {
  const float inf = std::numeric_limits<float>::infinity();
  for (CpuTier tier : supported_tiers()) {
    const std::vector<float> x = {-inf, 1.0f, -inf, 1.0f};
    const RowStats s = floats_of(tier).row_stats(x.data(), 4);
    EXPECT_EQ(s.argmax, 1);
    EXPECT_EQ(s.margin, 0.0f);
    EXPECT_NEAR(s.entropy, std::log(2.0), 1e-6);
  }
}

TEST(ScalarMath, AgreesWithTheLibrary) {
  double worst_exp = 0.0, worst_log = 0.0, worst_sin = 0.0;
  for (int i = 0; i < 200000; ++i) {
    const double u = random_unit(9, static_cast<uint64_t>(i), Purpose::kTest);
    const double x = (2.0 * u - 1.0) * 700.0;
    worst_exp = std::max(worst_exp, std::fabs(exp_double(x) / std::exp(x) - 1.0));
    const double y = std::exp(x);
    worst_log =
        std::max(worst_log, std::fabs(log_double(y) - std::log(y)) / std::max(1e-3, std::fabs(std::log(y))));
    const double angle = u * 1048576.0;
    worst_sin = std::max(worst_sin, std::fabs(sin_cos(angle).sin - std::sin(angle)));
    worst_sin = std::max(worst_sin, std::fabs(sin_cos(-angle).cos - std::cos(-angle)));
  }
  EXPECT_LT(worst_exp, 1e-15);
  EXPECT_LT(worst_log, 1e-15);
  EXPECT_LT(worst_sin, 4e-16);
  EXPECT_NEAR(pow_double(10000.0, -0.5), 0.01, 1e-17);
  EXPECT_NEAR(pow_double(1e6, -0.96875), std::pow(1e6, -0.96875), 1e-20);
  EXPECT_EQ(sin_cos(0.0).sin, 0.0);
  EXPECT_EQ(sin_cos(0.0).cos, 1.0);
  EXPECT_EQ(log_double(1.0), 0.0);
}

}  // namespace
}  // namespace mete
