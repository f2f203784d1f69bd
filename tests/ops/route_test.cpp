#include "ops/route.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "base/rng.h"

namespace mete {
namespace {

struct RouteTest : ::testing::Test {
  RouteTest() { fill_floats(choose_cpu_tier(), table); }
  ThreadPool pool{2};
  KernelTable table{};
  Context ctx{pool, table};
  std::vector<int32_t> ids;
  std::vector<float> weights;

  void run(const RouterParams& params, const std::vector<float>& logits, const float* bias = nullptr) {
    const auto rows = static_cast<int64_t>(logits.size()) / params.experts;
    ids.assign(static_cast<size_t>(rows * params.used), -1);
    weights.assign(ids.size(), -1.0f);
    route(ctx, params, logits.data(), bias, rows, ids.data(), weights.data());
  }
};

RouterParams params_of(RouterGate gate, int64_t experts, int64_t used, bool normalise = false) {
  RouterParams params;
  params.gate = gate;
  params.experts = experts;
  params.used = used;
  params.normalise = normalise;
  return params;
}

TEST_F(RouteTest, EveryGateMatchesItsDefinitionInDouble) {
  for (const RouterGate gate : {RouterGate::kSoftmax, RouterGate::kSoftmaxOfTop, RouterGate::kSigmoid}) {
    for (const bool normalise : {false, true}) {
      for (const bool biased : {false, true}) {
        const int64_t experts = 37, used = 5, rows = 200;
        std::vector<float> logits(static_cast<size_t>(rows * experts)), bias(static_cast<size_t>(experts));
        for (size_t i = 0; i < logits.size(); ++i) {
          logits[i] = static_cast<float>(8 * random_unit(1, i, Purpose::kTest) - 4);
        }
        for (size_t i = 0; i < bias.size(); ++i)
          bias[i] = static_cast<float>(random_unit(2, i, Purpose::kTest));
        RouterParams params = params_of(gate, experts, used, normalise);
        params.scale = 2.5f;
        run(params, logits, biased ? bias.data() : nullptr);
        for (int64_t r = 0; r < rows; ++r) {
          const float* x = logits.data() + r * experts;
          std::vector<double> value(static_cast<size_t>(experts));
          double z = 0;
          for (int64_t i = 0; i < experts; ++i) z += std::exp(static_cast<double>(x[i]));
          for (int64_t i = 0; i < experts; ++i) {
            const double l = x[i];
            value[static_cast<size_t>(i)] = gate == RouterGate::kSoftmax   ? std::exp(l) / z
                                            : gate == RouterGate::kSigmoid ? 1 / (1 + std::exp(-l))
                                                                           : l;
          }
          std::vector<int32_t> order(static_cast<size_t>(experts));
          std::iota(order.begin(), order.end(), 0);
          const auto score = [&](int32_t i) {
            const auto at = static_cast<size_t>(i);
            return value[at] + (biased ? static_cast<double>(bias[at]) : 0.0);
          };
          std::sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return score(a) > score(b); });
          double sum = 0;
          for (int64_t k = 0; k < used; ++k) {
            double& v = value[static_cast<size_t>(order[static_cast<size_t>(k)])];
            if (gate == RouterGate::kSoftmaxOfTop) v = std::exp(v);
            sum += v;
          }
          const bool divide = normalise || gate == RouterGate::kSoftmaxOfTop;
          for (int64_t k = 0; k < used; ++k) {
            const auto at = static_cast<size_t>(r * used + k);
            const int32_t expert = order[static_cast<size_t>(k)];
            ASSERT_EQ(ids[at], expert) << "row " << r;
            const double expected = 2.5 * value[static_cast<size_t>(expert)] / (divide ? sum : 1.0);
            ASSERT_NEAR(weights[at], expected, 2e-6 * expected);
          }
        }
      }
    }
  }
}

// DeepSeek: experts of the best groups only; a group ranks by its best score, or by the sum of its two best.
TEST_F(RouteTest, OnlyExpertsOfTheBestGroupsAreChosen) {
  RouterParams params = params_of(RouterGate::kSigmoid, 8, 3);
  params.groups = 4;
  params.groups_used = 2;
  const std::vector<float> logits = {3.0f, -9.0f, 1.0f, 1.1f, 2.0f, -9.0f, 0.5f, 0.6f};
  params.group_top = 1;
  run(params, logits);
  EXPECT_EQ(ids, (std::vector<int32_t>{0, 4, 1}));  // groups 0 and 2; -9 in group 0 before -9 in group 2
  params.group_top = 2;
  run(params, logits);
  EXPECT_EQ(ids, (std::vector<int32_t>{3, 2, 7}));  // groups 1 and 3
  // The bias counts for groups and experts, not for weights.
  const std::vector<float> bias = {0, 0, 0, 0, 1.0f, 1.5f, 0, 0};
  run(params, logits, bias.data());
  EXPECT_EQ(ids, (std::vector<int32_t>{4, 5, 3}));
  EXPECT_FLOAT_EQ(weights[1], 1.0f / (1.0f + std::exp(9.0f)));
  params.groups_used = 4;  // all groups: as without
  run(params, logits);
  const std::vector<int32_t> all = ids;
  params.groups = params.groups_used = params.group_top = 1;
  run(params, logits);
  EXPECT_EQ(ids, all);
}

TEST_F(RouteTest, NotANumberLeavesGroupsValid) {
  RouterParams params = params_of(RouterGate::kSigmoid, 8, 4);
  params.groups = 4;
  params.groups_used = params.group_top = 2;
  run(params, std::vector<float>(8, NAN));
  EXPECT_EQ(ids, (std::vector<int32_t>{0, 1, 2, 3}));
}

TEST_F(RouteTest, TiesGoToTheLowerId) {
  for (const RouterGate gate : {RouterGate::kSoftmax, RouterGate::kSoftmaxOfTop, RouterGate::kSigmoid}) {
    run(params_of(gate, 6, 3), {1, 2, 2, 1, 2, 1, 0, 0, 0, 0, 0, 0});
    EXPECT_EQ(ids, (std::vector<int32_t>{1, 2, 4, 0, 1, 2}));
    run(params_of(gate, 4, 4), {-1, 5, 5, -1});
    EXPECT_EQ(ids, (std::vector<int32_t>{1, 2, 0, 3}));
  }
}

TEST_F(RouteTest, NotANumberRanksLastAndIdsStayValid) {
  const float nan = std::nanf("");
  run(params_of(RouterGate::kSoftmaxOfTop, 4, 3), {nan, 1, nan, 2});
  EXPECT_EQ(ids, (std::vector<int32_t>{3, 1, 0}));
  run(params_of(RouterGate::kSoftmax, 4, 2), {nan, nan, nan, nan});
  EXPECT_EQ(ids, (std::vector<int32_t>{0, 1}));
  run(params_of(RouterGate::kSoftmax, 3, 2), {INFINITY, 0, -INFINITY});  // inf - inf makes all NaN
  EXPECT_EQ(ids, (std::vector<int32_t>{0, 1}));
}

TEST_F(RouteTest, EveryTierAndThreadCountGivesTheSameBits) {
  const RouterParams params = params_of(RouterGate::kSoftmax, 128, 8, true);
  std::vector<float> logits(static_cast<size_t>(128 * 300));
  for (size_t i = 0; i < logits.size(); ++i)
    logits[i] = static_cast<float>(9 * random_unit(3, i, Purpose::kTest));
  run(params, logits);
  const std::vector<int32_t> expected_ids = ids;
  const std::vector<float> expected = weights;
  for (const CpuTier tier : supported_tiers()) {
    for (const int threads : {1, 3}) {
      KernelTable other{};
      fill_floats(tier, other);
      ThreadPool threaded(threads);
      Context context{threaded, other};
      route(context, params, logits.data(), nullptr, 300, ids.data(), weights.data());
      EXPECT_EQ(ids, expected_ids);
      EXPECT_EQ(weights, expected);
    }
  }
}

}  // namespace
}  // namespace mete
