// The contract of every replacement policy, and the order that each one promises.
#include "weights/replace/policy.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "base/rng.h"
#include "weights/replace/learned_rule.h"

namespace mete {
namespace {

using Keys = std::vector<int32_t>;

Keys draw(uint64_t position, int32_t of, int32_t count) {
  Keys keys;
  for (uint64_t i = 0; static_cast<int32_t>(keys.size()) < count; ++i) {
    const auto key =
        static_cast<int32_t>(random_bits(7, position * 64 + i, Purpose::kTest) % static_cast<uint64_t>(of));
    if (std::find(keys.begin(), keys.end(), key) == keys.end()) keys.push_back(key);
  }
  std::sort(keys.begin(), keys.end());
  return keys;
}

LearnedRule random_rule(int32_t layers) {
  std::vector<LearnedNet> nets(static_cast<size_t>(layers));
  uint64_t n = 0;
  for (LearnedNet& net : nets) {
    for (float& w : net.w1) w = static_cast<float>(random_unit(1, n++, Purpose::kTest)) - 0.5f;
    for (float& w : net.w2) w = static_cast<float>(random_unit(1, n++, Purpose::kTest)) - 0.5f;
    for (float& w : net.w3) w = static_cast<float>(random_unit(1, n++, Purpose::kTest)) - 0.5f;
  }
  return LearnedRule(std::move(nets));
}

class EveryPolicy : public ::testing::TestWithParam<ReplaceKind> {
 protected:
  std::unique_ptr<ReplacePolicy> make(const PoolShape& shape) {
    rule_ = random_rule(shape.layers);
    ReplaceConfig config;
    config.kind = GetParam();
    config.learned = &rule_;
    return make_replace_policy(config, shape, 0);
  }
  LearnedRule rule_;
};
INSTANTIATE_TEST_SUITE_P(All, EveryPolicy, ::testing::ValuesIn(kAllReplaceKinds),
                         [](const auto& test) { return name(test.param); });

TEST_P(EveryPolicy, ChoosesDistinctCandidatesAndTheSameOnesAgain) {
  const PoolShape shape{3, 16, 20};
  const auto a = make(shape), b = make(shape);
  for (uint64_t step = 0; step < 300; ++step) {
    const auto layer = static_cast<int32_t>(step % 3);
    Keys used = draw(step, 16, 4);
    for (int32_t& key : used) key += layer * 16;
    a->use(used), b->use(used);
    const Keys candidates = draw(1000 + step, 48, 12);
    Keys victims(1 + step % 12), again(victims.size());
    a->choose(candidates, victims), b->choose(candidates, again);
    EXPECT_EQ(victims, again);
    std::sort(victims.begin(), victims.end());
    EXPECT_EQ(std::unique(victims.begin(), victims.end()), victims.end());
    EXPECT_TRUE(std::includes(candidates.begin(), candidates.end(), victims.begin(), victims.end()));
  }
}

TEST_P(EveryPolicy, FewerVictimsAreTheFirstOfMore) {
  const auto policy = make({1, 32, 8});
  for (uint64_t step = 0; step < 50; ++step) policy->use(draw(step, 32, 4));
  const Keys candidates = draw(99, 32, 16);
  Keys all(16);
  policy->choose(candidates, all);
  for (size_t n = 1; n < 16; ++n) {
    Keys some(n);
    policy->choose(candidates, some);
    EXPECT_TRUE(std::equal(some.begin(), some.end(), all.begin()));
  }
}

TEST_P(EveryPolicy, NamesAreReadBack) {
  EXPECT_EQ(*parse_replace_kind(name(GetParam())), GetParam());
  EXPECT_FALSE(parse_replace_kind("fifo"));
}

Keys order(const ReplaceConfig& config, const std::vector<Keys>& uses, const Keys& candidates) {
  const auto policy = make_replace_policy(config, {1, 16, 100}, 0);
  for (const Keys& keys : uses) policy->use(keys);
  Keys victims(candidates.size());
  policy->choose(candidates, victims);
  return victims;
}

TEST(Replace, LruGivesUpTheOldest) {
  EXPECT_EQ(order({ReplaceKind::kLru}, {{3}, {1, 2}, {3}, {0}}, {0, 1, 2, 3}), (Keys{1, 2, 3, 0}));
}

TEST(Replace, LfuGivesUpTheRarestAndCountsTheEvicted) {
  EXPECT_EQ(order({ReplaceKind::kLfu}, {{1}, {2}, {1}, {0}, {2}, {1}}, {0, 1, 2}), (Keys{0, 2, 1}));
}

TEST(Replace, LfuForgets) {
  const auto policy = make_replace_policy({ReplaceKind::kLfu}, {1, 4, 2}, 0);
  for (int i = 0; i < 19; ++i) policy->use(Keys{0});  // 19
  policy->use(Keys{1});                               // 20 = 10 * slots: all halved, 9.5 and 0.5
  for (int i = 0; i < 10; ++i) policy->use(Keys{1});  // 10.5 after 10 uses
  Keys victims(1);
  policy->choose(Keys{0, 1}, victims);
  EXPECT_EQ(victims, Keys{0});
}

TEST(Replace, LrfuSpansLruAndLfu) {
  std::vector<Keys> uses;
  for (uint64_t i = 0; i < 60; ++i) uses.push_back(draw(i, 16, 1));
  Keys used;
  for (int32_t key = 0; key < 16; ++key) {
    if (std::count(uses.begin(), uses.end(), Keys{key}) > 0) used.push_back(key);
  }
  ReplaceConfig lrfu{ReplaceKind::kLrfu};
  lrfu.lrfu_half_life = 1;
  EXPECT_EQ(order(lrfu, uses, used), order({ReplaceKind::kLru}, uses, used));
  lrfu.lrfu_half_life = 1e12;  // counts, ties by age
  const Keys frequent = order(lrfu, uses, used);
  for (size_t i = 1; i < frequent.size(); ++i) {
    EXPECT_LE(std::count(uses.begin(), uses.end(), Keys{frequent[i - 1]}),
              std::count(uses.begin(), uses.end(), Keys{frequent[i]}));
  }
}

TEST(Replace, ClassLruPrefersTheFrequentOfTheSameAge) {
  std::vector<Keys> uses(8, Keys{5});
  uses.push_back({4, 5});
  for (int i = 0; i < 3; ++i) uses.push_back({6});
  EXPECT_EQ(order({ReplaceKind::kClassLru}, uses, {4, 5, 6}).front(), 4);
}

TEST(Learned, ReadsBackWhatItWrote) {
  const LearnedRule rule = random_rule(3);
  const std::vector<uint8_t> bytes = rule.serialise();
  const auto back = LearnedRule::parse(bytes);
  ASSERT_TRUE(back);
  EXPECT_EQ(back->serialise(), bytes);
  for (size_t n = 0; n < bytes.size(); n += 97) EXPECT_FALSE(LearnedRule::parse({bytes.data(), n}));
  std::vector<uint8_t> broken = bytes;
  std::fill(broken.begin() + 12, broken.begin() + 16, uint8_t{0xff});  // a NaN
  EXPECT_FALSE(LearnedRule::parse(broken));
}

TEST(Learned, TrainingTellsOftenUsedFromRare) {
  // Experts 0..3 in turn, 4..7 once in 64 visits.
  LayerVisits visits;
  for (int32_t t = 0; t < 2000; ++t) {
    visits.push_back({t % 4});
    if (t % 64 == 0) visits.back().push_back(4 + t / 64 % 4);
  }
  const std::vector<LayerVisits> layers{visits};
  const LearnedRule rule = train_learned_rule(layers, 8);
  EXPECT_EQ(rule.serialise(), train_learned_rule(layers, 8).serialise());
  const float soon = rule.net(0).predict(1.0f / 3, 1.0f), late = rule.net(0).predict(1.0f / 3, 0.02f);
  EXPECT_LT(soon, 2.0f);  // 1 to 3 visits away: log2(1 + visits) is 1 to 2
  EXPECT_GT(late, 5.0f);  // about 256 visits away: 8
}

}  // namespace
}  // namespace mete
