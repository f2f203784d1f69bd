// KL and its parts against sums written out by hand, and the log-sum inequality of the compact form.
#include "eval/divergence.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/rng.h"

namespace mete {
namespace {

std::vector<float> random_row(size_t n, uint64_t seed) {
  std::vector<float> row(n);
  for (size_t i = 0; i < n; ++i) row[i] = static_cast<float>(8 * random_unit(seed, i, Purpose::kTest) - 4);
  return row;
}

/// sum p log(p / q), long double, probabilities first.
double kl_oracle(const std::vector<float>& a, const std::vector<float>& b) {
  const auto probabilities = [](const std::vector<float>& row) {
    std::vector<long double> p;
    long double sum = 0;
    for (const float x : row) sum += std::exp(static_cast<long double>(x));
    for (const float x : row) p.push_back(std::exp(static_cast<long double>(x)) / sum);
    return p;
  };
  const auto p = probabilities(a), q = probabilities(b);
  long double kl = 0;
  for (size_t i = 0; i < p.size(); ++i) kl += p[i] * std::log(p[i] / q[i]);
  return static_cast<double>(kl);
}

RowPrice compare(const std::vector<float>& a, const std::vector<float>& b, int32_t target = 0) {
  const auto n = static_cast<int64_t>(a.size());
  return compare_rows(a.data(), b.data(), log_sum_exp(b.data(), n), n, target);
}

TEST(Divergence, EqualsTheWrittenOutSumAndIsZeroForEqualRows) {
  for (uint64_t seed = 1; seed < 20; ++seed) {
    const std::vector<float> a = random_row(300, seed), b = random_row(300, seed + 100);
    EXPECT_NEAR(compare(a, b).kl, kl_oracle(a, b), 1e-12);
    EXPECT_EQ(compare(a, a).kl, 0.0);
    EXPECT_TRUE(compare(a, a).same_top1);
  }
  // Two tokens, probabilities 3/4, 1/4 against 1/2, 1/2.
  const std::vector<float> a = {std::log(3.0f), 0}, b = {0, 0};
  EXPECT_NEAR(compare(a, b).kl, 0.75 * std::log(1.5) + 0.25 * std::log(0.5), 1e-7);
  EXPECT_NEAR(compare(a, b, 1).reference_nll, std::log(4.0), 1e-7);
}

TEST(Divergence, TopTokenTiesGoToTheLowestId) {
  EXPECT_TRUE(compare({1, 1, 0}, {2, 0, 2}).same_top1);
  EXPECT_FALSE(compare({1, 1, 0}, {0, 2, 2}).same_top1);
}

TEST(Divergence, CompactFormIsALowerBoundThatGrowsToTheFullValue) {
  for (uint64_t seed = 1; seed < 10; ++seed) {
    const std::vector<float> a = random_row(200, seed), b = random_row(200, seed + 50);
    const double full = compare(a, b).kl, log_sum = log_sum_exp(b.data(), 200);
    double last = 0;
    for (const int64_t k : {1, 5, 50, 150, 200}) {
      const CompactRow row = make_compact(a.data(), 200, k, 3);
      const RowPrice price = compare_compact(row, b.data(), log_sum, 200);
      EXPECT_GE(price.kl, last - 1e-12) << k;
      EXPECT_LE(price.kl, full + 1e-12) << k;
      EXPECT_EQ(price.same_top1, compare(a, b).same_top1);
      EXPECT_EQ(price.reference_nll, compare(a, b, 3).reference_nll);
      EXPECT_EQ(compare_compact(row, a.data(), log_sum_exp(a.data(), 200), 200).kl, 0.0) << k;
      double inside = 0;
      for (const float x : row.logits) inside += std::exp(x - row.log_sum);
      EXPECT_NEAR(inside + price.outside, 1, 1e-12);
      last = price.kl;
    }
    EXPECT_NEAR(last, full, 1e-12);
  }
}

TEST(Divergence, RowsThatAreNotNumbersAreRefused) {
  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  for (const float bad : {nan, inf}) {
    const std::vector<float> row = {0, bad, 1};
    EXPECT_THROW(log_sum_exp(row.data(), 3), Error);
  }
  const std::vector<float> banned = {0, -inf, 0};  // a token that cannot come: no error
  EXPECT_NEAR(log_sum_exp(banned.data(), 3), std::log(2.0), 1e-12);
}

}  // namespace
}  // namespace mete
