// Random submissions, cancellations, deadlines and releases on an engine with little KV memory.
#include <gtest/gtest.h>

#include "base/clock.h"
#include "base/rng.h"
#include "testing/engine_fixture.h"

namespace mete {
namespace {

using testing::EngineTest;

struct FuzzParam {
  ReusePolicy policy;
  const char* model;
};

class EngineFuzz : public EngineTest, public ::testing::WithParamInterface<FuzzParam> {
 protected:
  EngineFuzz() {
    config_.threads = 1;
    config_.context = 96;
    config_.page_slots = 16;
    config_.kv_tokens = 160;
    if (const std::string model = GetParam().model; model != "llama") {
      write_model(model);
      config_.kv_tokens = 320;  // 20 pages, 14 of them for layers with a window
      config_.max_seqs = 1;
    }
    load();
    // A few requests, each submitted many times; prompts share beginnings of many lengths.
    for (int i = 0; i < 10; ++i) {
      std::vector<int32_t> prompt;
      for (int k = 0; k < 1 + (i * 23) % 70; ++k) prompt.push_back(k % (5 + i % 3));
      Request r = request(prompt, 20 + (i * 17) % 60, i % 2 == 0 ? 0.0f : 1.0f, static_cast<uint64_t>(i));
      r.priority = i % 2;
      r.cache_salt = static_cast<uint64_t>(i % 3 == 2);
      if (i == 7) r.pooling = Pooling::kLast;
      if (i == 8) r.pooling = Pooling::kMean;
      requests_.push_back(r);
      expected_.push_back(end_of(r));
    }
  }
  struct End {
    std::vector<int32_t> tokens;
    std::vector<float> embedding;
    uint64_t hash;
    bool operator==(const End& e) const {
      return tokens == e.tokens && embedding == e.embedding && hash == e.hash;
    }
  };
  static End end_of(const Engine& engine, SeqId id) {
    return {engine.tokens(id), engine.embedding(id), engine.logits_hash(id)};
  }
  End end_of(const Request& r) {
    Engine engine(*runtime_);
    const SeqId id = engine.submit(r).value();
    while (!engine.idle()) engine.step();
    return end_of(engine, id);
  }
  std::vector<Request> requests_;
  std::vector<End> expected_;
};

TEST_P(EngineFuzz, WhateverHappensFinishedSequencesAreRightAndNothingLeaks) {
  EngineConfig config;
  config.reuse = GetParam().policy;
  config.max_queue = 12;
  config.step_rows = 20;
  config.max_running = 6;
  auto engine = std::make_unique<Engine>(*runtime_, config);
  std::map<SeqId, size_t> live;  // -> request
  int64_t finished = 0, full = 0, cancelled = 0, overdue = 0;
  uint64_t at = 0;
  const auto dice = [&](uint64_t sides) { return random_bits(3, at++, Purpose::kTest) % sides; };
  const auto step = [&] {
    for (const TokenEvent& e : engine->step()) {
      if (e.reason == FinishReason::kNone) continue;
      ASSERT_EQ(live.count(e.seq), 1u);
      if (e.reason == FinishReason::kDeadline) {
        ++overdue;
      } else {
        ASSERT_NE(e.reason, FinishReason::kError) << engine->error(e.seq);
        ASSERT_EQ(end_of(*engine, e.seq), expected_[live[e.seq]]) << "request " << live[e.seq];
        ++finished;
      }
      live.erase(e.seq);
      engine->release(e.seq);
    }
    const EngineStats s = engine->stats();
    ASSERT_LE(s.running, 6);
    ASSERT_EQ(s.running + s.queued, static_cast<int64_t>(live.size()));
    ASSERT_LE(s.kv_slots_used + s.kv_slots_cached, s.kv_slots_total);
    ASSERT_GE(s.kv_slots_used, 0);
  };
  for (int op = 0; op < 20000; ++op) {
    const uint64_t kind = dice(20);
    if (kind < 5) {
      const size_t which = dice(requests_.size());
      Request r = requests_[which];
      if (dice(8) == 0) r.deadline = now_seconds() + 1e-4 * static_cast<double>(dice(20));
      const Result<SeqId> id = engine->submit(r);
      full += id ? 0 : 1;
      if (id) live[*id] = which;
    } else if (kind == 5 && !live.empty()) {
      auto it = live.begin();
      std::advance(it, dice(live.size()));
      engine->cancel(it->first);
      engine->release(it->first);
      live.erase(it);
      ++cancelled;
    } else {
      step();
    }
    if (HasFatalFailure()) FAIL() << "operation " << op;
  }
  while (!engine->idle()) step();
  EXPECT_EQ(live.size(), 0u);
  EXPECT_GT(finished, 50);
  EXPECT_GT(full, 10);
  EXPECT_GT(cancelled, 20);
  EXPECT_GT(overdue, 10);
  EXPECT_GT(engine->stats().preemptions, 0);
  EXPECT_EQ(engine->stats().kv_slots_used, 0);
  engine.reset();
  EXPECT_EQ(runtime_->kv().bytes(), 0u);
}

INSTANTIATE_TEST_SUITE_P(
    Policies, EngineFuzz,
    ::testing::Values(FuzzParam{ReusePolicy::kNone, "llama"}, FuzzParam{ReusePolicy::kLru, "llama"},
                      FuzzParam{ReusePolicy::kRlt, "llama"}, FuzzParam{ReusePolicy::kLru, "gemma3"},
                      FuzzParam{ReusePolicy::kRlt, "mistral"}, FuzzParam{ReusePolicy::kNone, "gemma3"}),
    [](const auto& tested) { return std::string(name(tested.param.policy)) + "_" + tested.param.model; });

}  // namespace
}  // namespace mete
