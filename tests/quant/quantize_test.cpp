// Block encoders: ggml's bytes where the definition is ggml's, error bounds for the rest.
#include "quant/quantize.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <random>

#include "quant/dequant.h"
#include "quant/golden.h"

namespace mete {
namespace {

std::vector<float> gaussian(size_t n, unsigned seed) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> normal;
  std::vector<float> x(n);
  for (float& v : x) v = normal(engine);
  return x;
}

std::vector<float> round_trip(DType type, const std::vector<float>& x) {
  const int64_t n = static_cast<int64_t>(x.size());
  std::vector<uint8_t> bytes(row_bytes(type, n));
  quantize_row(type, x.data(), bytes.data(), n);
  std::vector<float> out(x.size());
  dequantize_row(type, bytes.data(), out.data(), n);
  return out;
}

TEST(Quantize, GoldenBytes) {
  const auto records = testing::read_quant_golden("quantize.bin");
  EXPECT_EQ(records.size(), 8u);
  for (const testing::QuantRecord& r : records) {
    std::vector<uint8_t> out(r.blocks.size());
    quantize_row(r.type, r.values.data(), out.data(), static_cast<int64_t>(r.values.size()));
    EXPECT_EQ(out, r.blocks) << name(r.type);
  }
}

TEST(Quantize, ErrorOfGaussianRowsFallsWithBits) {
  const std::vector<float> x = gaussian(8192, 1);
  std::map<DType, double> error;  // mean square
  for (const DType type : kAllDTypes) {
    const std::vector<float> y = round_trip(type, x);
    for (size_t i = 0; i < x.size(); ++i) {
      const double e = static_cast<double>(y[i]) - static_cast<double>(x[i]);
      error[type] += e * e / static_cast<double>(x.size());
    }
  }
  EXPECT_EQ(error[DType::kF32], 0.0);
  EXPECT_LT(error[DType::kQ2_K], 0.15);
  for (const auto& [worse, better] :
       {std::pair{DType::kQ2_K, DType::kQ3_K}, std::pair{DType::kQ3_K, DType::kQ4_K},
        std::pair{DType::kQ4_K, DType::kQ5_K}, std::pair{DType::kQ5_K, DType::kQ6_K},
        std::pair{DType::kQ6_K, DType::kQ8_0}, std::pair{DType::kQ8_0, DType::kBF16},
        std::pair{DType::kBF16, DType::kF16}, std::pair{DType::kQ4_0, DType::kQ5_0},
        std::pair{DType::kQ4_1, DType::kQ5_1}, std::pair{DType::kQ3_K, DType::kIQ4_XS},
        std::pair{DType::kQ3_K, DType::kIQ4_NL}, std::pair{DType::kQ3_K, DType::kMXFP4},
        std::pair{DType::kIQ4_NL, DType::kQ5_0}, std::pair{DType::kMXFP4, DType::kQ5_0}}) {
    EXPECT_GT(error[worse], error[better]) << name(worse) << " and " << name(better);
  }
}

TEST(Quantize, ZerosConstantsAndExtremesStayFinite) {
  for (const DType type : kAllDTypes) {
    SCOPED_TRACE(name(type));
    for (const float v : round_trip(type, std::vector<float>(256, 0.0f))) ASSERT_EQ(v, 0.0f);
    for (const float c : {1.0f, -1.0f}) {
      for (const float v : round_trip(type, std::vector<float>(256, c))) ASSERT_NEAR(v, c, 0.15f);
    }
    for (const float c : {1e30f, -1e30f, 1e-30f, -1e-40f}) {
      for (const float v : round_trip(type, std::vector<float>(256, c))) ASSERT_TRUE(std::isfinite(v)) << c;
    }
  }
}

TEST(Quantize, Q8ErrorIsAtMostHalfAStep) {
  const std::vector<float> x = gaussian(1024, 2), y = round_trip(DType::kQ8_0, x);
  for (size_t b = 0; b < x.size(); b += 32) {
    float amax = 0.0f;
    for (size_t i = b; i < b + 32; ++i) amax = std::max(amax, std::fabs(x[i]));
    // Half a step, and the float16 rounding of the step times at most 127.
    for (size_t i = b; i < b + 32; ++i)
      EXPECT_LE(std::fabs(x[i] - y[i]), amax / 127 * (0.5f + 127 * 0x1p-11f) * 1.001f);
  }
}

}  // namespace
}  // namespace mete
