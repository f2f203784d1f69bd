// Replay: bounds and identities of the policies on synthetic traces, and live runs predicted to the last hit.
#include "weights/replay.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <list>

#include "base/rng.h"
#include "testing/expert_file.h"
#include "weights/expert_store.h"

namespace mete {
namespace {

using testing::ExpertFile;

/// The card's model: each expert of the layer's previous set stays with probability `keep`, the rest uniform.
std::vector<ReplayEvent> synthetic(int32_t layers, int32_t experts, int32_t used, int tokens, double keep) {
  std::vector<std::vector<int32_t>> last(static_cast<size_t>(layers));
  std::vector<ReplayEvent> events;
  uint64_t n = 0;
  for (int t = 0; t < tokens; ++t) {
    for (int32_t layer = 0; layer < layers; ++layer) {
      auto& set = last[static_cast<size_t>(layer)];
      std::erase_if(set, [&](int32_t) { return random_unit(42, n++, Purpose::kTest) >= keep; });
      while (static_cast<int32_t>(set.size()) < used) {
        const auto e =
            static_cast<int32_t>(random_bits(43, n++, Purpose::kTest) % static_cast<uint64_t>(experts));
        if (std::find(set.begin(), set.end(), e) == set.end()) set.push_back(e);
      }
      std::sort(set.begin(), set.end());
      events.push_back({layer, false, {}});
      for (const int32_t e : set) events.back().demands.push_back({e, 1});
    }
  }
  return events;
}

double rate(const ExpertCounts& c) {
  return static_cast<double>(c.hits) / static_cast<double>(c.hits + c.misses);
}

ExpertCacheConfig shared_pool(int64_t slots, ReplaceKind kind = ReplaceKind::kLru) {
  ExpertCacheConfig c{6, 32, slots, true, 0, {}};
  c.replace.kind = kind;
  return c;
}

TEST(Replay, ReproducesTheReferenceCurves) {
  // One shared pool, 6 layers, 32 experts, k = 4, 400 tokens, as in the survey of policies: another
  // generator, hence the tolerance (standard error of a rate of 9600 demands: 0.005).
  struct Row {
    int64_t slots;
    double lru, forced, bypass, sticky_lru, sticky_forced, sticky_bypass;
  };
  constexpr Row kRows[] = {
      {16, 0, .270, .305, 0, .511, .548},       {20, 0, .322, .350, 0, .584, .601},
      {24, .121, .366, .390, .538, .626, .636}, {28, .121, .406, .426, .538, .657, .665},
      {40, .125, .504, .518, .570, .723, .727}, {64, .310, .647, .653, .641, .806, .807},
      {96, .478, .778, .780, .728, .876, .876}, {144, .729, .906, .906, .856, .944, .944}};
  const auto uniform = synthetic(6, 32, 4, 400, 0), sticky = synthetic(6, 32, 4, 400, 0.5);
  for (const Row& r : kRows) {
    SCOPED_TRACE(r.slots);
    const ExpertCacheConfig c = shared_pool(r.slots);
    EXPECT_NEAR(rate(replay(uniform, c)), r.lru, 0.02);
    EXPECT_NEAR(rate(replay_belady(uniform, c)), r.forced, 0.02);
    EXPECT_NEAR(rate(replay_belady_bypass(uniform, c)), r.bypass, 0.02);
    EXPECT_NEAR(rate(replay(sticky, c)), r.sticky_lru, 0.02);
    EXPECT_NEAR(rate(replay_belady(sticky, c)), r.sticky_forced, 0.02);
    EXPECT_NEAR(rate(replay_belady_bypass(sticky, c)), r.sticky_bypass, 0.02);
  }
}

TEST(Replay, NothingBeatsBeladyAndBypassBeatsForced) {
  const LearnedRule rule(std::vector<LearnedNet>(6));
  for (const double keep : {0.0, 0.5, 0.9}) {
    const auto events = synthetic(6, 32, 4, 150, keep);
    for (const bool shared : {false, true}) {
      for (const int64_t slots : {24, 30, 48, 96, 150, 192}) {
        ExpertCacheConfig c{6, 32, slots, shared, 0, {}};
        const int64_t forced = replay_belady(events, c).hits;
        EXPECT_GE(replay_belady_bypass(events, c).hits, forced);
        EXPECT_GE(forced, replay_sch(events, c, 16).hits);
        for (const ReplaceKind kind : kAllReplaceKinds) {
          c.replace.kind = kind;
          c.replace.learned = &rule;
          EXPECT_GE(forced, replay(events, c).hits) << name(kind);
          if (slots == 192) {
            EXPECT_EQ(forced, replay(events, c).hits) << name(kind);  // cold misses only
          }
        }
      }
    }
  }
}

TEST(Replay, UniformRoutingGivesTheShareOfSlots) {
  const auto events = synthetic(2, 32, 4, 6000, 0);
  for (const ReplaceKind kind : {ReplaceKind::kLru, ReplaceKind::kLrfu, ReplaceKind::kClassLru}) {
    for (const int64_t slots : {8, 16, 24}) {
      ExpertCacheConfig c{2, 32, 2 * slots, false, 0, {}};
      c.replace.kind = kind;
      // With k of c slots pinned by the last visit the rate is (c - k ... c) / N; the bound c/N holds within
      // k/N.
      EXPECT_NEAR(rate(replay(events, c)), static_cast<double>(slots) / 32, 0.015) << name(kind);
    }
  }
}

TEST(Replay, LruEqualsStackDistances) {
  const auto events = synthetic(1, 24, 1, 3000, 0.3);
  for (const int64_t slots : {1, 5, 12}) {
    std::list<int32_t> stack;
    int64_t hits = 0;
    for (const ReplayEvent& event : events) {
      const int32_t e = event.demands[0].expert;
      const auto at = std::find(stack.begin(), stack.end(), e);
      hits += at != stack.end() && std::distance(stack.begin(), at) < slots ? 1 : 0;
      if (at != stack.end()) stack.erase(at);
      stack.push_front(e);
    }
    EXPECT_EQ(replay(events, {1, 24, slots, false, 0, {}}).hits, hits);
  }
}

TEST(Replay, ACyclicScanBeatsLruButNotBelady) {
  std::vector<ReplayEvent> events;
  for (int t = 0; t < 600; ++t) events.push_back({0, false, {{t % 12, 1}}});
  const ExpertCacheConfig c{1, 12, 8, false, 0, {}};
  EXPECT_EQ(replay(events, c).hits, 0);
  EXPECT_GT(rate(replay_belady(events, c)), 0.5);
}

TEST(Replay, OneLayerMakesThePoolsTheSame) {
  const auto events = synthetic(1, 16, 3, 500, 0.4);
  const LearnedRule rule(std::vector<LearnedNet>(1));
  for (const ReplaceKind kind : kAllReplaceKinds) {
    ExpertCacheConfig a{1, 16, 7, false, 0, {}}, b{1, 16, 7, true, 0, {}};
    a.replace.kind = b.replace.kind = kind;
    a.replace.learned = b.replace.learned = &rule;
    EXPECT_EQ(replay(events, a).hits, replay(events, b).hits);
  }
}

TEST(Replay, SegmentScores) {
  std::vector<ReplayEvent> constant;
  for (int t = 0; t < 300; ++t) constant.push_back({0, false, {{2, 1}, {5, 1}}});
  const SegmentScore fixed = segment_score(constant, 1, 16, 16);
  EXPECT_DOUBLE_EQ(fixed.srp, 1);
  EXPECT_DOUBLE_EQ(fixed.size_ratio, 1);
  const auto uniform = synthetic(1, 16, 4, 4000, 0);
  EXPECT_NEAR(segment_score(uniform, 1, 16, 256).srp, 2 * 0.25 / 1.25, 0.02);  // 2p / (1 + p)
  EXPECT_GT(segment_score(uniform, 1, 16, 4).srp, segment_score(uniform, 1, 16, 64).srp);
}

TEST(Replay, TokensOfAChunkAreVisitsInTokenOrder) {
  RoutingTrace t;
  t.layers = 2, t.experts = 8, t.used = 1;
  t.ids = {1, 2, 3, 4};
  t.records = {{RoutingTrace::Kind::kVisit, 0, 2, 0}, {RoutingTrace::Kind::kVisit, 1, 2, 2}};
  const auto events = tokens_of(t);
  ASSERT_EQ(events.size(), 4u);
  const int32_t layers[] = {0, 1, 0, 1}, experts[] = {1, 3, 2, 4};
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(events[i].layer, layers[i]);
    EXPECT_EQ(events[i].demands[0].expert, experts[i]);
  }
  EXPECT_EQ(steps_of(t).size(), 2u);
}

/// Writes down what a store is told.
class Log final : public ExpertStoreLog {
 public:
  explicit Log(RoutingTraceWriter& writer) : writer_(writer) {}
  void demanded(int, std::span<const ExpertDemand>, std::span<const ExpertCache::Item>) noexcept override {}
  void hinted(int layer, std::span<const ExpertDemand> demands) noexcept override {
    std::vector<RoutingTrace::Hint> hints;
    for (const ExpertDemand& d : demands) hints.push_back({d.expert, d.rows});
    writer_.hint(layer, hints);
  }

 private:
  RoutingTraceWriter& writer_;
};

TEST(Replay, PredictsALiveRunExactly) {
  const ExpertFile file("replay");
  const std::string path = file.path + ".trace";
  ThreadPool pool(2);
  const KernelTable table{};
  Context ctx{pool, table};
  const std::vector<LearnedNet> nets(ExpertFile::kLayers);
  const LearnedRule rule(nets);
  for (const ReplaceKind kind : kAllReplaceKinds) {
    for (const bool shared : {false, true}) {
      ExpertStoreConfig config;
      config.slots = 10, config.shared = shared, config.guesses = 2, config.guess_threshold = 0.25;
      config.replace.kind = kind, config.replace.learned = &rule;
      ExpertStore store(ctx, *file.file, file.declaration, config);
      RoutingTraceWriter writer(path, ExpertFile::kLayers, ExpertFile::kExperts, 2, 1);
      Log log(writer);
      store.set_log(&log);
      uint64_t n = 0;
      for (int step = 0; step < 240; ++step) {
        const int layer = step % ExpertFile::kLayers;
        const int64_t rows = step / 3 % 10 == 0 ? 6 : 1;
        std::vector<int32_t> ids;
        std::vector<float> weights(static_cast<size_t>(rows * 2), 0.5f);
        std::vector<ExpertDemand> demands;
        for (int64_t r = 0; r < rows; ++r) {
          const auto first = static_cast<int32_t>(random_bits(9, n++, Purpose::kTest) % 8);
          ids.push_back(first);
          ids.push_back((first + 1 + static_cast<int32_t>(random_bits(9, n++, Purpose::kTest) % 3)) % 8);
        }
        for (int32_t e = 0; e < 8; ++e) {
          const auto count = static_cast<int32_t>(std::count(ids.begin(), ids.end(), e));
          if (count > 0) demands.push_back({e, count});
        }
        writer.visit(layer, rows, 2, ids.data(), weights.data());
        store.begin(layer, demands);
        const std::vector<ExpertDemand> guess{{static_cast<int32_t>(n % 8), 1},
                                              {static_cast<int32_t>((n + 3) % 8), 1}};
        store.hint((layer + 1) % ExpertFile::kLayers, guess);
        for (auto ready = store.next(); ready && !(*ready).empty(); ready = store.next()) {
        }
        store.end();
      }
      writer.close();
      std::ifstream in(path, std::ios::binary);
      const std::vector<uint8_t> bytes((std::istreambuf_iterator<char>(in)),
                                       std::istreambuf_iterator<char>());
      const auto trace = RoutingTrace::parse(bytes);
      ASSERT_TRUE(trace) << trace.error().message();
      ExpertCacheConfig replayed{ExpertFile::kLayers, ExpertFile::kExperts,  10, shared, 2,
                                 config.replace,      config.guess_threshold};
      const ExpertCounts want = store.stats().counts, got = replay(steps_of(*trace), replayed);
      EXPECT_EQ(got.hits, want.hits) << name(kind);
      EXPECT_EQ(got.misses, want.misses) << name(kind);
      EXPECT_EQ(got.guesses, want.guesses) << name(kind);
      EXPECT_EQ(got.useful_guesses, want.useful_guesses) << name(kind);
      EXPECT_GT(want.hits, 0);
      EXPECT_GT(want.useful_guesses, 0);
    }
  }
  std::remove(path.c_str());
}

}  // namespace
}  // namespace mete
