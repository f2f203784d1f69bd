// A request's tokens, log-probabilities and logits have the same bits whatever else the engine does: alone,
// among others, after a prefix hit, after preemption, after a restart with a restored cache.
#include <gtest/gtest.h>

#include <algorithm>

#include "testing/engine_fixture.h"

namespace mete {
namespace {

using testing::EngineTest;

/// Requests that differ in prompt, sampling and length; many share beginnings.
std::vector<Request> mixed_requests(int count) {
  std::vector<Request> requests;
  for (int i = 0; i < count; ++i) {
    Request r;
    const int shared = (i % 4) * 11, own = 1 + (i * 7) % 40;
    for (int k = 0; k < shared; ++k) r.prompt.push_back((k * 13 + i % 2) % 300);
    for (int k = 0; k < own; ++k) r.prompt.push_back((k * 29 + i * 5) % 300);
    r.max_tokens = 3 + (i * 5) % 30;
    r.ignore_eos = i % 3 != 0;
    r.top_logprobs = i % 4;
    r.priority = i % 3 - 1;
    SamplingParams& s = r.sampling;
    s.seed = static_cast<uint64_t>(i);
    s.temperature = i % 5 == 0 ? 0.0f : 0.5f + 0.1f * static_cast<float>(i % 9);
    s.top_k = i % 6 == 1 ? 0 : 40;
    s.frequency_penalty = i % 7 == 2 ? 0.7f : 0.0f;
    s.repeat_penalty = i % 8 == 3 ? 1.3f : 1.0f;
    s.dry_multiplier = i % 9 == 4 ? 0.8f : 0.0f;
    s.xtc_probability = i % 10 == 5 ? 0.5f : 0.0f;
    s.mirostat = i % 11 == 6 ? 2 : 0;
    if (i % 12 == 7) s.logit_bias = {{5, 3.0f}, {6, -100.0f}};
    requests.push_back(r);
  }
  return requests;
}

class ServingTest : public EngineTest, public ::testing::WithParamInterface<const char*> {
 protected:
  ServingTest() : requests_(mixed_requests(64)) {
    write_model(GetParam());
    config_.context = 128;
    config_.page_slots = 16;
    config_.max_rows = 96;
    config_.max_seqs = 64;
    config_.threads = 1;
    load();
    run_alone();
  }
  void run_alone() {
    alone_.clear();
    for (const Request& r : requests_) {
      EngineConfig config;
      config.reuse = ReusePolicy::kNone;
      Engine engine(*runtime_, config);
      alone_.push_back(run(engine, {r})[0]);
    }
  }
  void compare(const std::vector<Outcome>& outcomes, const char* how) {
    ASSERT_EQ(outcomes.size(), alone_.size());
    for (size_t i = 0; i < outcomes.size(); ++i) {
      EXPECT_EQ(outcomes[i], alone_[i]) << "request " << i << ", " << how;
    }
  }
  std::vector<Request> requests_;
  std::vector<Outcome> alone_;
};

TEST_P(ServingTest, AmongOthersAndAfterPrefixHits) {
  for (const int threads : {1, 3}) {
    config_.threads = threads;
    load();
    for (const int64_t step_rows : {96, 70}) {
      EngineConfig config;
      config.step_rows = step_rows;
      config.prompt_rows = step_rows / 3;
      config.max_running = step_rows - 6 > 64 ? 64 : step_rows - 6;
      Engine engine(*runtime_, config);
      compare(run(engine, requests_), "among 64");
      const int64_t hits = engine.stats().cache_hit_tokens;
      compare(run(engine, requests_), "a second time");
      EXPECT_GT(engine.stats().cache_hit_tokens, hits + 1000);
      EXPECT_EQ(engine.stats().preemptions, 0);
    }
  }
}

TEST_P(ServingTest, AfterPreemption) {
  for (Request& r : requests_) {  // that grow by several pages after they have started
    if (r.prompt.size() > 12) r.prompt.resize(12);
    r.max_tokens += 40;
    r.ignore_eos = true;
  }
  run_alone();
  config_.kv_tokens = 256;
  load();
  for (const ReusePolicy policy : {ReusePolicy::kNone, ReusePolicy::kLru, ReusePolicy::kRlt}) {
    EngineConfig config;
    config.reuse = policy;
    Engine engine(*runtime_, config);
    compare(run(engine, requests_), name(policy));
    compare(run(engine, requests_), "a second time");
    EXPECT_GT(engine.stats().preemptions, 10) << name(policy);
    EXPECT_EQ(engine.stats().kv_slots_used, 0);
  }
  EXPECT_EQ(runtime_->kv().bytes(), 0u);
}

TEST_P(ServingTest, AfterMakingWayForBetterOnes) {
  std::stable_sort(requests_.begin(), requests_.end(),
                   [](const Request& a, const Request& b) { return a.priority > b.priority; });
  for (Request& r : requests_) r.max_tokens += 40;
  run_alone();
  for (const ReusePolicy policy : {ReusePolicy::kNone, ReusePolicy::kLru}) {
    EngineConfig config;
    config.reuse = policy;
    config.max_running = 6;
    Engine engine(*runtime_, config);
    compare(run(engine, requests_, 3), name(policy));
    EXPECT_GE(engine.stats().preemptions, 6) << name(policy);
  }
}

TEST_P(ServingTest, AfterARestartWithTheRestoredCache) {
  const std::string file = temporary(".kv");
  {
    Engine engine(*runtime_);
    run(engine, requests_);
    ASSERT_TRUE(engine.save_cache(file));
  }
  config_.threads = 2;
  load();
  {
    Engine engine(*runtime_);
    const Result<RestoredCache> restored = engine.restore_cache(file);
    ASSERT_TRUE(restored) << restored.error().message();
    EXPECT_GT(restored->tokens, 1000);
    compare(run(engine, requests_), "restored");
    EXPECT_GT(engine.stats().cache_hit_tokens, 1500);
  }
  std::remove(file.c_str());
}

INSTANTIATE_TEST_SUITE_P(Models, ServingTest, ::testing::Values("llama", "qwen3", "gemma3", "phi3"),
                         [](const auto& tested) { return std::string(tested.param); });

/// Conversations longer than the window of layers that slide, with KV memory for a few windows only.
class SlidingTest : public EngineTest, public ::testing::WithParamInterface<const char*> {
 protected:
  SlidingTest() {
    write_model(GetParam());
    config_.context = 256;
    config_.page_slots = 16;
    config_.max_rows = 48;
    config_.max_seqs = 2;
    config_.threads = 1;
    config_.kv_tokens = 1024;
    load();
    EngineConfig config;
    config.reuse = ReusePolicy::kNone;
    Engine engine(*runtime_, config);
    std::vector<std::vector<int32_t>> talks(6);
    for (int turn = 0; turn < 5; ++turn) {
      std::vector<Request> now;
      for (size_t t = 0; t < talks.size(); ++t) {
        if (turn == 0) {
          for (int k = 0; k < 60; ++k) talks[t].push_back(k * 13 % 300);  // one system prompt
        }
        for (int k = 0; k < 20; ++k) talks[t].push_back((k * 29 + static_cast<int>(t) * 7 + turn) % 300);
        now.push_back(request(talks[t], 12, 0.7f, t));
      }
      const std::vector<Outcome> outcomes = run(engine, now);
      for (size_t t = 0; t < talks.size(); ++t) {
        talks[t] = outcomes[t].tokens;
        alone_.push_back(outcomes[t]);
        turns_.push_back(now[t]);
      }
    }
  }
  void compare(Engine& engine, const char* how) {
    for (size_t first = 0; first < turns_.size(); first += 6) {
      const std::vector<Request> now(turns_.begin() + static_cast<std::ptrdiff_t>(first),
                                     turns_.begin() + static_cast<std::ptrdiff_t>(first) + 6);
      const std::vector<Outcome> outcomes = run(engine, now);
      for (size_t i = 0; i < 6; ++i) EXPECT_EQ(outcomes[i], alone_[first + i]) << how << ", " << first + i;
    }
  }

  std::vector<Request> turns_;
  std::vector<Outcome> alone_;
};

TEST_P(SlidingTest, PagesOutsideEveryWindowGoFirstAndNoBitChanges) {
  const KvCache& kv = runtime_->kv();
  const auto lists = static_cast<size_t>(kv.lists()), full = static_cast<size_t>(kv.full_lists());
  const size_t pages = 1024 / 16;
  // 4 windows of (8 or 12 tokens and 32 more) of up to 6 pages, and a step of 48 rows: 27 of 64 pages.
  EXPECT_EQ(kv.capacity_bytes(), (pages * full + 27 * (lists - full)) * kv.layout().page_bytes());
  for (const ReusePolicy policy : {ReusePolicy::kLru, ReusePolicy::kRlt}) {
    EngineConfig config;
    config.reuse = policy;
    Engine engine(*runtime_, config);
    compare(engine, name(policy));
    EXPECT_GT(kv.thin_blocks(), 10);
    const EngineStats stats = engine.stats();
    EXPECT_EQ(stats.kv_slots_used, 0);
    // What is kept takes less than it would with its pages of sliding layers.
    const auto blocks = static_cast<size_t>(stats.kv_slots_cached / 16);
    EXPECT_EQ(kv.bytes(), (blocks * lists - static_cast<size_t>(kv.thin_blocks()) * (lists - full)) *
                              kv.layout().page_bytes());
    // Each of the 6 conversations is longer than a window, and its next turn still finds what the last one
    // left.
    EXPECT_GT(stats.cache_hit_tokens, stats.cache_query_tokens / 4);
    compare(engine, "again");
  }
  EXPECT_EQ(kv.bytes(), 0u);
}

TEST_P(SlidingTest, ARestoredCacheIsExactWithPagesThatHaveGone) {
  const std::string file = temporary(".kv");
  {
    Engine engine(*runtime_);
    compare(engine, "before");
    EXPECT_GT(runtime_->kv().thin_blocks(), 10);
    ASSERT_TRUE(engine.save_cache(file));
  }
  load();
  {
    Engine engine(*runtime_);
    const Result<RestoredCache> restored = engine.restore_cache(file);
    ASSERT_TRUE(restored) << restored.error().message();
    EXPECT_EQ(restored->left_out, 0);
    EXPECT_GT(runtime_->kv().thin_blocks(), 10);
    std::vector<Request> last(turns_.end() - 6, turns_.end());
    const std::vector<Outcome> outcomes = run(engine, last);
    for (size_t i = 0; i < 6; ++i) EXPECT_EQ(outcomes[i], alone_[24 + i]);
    EXPECT_GT(engine.stats().cache_hit_tokens, 300);
  }
  std::remove(file.c_str());
}

INSTANTIATE_TEST_SUITE_P(Models, SlidingTest, ::testing::Values("gemma3", "gpt_oss", "phi3", "mistral"),
                         [](const auto& tested) { return std::string(tested.param); });

}  // namespace
}  // namespace mete
