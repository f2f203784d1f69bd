#include "ops/altup.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "base/rng.h"

namespace mete {
namespace {

std::vector<float> random(int64_t n, uint64_t seed) {
  std::vector<float> x(static_cast<size_t>(n));
  for (size_t i = 0; i < x.size(); ++i) {
    x[i] = static_cast<float>(4.0 * random_unit(seed, i, Purpose::kTest) - 2.0);
  }
  return x;
}

/// Streams of random rows.
struct Streams {
  Streams(int64_t count, int64_t floats, uint64_t seed) {
    streams.count = count;
    for (int64_t i = 0; i < count; ++i) {
      data.push_back(random(floats, seed + static_cast<uint64_t>(i)));
      streams.at[static_cast<size_t>(i)] = data.back().data();
    }
  }
  std::vector<std::vector<float>> data;
  AltupStreams streams;
};

struct AltupTest : ::testing::TestWithParam<int> {
  AltupTest() { fill_floats(supported_tiers().back(), table); }
  KernelTable table{};
  ThreadPool pool{GetParam()};
  Context ctx{pool, table};
};
INSTANTIATE_TEST_SUITE_P(Threads, AltupTest, ::testing::Values(1, 3));

constexpr int64_t kN = 300;

TEST_P(AltupTest, PredictAndCorrectAgreeWithDouble) {
  for (const int64_t count : {2, 4, 8}) {
    for (const int64_t rows : {1, 65}) {
      Streams x(count, rows * kN, 1), g(count, rows * kN, 20), h(count, rows * kN, 30);
      const std::vector<float> p = random(rows * count * count, 40), c = random(rows * count, 41),
                               y = random(rows * kN, 42);
      altup_predict(ctx, x.streams, p.data(), rows, kN, g.streams);
      const int64_t active = count - 1;
      altup_correct(ctx, g.streams, active, y.data(), c.data(), rows, kN, h.streams);
      for (int64_t e = 0; e < rows * kN; ++e) {
        const int64_t r = e / kN;
        const auto at = static_cast<size_t>(e);
        for (int64_t i = 0; i < count; ++i) {
          double want = x.data[static_cast<size_t>(i)][at];
          for (int64_t j = 0; j < count; ++j) {
            want += static_cast<double>(p[static_cast<size_t>((r * count + i) * count + j)]) *
                    x.data[static_cast<size_t>(j)][at];
          }
          const double predicted = g.data[static_cast<size_t>(i)][at];
          ASSERT_NEAR(predicted, want, 2e-5) << i;
          const double innovation = static_cast<double>(y[at]) - g.data[static_cast<size_t>(active)][at];
          const double gain = 1.0 + c[static_cast<size_t>(r * count + i)];
          ASSERT_NEAR(h.data[static_cast<size_t>(i)][at], predicted + gain * innovation, 2e-5) << i;
        }
      }
    }
  }
}

TEST_P(AltupTest, MeanAndMagnitudeAgreeWithDouble) {
  constexpr int64_t kRows = 70;
  Streams x(3, kRows * kN, 5);
  for (int64_t i = 0; i < kN; ++i) x.data[1][static_cast<size_t>(i)] *= 1e-4f;  // below the least magnitude
  const std::vector<float> before = x.data[1];
  match_magnitude(ctx, x.data[0].data(), kRows, kN, x.data[1].data());
  for (int64_t r = 0; r < kRows; ++r) {
    double wanted = 0, found = 0;
    for (int64_t i = r * kN; i < (r + 1) * kN; ++i) {
      wanted += std::pow(static_cast<double>(x.data[0][static_cast<size_t>(i)]), 2) / kN;
      found += std::pow(static_cast<double>(before[static_cast<size_t>(i)]), 2) / kN;
    }
    EXPECT_EQ(r == 0, found < 1e-5);
    const double factor = std::sqrt(wanted) / std::sqrt(std::max(found, 1e-5));
    for (int64_t i = r * kN; i < (r + 1) * kN; ++i) {
      const auto at = static_cast<size_t>(i);
      ASSERT_NEAR(x.data[1][at], before[at] * factor, 1e-5);
    }
  }
  std::vector<float> mean(x.data[0].size());
  altup_mean(ctx, x.streams, kRows, kN, mean.data());
  for (size_t i = 0; i < mean.size(); ++i) {
    const double want = (static_cast<double>(x.data[0][i]) + x.data[1][i] + x.data[2][i]) / 3;
    ASSERT_NEAR(mean[i], want, 1e-6);
  }
}

}  // namespace
}  // namespace mete
