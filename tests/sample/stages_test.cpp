// Each stage against a slow definition in double on random rows, neutral settings, degenerate rows.
#include "sample/stages.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <set>

#include "base/rng.h"

namespace mete {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

/// Logits with a spread like a model's, some equal, some -inf.
Candidates random_row(size_t size, uint64_t seed) {
  Candidates list;
  for (size_t i = 0; i < size; ++i) {
    const double u = random_unit(seed, i, Purpose::kTest);
    float logit = static_cast<float>(12.0 * (u - 0.5) + 8.0 * u * u * u);
    if (i % 17 == 3) logit = 1.25f;
    if (i % 29 == 5) logit = -kInf;
    list.items.push_back({static_cast<int32_t>(i), logit, 0.0});
  }
  return list;
}

std::vector<double> probabilities(const Candidates& list) {
  double highest = -kInf;
  for (const Candidate& c : list.items) highest = std::max<double>(highest, c.logit);
  double sum = 0;
  std::vector<double> p;
  for (const Candidate& c : list.items) p.push_back(std::exp(c.logit - highest));
  for (const double x : p) sum += x;
  for (double& x : p) x /= sum;
  return p;
}

/// Indices of the row in descending order of logit, ties by id.
std::vector<size_t> ranking(const Candidates& list) {
  std::vector<size_t> order(list.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::sort(order.begin(), order.end(),
            [&](size_t a, size_t b) { return ranks_before(list.items[a], list.items[b]); });
  return order;
}

std::set<int32_t> ids(const Candidates& list) {
  std::set<int32_t> out;
  for (const Candidate& c : list.items) {
    if (c.logit != -kInf) out.insert(c.id);
  }
  return out;
}

std::set<int32_t> first_ids(const std::vector<size_t>& order, size_t count, const Candidates& list) {
  std::set<int32_t> out;
  for (size_t i = 0; i < count; ++i) {
    if (list.items[order[i]].logit != -kInf) out.insert(static_cast<int32_t>(order[i]));
  }
  return out;
}

TEST(Candidates, ExpIsAccurateAndZeroFarBelow) {
  for (double x = 0.0; x > -700.0; x -= 0.37) EXPECT_NEAR(exp_below_zero(x) / std::exp(x), 1.0, 1e-15) << x;
  EXPECT_EQ(exp_below_zero(0.0), 1.0);
  EXPECT_EQ(exp_below_zero(-1000.0), 0.0);
  EXPECT_EQ(exp_below_zero(-std::numeric_limits<double>::infinity()), 0.0);
}

TEST(Candidates, SoftmaxAndEntropyMatchDouble) {
  Candidates list = random_row(1000, 1);
  const auto expected = probabilities(list);
  ASSERT_TRUE(softmax(&list));
  double h = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_NEAR(list.items[i].p, expected[i], 1e-15);
    if (expected[i] > 0) h -= expected[i] * std::log(expected[i]);
  }
  EXPECT_NEAR(entropy(list), h, 1e-12);
}

TEST(Candidates, DrawInvertsTheCumulativeDistribution) {
  const std::vector<Candidate> list = {{7, 0, 0.0}, {3, 0, 0.25}, {9, 0, 0.0}, {1, 0, 0.75}, {2, 0, 0.0}};
  EXPECT_EQ(draw(list, 0.0), 3);
  EXPECT_EQ(draw(list, 0.2499), 3);
  EXPECT_EQ(draw(list, 0.25), 1);
  EXPECT_EQ(draw(list, 0x1.fffffffffffffp-1), 1);
  EXPECT_EQ(draw({}, 0.5), -1);
}

TEST(Stages, TruncationsMatchTheirDefinitions) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    const Candidates row = random_row(1000, seed);
    const auto p = probabilities(row);
    const auto order = ranking(row);
    const auto reference_prefix = [&](const std::vector<size_t>& by, double mass, bool strict) {
      double sum = 0;
      for (size_t i = 0; i < by.size(); ++i) {
        sum += p[by[i]];
        if (strict ? sum > mass : sum >= mass) return i + 1;
      }
      return by.size();
    };

    Candidates list = row;
    apply_top_k(&list, 40);
    EXPECT_EQ(list.size(), 40U);
    EXPECT_EQ(ids(list), first_ids(order, 40, row));
    for (size_t i = 0; i < 40; ++i) EXPECT_EQ(list.items[i].id, static_cast<int32_t>(order[i]));

    for (const float mass : {0.3f, 0.9f, 0.99f}) {
      list = row;
      apply_top_p(&list, mass, 0);
      EXPECT_EQ(ids(list), first_ids(order, reference_prefix(order, mass, false), row))
          << seed << " " << mass;
    }

    list = row;
    apply_min_p(&list, 0.05f, 0);
    std::set<int32_t> expected;
    for (size_t i = 0; i < p.size(); ++i) {
      if (p[i] >= 0.05f * p[order[0]]) expected.insert(static_cast<int32_t>(i));
    }
    EXPECT_EQ(ids(list), expected);

    double h = 0;
    for (const double x : p) h -= x > 0 ? x * std::log(x) : 0;
    std::vector<size_t> typical = order;
    std::stable_sort(typical.begin(), typical.end(), [&](size_t a, size_t b) {
      return std::fabs(-std::log(p[a]) - h) < std::fabs(-std::log(p[b]) - h) - 1e-12;
    });
    list = row;
    apply_typical_p(&list, 0.5f, 0);
    EXPECT_EQ(ids(list), first_ids(typical, reference_prefix(typical, 0.5, true), row));

    double mean = 0, variance = 0, highest = -kInf;
    int count = 0;
    for (const Candidate& c : row.items) {
      if (c.logit == -kInf) continue;
      mean += c.logit;
      highest = std::max<double>(highest, c.logit);
      ++count;
    }
    mean /= count;
    for (const Candidate& c : row.items)
      variance += c.logit == -kInf ? 0 : (c.logit - mean) * (c.logit - mean);
    list = row;
    apply_top_n_sigma(&list, 1.5f);
    expected.clear();
    for (const Candidate& c : row.items) {
      if (c.logit >= highest - 1.5 * std::sqrt(variance / count)) expected.insert(c.id);
    }
    EXPECT_EQ(ids(list), expected);
  }
}

TEST(Stages, XtcDropsAllButTheLeastOfTheTopChoices) {
  Candidates row;
  for (const float logit : {2.0f, 0.5f, 2.2f, 1.9f}) {
    row.items.push_back({static_cast<int32_t>(row.size()), logit, 0.0});
  }
  const auto p = probabilities(row);  // 0.30, 0.07, 0.36, 0.27
  Candidates list = row;
  apply_xtc(&list, 0.5f, 0.2f, 0, 0.49);
  EXPECT_EQ(ids(list), (std::set<int32_t>{1, 3}));
  list = row;
  apply_xtc(&list, 0.5f, 0.2f, 0, 0.5);  // chance missed
  EXPECT_EQ(list.size(), 4U);
  list = row;
  apply_xtc(&list, 1.0f, 0.35f, 0, 0.0);  // one top choice only
  EXPECT_EQ(list.size(), 4U);
  list = row;
  apply_xtc(&list, 1.0f, 0.51f, 0, 0.0);
  EXPECT_EQ(list.size(), 4U);
  list = row;
  apply_xtc(&list, 1.0f, 0.2f, 3, 0.0);  // would leave 2 of at least 3
  EXPECT_EQ(list.size(), 4U);
  EXPECT_NEAR(p[3], 0.27, 0.01);
}

TEST(Stages, PenaltiesFollowTheFormula) {
  Candidates list;
  list.items = {{0, 2.0f, 0}, {1, -2.0f, 0}, {2, 3.0f, 0}, {3, 0.0f, 0}, {4, -kInf, 0}};
  const std::vector<int32_t> counts = {1, 2, 0, 3, 1};
  apply_penalties(&list, counts, 1.25f, 0.5f, 0.125f);
  EXPECT_EQ(list.items[0].logit, 2.0f / 1.25f - 0.625f);
  EXPECT_EQ(list.items[1].logit, -2.0f * 1.25f - 1.125f);
  EXPECT_EQ(list.items[2].logit, 3.0f);
  EXPECT_EQ(list.items[3].logit, 0.0f - 1.625f);
  EXPECT_EQ(list.items[4].logit, -kInf);
}

TEST(Stages, TemperatureScalesAndDynamicRangeFollowsEntropy) {
  const Candidates row = random_row(100, 3);
  Candidates list = row;
  apply_temperature(&list, 0.5f, 0.0f, 1.0f);
  for (size_t i = 0; i < row.size(); ++i) EXPECT_EQ(list.items[i].logit, row.items[i].logit * 2.0f);

  const auto p = probabilities(row);
  double h = 0;
  for (const double x : p) h -= x > 0 ? x * std::log(x) : 0;
  const double t = 0.3 + 1.0 * std::pow(h / std::log(100.0), 1.5);
  list = row;
  apply_temperature(&list, 0.8f, 0.5f, 1.5f);
  for (const Candidate& c : list.items) {
    const double expected = row.items[static_cast<size_t>(c.id)].logit / t;
    if (!std::isfinite(expected)) continue;
    EXPECT_NEAR(c.logit, expected, 1e-4 * std::fabs(expected) + 1e-6);
  }
  list = row;
  apply_temperature(&list, 1e-40f, 0.0f, 1.0f);
  ASSERT_TRUE(softmax(&list));
  double most = 0;
  for (const Candidate& c : list.items) most = std::max(most, c.p);
  EXPECT_EQ(most, 1.0);
  list = row;
  apply_temperature(&list, 0.0f, 0.0f, 1.0f);
  ASSERT_EQ(list.size(), 1U);
  EXPECT_EQ(list.items[0].id, static_cast<int32_t>(ranking(row)[0]));
}

TEST(Stages, NeutralSettingsAreTheIdentity) {
  const Candidates row = random_row(500, 9);
  Candidates list = row;
  const std::vector<int32_t> counts(500, 3);
  apply_logit_bias(&list, {});
  apply_penalties(&list, counts, 1.0f, 0.0f, 0.0f);
  apply_top_n_sigma(&list, -1.0f);
  apply_top_k(&list, 0);
  apply_top_p(&list, 1.0f, 0);
  apply_min_p(&list, 0.0f, 0);
  apply_typical_p(&list, 1.0f, 0);
  apply_xtc(&list, 0.0f, 0.1f, 0, 0.0);
  apply_temperature(&list, 1.0f, 0.0f, 1.0f);
  ASSERT_EQ(list.size(), row.size());
  for (size_t i = 0; i < row.size(); ++i) {
    EXPECT_EQ(list.items[i].id, row.items[i].id);
    EXPECT_EQ(list.items[i].logit, row.items[i].logit);
  }
}

TEST(Stages, MinKeepHolds) {
  const Candidates row = random_row(100, 4);
  const auto order = ranking(row);
  Candidates list = row;
  apply_top_p(&list, 0.0f, 5);
  EXPECT_EQ(ids(list), first_ids(order, 5, row));
  list = row;
  apply_min_p(&list, 1.0f, 5);
  EXPECT_EQ(ids(list), first_ids(order, 5, row));
  list = row;
  apply_top_p(&list, 0.0f, 0);
  EXPECT_EQ(list.size(), 1U);
}

TEST(Stages, MaskedAndExtremeRowsStayDefined) {
  Candidates list;
  for (int32_t i = 0; i < 10; ++i) list.items.push_back({i, -kInf, 0.0});
  apply_top_n_sigma(&list, 1.0f);
  apply_top_p(&list, 0.5f, 0);
  apply_typical_p(&list, 0.5f, 0);
  apply_xtc(&list, 1.0f, 0.1f, 0, 0.0);
  apply_mirostat_1(&list, 10, 5.0);
  apply_mirostat_2(&list, 5.0);
  apply_temperature(&list, 0.7f, 0.5f, 1.0f);
  EXPECT_FALSE(softmax(&list));
  for (const Candidate& c : list.items) EXPECT_EQ(c.p, 0.0);
  list.items = {{0, 1.0f, 0}, {1, 2.0f, 0}};
  const std::pair<int32_t, float> bias[] = {{0, kInf}, {1, -kInf}};
  apply_logit_bias(&list, bias);
  ASSERT_TRUE(softmax(&list));
  EXPECT_EQ(list.items[0].p, 1.0);
  EXPECT_EQ(list.items[1].p, 0.0);
  EXPECT_EQ(bounded_logit(std::nanf("")), -kInf);
}

TEST(Stages, MirostatTruncatesBySurprise) {
  const Candidates row = random_row(1000, 6);
  const auto p = probabilities(row);
  const auto order = ranking(row);
  Candidates list = row;
  apply_mirostat_2(&list, 7.0);
  size_t kept = 1;
  while (kept < order.size() && -std::log2(p[order[kept]]) <= 7.0) ++kept;
  EXPECT_EQ(ids(list), first_ids(order, kept, row));

  double products = 0, squares = 0;
  for (size_t i = 0; i < 99; ++i) {
    const double t = std::log((i + 2.0) / (i + 1.0));
    products += t * std::log(p[order[i]] / p[order[i + 1]]);
    squares += t * t;
  }
  const double s = products / squares;
  const double k = std::pow((s - 1) * std::pow(2, 6.0) / (1 - std::pow(1000.0, -(s - 1))), 1 / s);
  list = row;
  apply_mirostat_1(&list, 1000, 6.0);
  EXPECT_EQ(list.size(), static_cast<size_t>(std::max(k, 1.0)));
}

}  // namespace
}  // namespace mete
