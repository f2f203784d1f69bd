// The cache's decisions against a plain model of slots: what a plan says is served is what lies in the slot.
#include "weights/expert_cache.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "base/rng.h"
#include "weights/replace/learned_rule.h"

namespace mete {
namespace {

struct Case {
  ReplaceKind kind;
  bool shared;
  int64_t slots;
  int32_t guesses;
};

class ExpertCacheTest : public ::testing::TestWithParam<Case> {
 protected:
  static constexpr int32_t kLayers = 4, kExperts = 12;

  uint64_t random(uint64_t below) { return random_bits(3, position_++, Purpose::kTest) % below; }

  std::vector<ExpertDemand> draw(uint64_t most) {
    std::set<int32_t> ids;
    const uint64_t count = 1 + random(most);
    while (ids.size() < count) ids.insert(static_cast<int32_t>(random(kExperts)));
    std::vector<ExpertDemand> out;
    for (const int32_t id : ids) out.push_back({id, 1});
    return out;
  }

  ExpertCacheConfig config() {
    const Case& c = GetParam();
    rule_ = LearnedRule(std::vector<LearnedNet>(kLayers));
    ExpertCacheConfig out{kLayers, kExperts, c.slots, c.shared, c.guesses, {}, 0};
    out.replace.kind = c.kind;
    out.replace.learned = &rule_;
    return out;
  }

  /// Serves a plan on content_ and checks every slot.
  void serve(ExpertCache& cache, int layer, const std::vector<ExpertDemand>& demands) {
    const auto plan = cache.begin(layer, demands);
    ASSERT_EQ(plan.size(), demands.size());
    std::set<int32_t> served;
    std::map<int32_t, size_t> last_in_slot;  // plan index
    for (size_t i = 0; i < plan.size(); ++i) {
      const ExpertCache::Item& item = plan[i];
      const int32_t expert = demands[static_cast<size_t>(item.demand)].expert;
      const std::pair<int, int32_t> key{layer, expert};
      EXPECT_TRUE(served.insert(item.demand).second);
      ASSERT_GE(item.slot, 0);
      ASSERT_LT(item.slot, cache.slot_count());
      if (item.hit) {
        EXPECT_EQ(content_[item.slot], key);
        EXPECT_EQ(item.after, -1);
      } else {
        const auto before = last_in_slot.find(item.slot);
        // A slot of this layer's demand is taken over only after the one in it was served.
        EXPECT_EQ(item.after, before == last_in_slot.end() ? -1 : static_cast<int32_t>(before->second));
        content_[item.slot] = key;
      }
      last_in_slot[item.slot] = i;
    }
    cache.end();
    check_residency(cache);
  }

  void check_residency(const ExpertCache& cache) {
    std::set<int32_t> slots;
    std::map<int32_t, int64_t> per_layer;
    for (int layer = 0; layer < kLayers; ++layer) {
      for (int32_t expert = 0; expert < kExperts; ++expert) {
        const int32_t slot = cache.slot_of(layer, expert);
        if (slot < 0) continue;
        EXPECT_TRUE(slots.insert(slot).second);
        EXPECT_LT(slot, cache.slot_count());
        EXPECT_EQ(content_[slot], (std::pair<int, int32_t>{layer, expert}));
        ++per_layer[layer];
      }
    }
    EXPECT_LE(static_cast<int64_t>(slots.size()), cache.slot_count());
    if (cache.config().shared || cache.config().guesses > 0) return;
    for (const auto& [layer, n] : per_layer) EXPECT_LE(n, (cache.slots() + kLayers - 1) / kLayers);
  }

  uint64_t position_ = 0;
  LearnedRule rule_;
  std::map<int32_t, std::pair<int, int32_t>> content_;
};

std::vector<Case> all_cases() {
  std::vector<Case> out;
  for (const ReplaceKind kind : kAllReplaceKinds) {
    for (const bool shared : {false, true}) {
      for (const int64_t slots : {4, 6, 11, 17, 30, 48}) {
        for (const int32_t guesses : {0, 3}) out.push_back({kind, shared, slots, guesses});
      }
    }
  }
  return out;
}
INSTANTIATE_TEST_SUITE_P(All, ExpertCacheTest, ::testing::ValuesIn(all_cases()), [](const auto& test) {
  const Case& c = test.param;
  return fmt::format("{}_{}_{}_{}", name(c.kind), c.shared ? "shared" : "layers", c.slots, c.guesses);
});

TEST_P(ExpertCacheTest, EveryPlanServesWhatIsInTheSlots) {
  ExpertCache cache(config());
  int64_t demanded = 0;
  for (int step = 0; step < 600; ++step) {
    const int layer = step % kLayers;
    const auto demands = draw(step % 7 == 0 ? kExperts : 4);  // now and then more than the pool holds
    demanded += static_cast<int64_t>(demands.size());
    serve(cache, layer, demands);
    const int next = (layer + 1) % kLayers;
    for (const auto& guess : cache.hint(next, draw(5))) content_[guess.slot] = {next, guess.expert};
    if (step % 50 == 49) {
      const auto slots = static_cast<int64_t>(4 + random(45));
      for (const auto& move : cache.resize(slots)) content_[move.to] = content_[move.from];
      check_residency(cache);
    }
    if (step % 31 == 0) cache.drop(layer, demands.front().expert);
  }
  EXPECT_EQ(cache.counts().hits + cache.counts().misses, demanded);
  EXPECT_EQ(cache.counts().guesses > 0, GetParam().guesses > 0);
}

TEST_P(ExpertCacheTest, NothingIsMissedTwiceWhenAllFits) {
  ExpertCacheConfig c = config();
  c.slots = kLayers * kExperts;
  ExpertCache cache(c);
  std::set<std::pair<int, int32_t>> seen;
  int64_t misses = 0;
  for (int step = 0; step < 200; ++step) {
    const auto demands = draw(6);
    for (const ExpertDemand& d : demands) misses += seen.insert({step % kLayers, d.expert}).second ? 1 : 0;
    serve(cache, step % kLayers, demands);
  }
  EXPECT_EQ(cache.counts().misses, misses);
}

TEST(ExpertCache, ALongPromptLeavesHalfOfTheHits) {
  ExpertCacheConfig c{1, 16, 8, false, 0, {}};
  ExpertCache cache(c);
  std::vector<ExpertDemand> some, all;
  for (int32_t e = 0; e < 16; ++e) {
    if (e < 8) some.push_back({e, 1});
    all.push_back({e, 1});
  }
  cache.begin(0, some);
  cache.end();
  const auto plan = cache.begin(0, all);
  EXPECT_EQ(std::count_if(plan.begin(), plan.end(), [](const auto& item) { return item.hit; }), 8);
  cache.end();
  int kept = 0;
  for (int32_t e = 0; e < 8; ++e) kept += cache.slot_of(0, e) >= 0 ? 1 : 0;
  EXPECT_EQ(kept, 4);
}

TEST(ExpertCache, AConfirmedGuessIsAHitAndAWrongOneIsForgotten) {
  ExpertCache cache({2, 8, 4, false, 2, {}, 0});
  const std::vector<ExpertDemand> guess{{3, 1}, {5, 1}, {6, 1}}, demand{{3, 1}};
  EXPECT_EQ(cache.hint(1, guess).size(), 2u);
  cache.begin(1, demand);
  cache.end();
  EXPECT_EQ(cache.counts().hits, 1);
  EXPECT_EQ(cache.counts().guesses, 2);
  EXPECT_EQ(cache.counts().useful_guesses, 1);
  EXPECT_GE(cache.slot_of(1, 3), 0);
  EXPECT_EQ(cache.slot_of(1, 5), -1);
}

}  // namespace
TEST(ExpertCache, GuessesOfAPlaceThatSeldomComesTrueAreNotRead) {
  ExpertCache cache({2, 8, 2, false, 2, {}});
  // The best guess always comes true, the second never, then the other way round.
  const std::vector<ExpertDemand> a{{1, 1}, {2, 1}}, b{{3, 1}, {4, 1}};
  const auto read = [&](int step, bool first_is_right) {
    const std::vector<ExpertDemand>& guess = step % 2 == 0 ? a : b;
    int places = 0;
    for (const ExpertCache::Guess& g : cache.hint(1, guess)) places |= g.expert == guess[0].expert ? 1 : 2;
    const std::vector<ExpertDemand> demand{guess[first_is_right ? 0 : 1]};
    cache.begin(1, demand);
    cache.end();
    return places;
  };
  for (int step = 0; step < 8; ++step) read(step, true);
  EXPECT_EQ(read(8, true), 1);
  for (int step = 0; step < 100; ++step) read(step, false);
  EXPECT_EQ(read(100, false), 2);
}

TEST(ExpertCache, GuessesOfSeveralRowsHaveARecordOfTheirOwn) {
  ExpertCache cache({2, 8, 2, false, 2, {}});
  for (int step = 0; step < 20; ++step) {  // of one row: never right
    const std::vector<ExpertDemand> guess{{1 + step % 3, 1}}, demand{{5 + step % 3, 1}};
    EXPECT_EQ(cache.hint(1, guess).size(), 0u);
    cache.begin(1, demand);
    cache.end();
    const std::vector<ExpertDemand> many{{1 + step % 3, 4}};
    // Always right: read as soon as that shows once.
    EXPECT_EQ(cache.hint(0, many).size(), step > 0 ? 1u : 0u) << step;
    cache.begin(0, many);
    cache.end();
  }
}

}  // namespace mete
