#include "ops/rope.h"

#include <gtest/gtest.h>

#include <cmath>

namespace mete {
namespace {

struct RopeTest : ::testing::Test {
  RopeTest() { fill_floats(CpuTier::kGeneric, table); }
  ThreadPool pool{2};
  KernelTable table{};
  Context ctx{pool, table};
};

TEST_F(RopeTest, PlainTableIsBaseToTheMinusTwoIOverDim) {
  RopeConfig config;
  config.dim = 64;
  RopeTable rope_table(config);
  const std::vector<int32_t> positions = {0, 1, 7, 4095, 131071, 1 << 20};
  rope_table.prepare(ctx, positions);
  for (size_t r = 0; r < positions.size(); ++r) {
    for (int64_t i = 0; i < 32; ++i) {
      const double angle = positions[r] * std::pow(10000.0, -2.0 * static_cast<double>(i) / 64.0);
      EXPECT_NEAR(rope_table.cos(static_cast<int64_t>(r))[i], std::cos(angle), 1e-7);
      EXPECT_NEAR(rope_table.sin(static_cast<int64_t>(r))[i], std::sin(angle), 1e-7);
    }
  }
}

TEST_F(RopeTest, RotatesPairsOfBothLayoutsAndLeavesTheRest) {
  for (bool neox : {true, false}) {
    RopeConfig config;
    config.dim = 8;
    config.neox = neox;
    RopeTable rope_table(config);
    rope_table.prepare(ctx, std::vector<int32_t>{3});
    std::vector<float> x(24);
    for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i) + 0.5f;
    const std::vector<float> before = x;
    rope(ctx, x.data(), 1, 2, 12, rope_table);
    for (size_t h = 0; h < 2; ++h) {
      for (size_t i = 0; i < 4; ++i) {
        const size_t a = h * 12 + (neox ? i : 2 * i), b = h * 12 + (neox ? i + 4 : 2 * i + 1);
        const double angle = 3.0 * std::pow(10000.0, -2.0 * static_cast<double>(i) / 8.0);
        EXPECT_NEAR(x[a], before[a] * std::cos(angle) - before[b] * std::sin(angle), 1e-5);
        EXPECT_NEAR(x[b], before[b] * std::cos(angle) + before[a] * std::sin(angle), 1e-5);
      }
      for (size_t i = 8; i < 12; ++i) EXPECT_EQ(x[h * 12 + i], before[h * 12 + i]);
    }
  }
}

TEST_F(RopeTest, LinearFactorsAndMagnitude) {
  RopeConfig config;
  config.dim = 4;
  config.scaling = RopeScaling::kLinear;
  config.factor = 4.0;
  config.factors = {2.0f, 5.0f};
  config.magnitude = 1.5;
  RopeTable rope_table(config);
  rope_table.prepare(ctx, std::vector<int32_t>{100});
  EXPECT_NEAR(rope_table.cos(0)[0], 1.5 * std::cos(100.0 / 8.0), 2e-7);
  EXPECT_NEAR(rope_table.sin(0)[1], 1.5 * std::sin(100.0 / 100.0 / 20.0), 2e-7);
}

// The inverse frequencies that transformers computes for rope_type "yarn" with dim 16, base 10000, factor 4,
// original context 4096, beta 32 and 1: low = floor(16 ln(4096/(32 tau)) / (2 ln 10000)) = 2, high = 6.
TEST_F(RopeTest, YarnBlendsFrequenciesAndScalesAttention) {
  RopeConfig config;
  config.dim = 16;
  config.scaling = RopeScaling::kYarn;
  config.factor = 4.0;
  config.original_context = 4096;
  RopeTable rope_table(config);
  rope_table.prepare(ctx, std::vector<int32_t>{1});
  const double magnitude = 0.1 * std::log(4.0) + 1.0;
  for (int64_t i = 0; i < 8; ++i) {
    const double f = std::pow(10000.0, -static_cast<double>(i) / 8.0);
    const double ramp = std::min(1.0, std::max(0.0, (static_cast<double>(i) - 2.0) / 4.0));
    const double angle = f / 4.0 * ramp + f * (1.0 - ramp);
    EXPECT_NEAR(rope_table.sin(0)[i], magnitude * std::sin(angle), 2e-7) << i;
  }
}

// gpt-oss: the ramp's ends are not rounded to whole indices.
TEST_F(RopeTest, YarnWithoutTruncation) {
  RopeConfig config;
  config.dim = 16;
  config.scaling = RopeScaling::kYarn;
  config.factor = 4.0;
  config.original_context = 4096;
  config.yarn_truncate = false;
  RopeTable rope_table(config);
  rope_table.prepare(ctx, std::vector<int32_t>{1});
  const double magnitude = 0.1 * std::log(4.0) + 1.0;
  const double low = 8.0 * std::log(4096.0 / (64.0 * M_PI)) / std::log(10000.0);
  const double high = 8.0 * std::log(4096.0 / (2.0 * M_PI)) / std::log(10000.0);
  for (int64_t i = 0; i < 8; ++i) {
    const double f = std::pow(10000.0, -static_cast<double>(i) / 8.0);
    const double ramp = std::min(1.0, std::max(0.0, (static_cast<double>(i) - low) / (high - low)));
    const double angle = f / 4.0 * ramp + f * (1.0 - ramp);
    EXPECT_NEAR(rope_table.sin(0)[i], magnitude * std::sin(angle), 2e-7) << i;
  }
}

}  // namespace
}  // namespace mete
