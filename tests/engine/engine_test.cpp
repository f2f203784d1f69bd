#include "engine/engine.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <map>

#include "testing/tiny_models.h"

namespace mete {
namespace {

/// A tiny model in a temporary file, loaded with a context of 64 tokens.
class EngineTest : public ::testing::Test {
 protected:
  EngineTest() {
    const std::vector<uint8_t> bytes = testing::named_tiny_model_gguf("llama", DType::kQ4_0);
    path_ = ::testing::TempDir() + "engine_test_" + std::to_string(::getpid()) + ".gguf";
    std::FILE* file = std::fopen(path_.c_str(), "wb");
    std::fwrite(bytes.data(), 1, bytes.size(), file);
    std::fclose(file);
    RuntimeConfig config;
    config.model_path = path_;
    config.threads = 2;
    config.context = 64;
    config.max_rows = 24;
    config.max_seqs = 8;
    runtime_ = std::make_unique<Runtime>(config);
  }
  ~EngineTest() override { std::remove(path_.c_str()); }

  static Request request(std::vector<int32_t> prompt, int64_t max_tokens, float temperature = 0,
                         uint64_t seed = 0) {
    Request r;
    r.prompt = std::move(prompt);
    r.max_tokens = max_tokens;
    r.ignore_eos = true;
    r.sampling.temperature = temperature;
    r.sampling.seed = seed;
    return r;
  }
  struct Outcome {
    std::vector<int32_t> tokens;
    FinishReason reason;
    uint64_t hash;
    bool operator==(const Outcome& o) const {
      return tokens == o.tokens && reason == o.reason && hash == o.hash;
    }
  };
  /// Runs all requests together until the engine is idle; outcomes in the order of the requests.
  static std::vector<Outcome> run(Engine& engine, const std::vector<Request>& requests) {
    std::vector<SeqId> ids;
    for (const Request& r : requests) ids.push_back(engine.submit(r).value());
    std::map<SeqId, FinishReason> reasons;
    while (!engine.idle()) {
      for (const TokenEvent& e : engine.step()) reasons[e.seq] = e.reason;
    }
    std::vector<Outcome> outcomes;
    for (const SeqId id : ids) outcomes.push_back({engine.tokens(id), reasons[id], engine.logits_hash(id)});
    for (const SeqId id : ids) engine.release(id);
    return outcomes;
  }

  std::string path_;
  std::unique_ptr<Runtime> runtime_;
};

TEST_F(EngineTest, EngineGivesTheSameAloneAndAmongOthers) {
  std::vector<Request> requests;
  for (int i = 0; i < 6; ++i) {
    std::vector<int32_t> prompt;
    for (int k = 0; k < 5 + 7 * i; ++k) prompt.push_back((k * 31 + i * 17) % 300);
    requests.push_back(request(prompt, 12, i % 2 == 0 ? 0.0f : 0.9f, static_cast<uint64_t>(i)));
  }
  Engine engine(*runtime_);
  const std::vector<Outcome> together = run(engine, requests);
  for (size_t i = 0; i < requests.size(); ++i) {
    EXPECT_EQ(run(engine, {requests[i]})[0], together[i]) << "request " << i;
    EXPECT_EQ(together[i].tokens.size(), requests[i].prompt.size() + 12);
    EXPECT_EQ(together[i].reason, FinishReason::kLength);
  }
  EXPECT_EQ(runtime_->kv().bytes(), 0u);
}

TEST_F(EngineTest, EngineReusesTheCommonPrefixWithTheSameBits) {
  Engine engine(*runtime_);
  const std::vector<int32_t> first = {1, 2, 3, 4, 5, 6, 7, 8};
  std::vector<int32_t> second = {1, 2, 3, 4, 5, 60, 61, 62, 63};
  const Outcome fresh = run(engine, {request(second, 6)})[0];

  const SeqId id = engine.submit(request(first, 4)).value();
  while (!engine.idle()) engine.step();
  const SeqId again = engine.submit(request(second, 6), id).value();
  while (!engine.idle()) engine.step();
  EXPECT_EQ(engine.tokens(again), fresh.tokens);
  EXPECT_EQ(engine.logits_hash(again), fresh.hash);
  EXPECT_EQ(engine.ledger(again).prefill_tokens, 4);  // five of nine were there

  // The very same prompt: only its last token is computed anew.
  const SeqId same = engine.submit(request(second, 6), again).value();
  while (!engine.idle()) engine.step();
  EXPECT_EQ(engine.logits_hash(same), fresh.hash);
  EXPECT_EQ(engine.ledger(same).prefill_tokens, 1);
}

TEST_F(EngineTest, EngineEndsAtTheContextWithLength) {
  Engine engine(*runtime_);
  const Outcome o = run(engine, {request({1, 2, 3}, -1)})[0];
  EXPECT_EQ(o.reason, FinishReason::kLength);
  EXPECT_EQ(o.tokens.size(), 65u);  // 64 in the context and one sampled from the last
}

TEST_F(EngineTest, EngineRefusesBadRequestsByName) {
  Engine engine(*runtime_);
  EXPECT_EQ(engine.submit(request({}, 1)).error().message(),
            "the prompt is empty: at least one token is needed");
  EXPECT_EQ(engine.submit(request(std::vector<int32_t>(65, 1), 1)).error().message(),
            "the prompt has 65 tokens, the context holds 64 (-c)");
  EXPECT_EQ(engine.submit(request({1, 320}, 1)).error().message(),
            "token id 320 in the prompt: expected 0..319");
  EXPECT_EQ(engine.submit(request({-1}, 1)).error().message(), "token id -1 in the prompt: expected 0..319");
  Request bad = request({1}, 1);
  bad.sampling.top_p = 2;
  EXPECT_EQ(engine.submit(bad).error().exit_code(), 2);
  EXPECT_TRUE(engine.idle());
  EXPECT_EQ(runtime_->kv().bytes(), 0u);
}

TEST_F(EngineTest, EngineCancelLeavesOthersUnharmed) {
  Engine engine(*runtime_);
  const Outcome alone = run(engine, {request({9, 8, 7}, 20)})[0];
  const SeqId kept = engine.submit(request({9, 8, 7}, 20)).value();
  const SeqId cancelled = engine.submit(request({1, 2, 3, 4}, 20)).value();
  for (int i = 0; i < 5; ++i) engine.step();
  engine.cancel(cancelled);
  engine.release(cancelled);
  while (!engine.idle()) engine.step();
  EXPECT_EQ(engine.tokens(kept), alone.tokens);
  EXPECT_EQ(engine.logits_hash(kept), alone.hash);
}

TEST_F(EngineTest, EngineSaysWhenEveryTokenIsBanned) {
  Engine engine(*runtime_);
  Request banned = request({1, 2, 3}, 4);
  for (int32_t id = 0; id < 320; ++id) banned.sampling.logit_bias.emplace_back(id, -INFINITY);
  const SeqId id = engine.submit(banned).value();
  while (!engine.idle()) engine.step();
  EXPECT_EQ(engine.error(id), "no token is left to choose from at position 3: the logit bias bans all");
}

TEST_F(EngineTest, EngineReportsAFullKvPoolAsAValue) {
  Engine engine(*runtime_);
  // Nine sequences of 60 tokens need more than the pool's 8 * 64.
  for (int i = 0; i < 9; ++i) engine.submit(request(std::vector<int32_t>(60, i + 1), 4)).value();
  int errors = 0;
  while (!engine.idle()) {
    for (const TokenEvent& e : engine.step()) {
      if (e.reason != FinishReason::kError) continue;
      ++errors;
      EXPECT_FALSE(engine.error(e.seq).empty());
    }
  }
  EXPECT_GT(errors, 0);
}

}  // namespace
}  // namespace mete
