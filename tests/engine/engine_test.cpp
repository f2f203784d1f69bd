#include "engine/engine.h"

#include <gtest/gtest.h>

#include <cmath>
#include <tuple>

#include "base/clock.h"
#include "testing/engine_fixture.h"
#include "text/grammar.h"

namespace mete {
namespace {

using testing::EngineTest;

TEST_F(EngineTest, EngineGivesTheSameAloneAndAmongOthers) {
  std::vector<Request> requests;
  for (int i = 0; i < 6; ++i) {
    std::vector<int32_t> prompt;
    for (int k = 0; k < 5 + 7 * i; ++k) prompt.push_back((k * 31 + i * 17) % 300);
    requests.push_back(request(prompt, 12, i % 2 == 0 ? 0.0f : 0.9f, static_cast<uint64_t>(i)));
  }
  const std::vector<Outcome> together = run_fresh(requests);
  for (size_t i = 0; i < requests.size(); ++i) {
    EXPECT_EQ(run_fresh({requests[i]})[0], together[i]) << "request " << i;
    EXPECT_EQ(together[i].tokens.size(), requests[i].prompt.size() + 12);
    EXPECT_EQ(together[i].reason, FinishReason::kLength);
  }
  EXPECT_EQ(runtime_->kv().bytes(), 0u);
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

TEST_F(EngineTest, EnginePreemptsWhenKvMemoryIsFullWithTheSameBits) {
  config_.context = 256;
  config_.page_slots = 16;
  load();
  std::vector<Request> requests;
  for (int i = 0; i < 9; ++i) {
    requests.push_back(request(std::vector<int32_t>(static_cast<size_t>(20 + i), i + 1), 60,
                               i % 2 == 0 ? 0.0f : 1.1f, static_cast<uint64_t>(i)));
    requests.back().sampling.frequency_penalty = i % 3 == 0 ? 0.5f : 0.0f;
    requests.back().priority = i % 2;
  }
  std::vector<Outcome> alone;
  for (const Request& r : requests) alone.push_back(run_fresh({r})[0]);

  config_.kv_tokens = 256;
  load();
  for (const ReusePolicy policy : {ReusePolicy::kNone, ReusePolicy::kLru, ReusePolicy::kRlt}) {
    EngineConfig config;
    config.reuse = policy;
    {
      Engine engine(*runtime_, config);
      EXPECT_EQ(run(engine, requests), alone) << name(policy);
      EXPECT_GT(engine.stats().preemptions, 0);
      EXPECT_EQ(engine.stats().kv_slots_used, 0);
    }
    EXPECT_EQ(runtime_->kv().bytes(), 0u);
  }
}

TEST_F(EngineTest, EngineComputesOnlyWhatIsNewWithTheSameBits) {
  const std::vector<int32_t> first = {1, 2, 3, 4, 5, 6, 7, 8};
  const std::vector<int32_t> second = {1, 2, 3, 4, 5, 60, 61, 62, 63};
  const Outcome fresh = run_fresh({request(second, 6)})[0];
  Engine engine(*runtime_);
  const auto check = [&](const Request& r, int64_t computed, const Outcome& expected) {
    const SeqId id = engine.submit(r).value();
    while (!engine.idle()) engine.step();
    EXPECT_EQ(engine.ledger(id).prefill_tokens, computed);
    EXPECT_EQ(engine.tokens(id), expected.tokens);
    EXPECT_EQ(engine.logits_hash(id), expected.hash);
    engine.release(id);
  };
  check(request(first, 4), 8, run_fresh({request(first, 4)})[0]);
  check(request(second, 6), 4, fresh);  // five of nine are there
  check(request(second, 6), 1, fresh);  // the last token is computed for its logits
  Request salted = request(second, 6);
  salted.cache_salt = 1;
  check(salted, 9, fresh);
  // The next turn: all but the last sampled token was computed.
  std::vector<int32_t> turn = fresh.tokens;
  turn.push_back(77);
  check(request(turn, 3), 2, run_fresh({request(turn, 3)})[0]);
  EXPECT_EQ(engine.stats().cache_query_tokens, 8 + 9 + 9 + 9 + 16);
  EXPECT_EQ(engine.stats().cache_hit_tokens, 0 + 5 + 8 + 0 + 14);
}

TEST_F(EngineTest, EqualPromptsThatArriveTogetherAreComputedOnce) {
  std::vector<int32_t> prompt;
  for (int i = 0; i < 60; ++i) prompt.push_back((i * 29) % 300);
  std::vector<Request> requests;
  std::vector<Outcome> alone;
  for (uint64_t i = 0; i < 4; ++i) {
    requests.push_back(request(prompt, 5, 1.0f, i));
    alone.push_back(run_fresh({requests.back()})[0]);
  }
  Engine engine(*runtime_);
  EXPECT_EQ(run(engine, requests), alone);
  // One computes 60 rows; 32 of them, a whole page, are there for the others.
  EXPECT_EQ(engine.stats().prefilled_tokens, 60 + 3 * 28);
  EXPECT_EQ(engine.stats().cache_hit_tokens, 3 * 32);
}

TEST_F(EngineTest, EngineQueueIsBoundedAndRunsByPriorityThenArrival) {
  EngineConfig config;
  config.max_running = 1;
  config.max_queue = 3;
  Engine engine(*runtime_, config);
  std::vector<SeqId> ids;
  for (const int priority : {0, 5, 0, -1}) {
    Request r = request({1, 2, 3}, 2);
    r.priority = priority;
    ids.push_back(engine.submit(r).value());
  }
  const Result<SeqId> refused = engine.submit(request({1}, 1));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Code::kOverBudget);
  EXPECT_EQ(refused.error().message(), "the queue is full: 0 sequences run, 4 wait");
  std::vector<SeqId> finished;
  while (!engine.idle()) {
    for (const TokenEvent& e : engine.step()) {
      if (e.reason != FinishReason::kNone) finished.push_back(e.seq);
    }
  }
  EXPECT_EQ(finished, (std::vector<SeqId>{ids[3], ids[0], ids[2], ids[1]}));
}

TEST_F(EngineTest, EngineEndsOverdueSequencesWhetherTheyRunOrWait) {
  EngineConfig config;
  config.max_running = 1;
  Engine engine(*runtime_, config);
  Request late = request({1, 2, 3}, 30);
  const SeqId running = engine.submit(late).value();
  engine.step();
  late.deadline = now_seconds();
  const SeqId waiting = engine.submit(late).value();
  const std::vector<TokenEvent> events = engine.step();
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(events[0].seq, waiting);
  EXPECT_EQ(events[0].reason, FinishReason::kDeadline);
  EXPECT_EQ(events[0].token, -1);
  EXPECT_EQ(events[1].seq, running);
  EXPECT_TRUE(engine.ended(waiting));
  EXPECT_FALSE(engine.ended(running));
}

TEST_F(EngineTest, EngineRefusesConfigurationsThatCannotBe) {
  EngineConfig config;
  config.max_running = 25;  // more than rows of a step
  EXPECT_THROW(Engine(*runtime_, config), Error);
  config = {};
  config.step_rows = 25;
  EXPECT_THROW(Engine(*runtime_, config), Error);
  config_.kv_tokens = 63;
  EXPECT_THROW(Runtime{config_}, Error);
}

TEST_F(EngineTest, LogprobsAreOfTheRawLogitsAndDoNotDependOnOthers) {
  Request r = request({5, 6, 7, 8}, 6, 1.5f, 3);
  r.top_logprobs = 4;
  r.sampling.logit_bias = {{100, 1000.0f}};  // forces a token that the raw logits find unlikely
  const auto logprobs = [&](int others) {
    Engine engine(*runtime_);
    for (int i = 0; i < others; ++i) {
      Request other = request(std::vector<int32_t>(static_cast<size_t>(3 + i), 9 + i), 8);
      other.top_logprobs = i;
      engine.submit(other).value();
    }
    const SeqId id = engine.submit(r).value();
    std::vector<std::pair<int32_t, float>> all;
    while (!engine.idle()) {
      for (const TokenEvent& e : engine.step()) {
        if (e.seq != id) continue;
        all.emplace_back(e.token, e.logprob);
        EXPECT_EQ(e.top.size(), 4u);
        for (const TokenLogprob& t : e.top) all.emplace_back(t.token, t.logprob);
      }
    }
    return all;
  };
  const auto alone = logprobs(0);
  ASSERT_EQ(alone.size(), 30u);
  EXPECT_EQ(alone[0].first, 100);
  EXPECT_LT(alone[0].second, alone[1].second);
  for (size_t i = 2; i < 5; ++i) EXPECT_LE(alone[i].second, alone[i - 1].second);
  EXPECT_EQ(logprobs(5), alone);
}

TEST_F(EngineTest, EmbeddingsDoNotDependOnChunksOrCompany) {
  std::vector<int32_t> prompt;
  for (int i = 0; i < 50; ++i) prompt.push_back((i * 37) % 300);
  for (const Pooling pooling : {Pooling::kLast, Pooling::kMean}) {
    Request r = request(prompt, -1);
    r.pooling = pooling;
    const auto embed = [&](int64_t step_rows, int others) {
      EngineConfig config;
      config.step_rows = step_rows;
      Engine engine(*runtime_, config);
      for (int i = 0; i < others; ++i) engine.submit(request({1, 2, 3 + i}, 30)).value();
      const SeqId id = engine.submit(r).value();
      while (!engine.ended(id)) engine.step();
      return engine.embedding(id);
    };
    const std::vector<float> whole = embed(24, 0);
    EXPECT_EQ(whole.size(), static_cast<size_t>(runtime_->model_config().d_model));
    EXPECT_EQ(embed(8, 0), whole);
    EXPECT_EQ(embed(11, 4), whole);
    // The states that a step gives for all rows at once.
    std::vector<Row> rows;
    std::vector<int32_t> wanted;
    const SeqId kv = runtime_->kv().create();
    std::vector<float> states;
    for (int32_t begin = 0; begin < 50; begin += 10) {
      rows.clear(), wanted.clear();
      for (int32_t i = 0; i < 10; ++i)
        rows.push_back({prompt[static_cast<size_t>(begin + i)], begin + i, kv}), wanted.push_back(i);
      std::vector<float> hidden(whole.size() * 10);
      Batch batch;
      batch.rows = rows;
      batch.hidden_rows = wanted;
      Outputs outputs;
      outputs.hidden = hidden.data();
      ASSERT_TRUE(runtime_->step(batch, outputs));
      states.insert(states.end(), hidden.begin(), hidden.end());
    }
    runtime_->kv().release(kv);
    for (size_t i = 0; i < whole.size(); ++i) {
      double sum = 0;
      for (size_t t = 0; t < 50; ++t) sum += static_cast<double>(states[t * whole.size() + i]);
      const float expected =
          pooling == Pooling::kMean ? static_cast<float>(sum / 50) : states[49 * whole.size() + i];
      ASSERT_EQ(whole[i], expected) << i;
    }
  }
}

/// Allows the tokens of one list in turn, and then the end. Follows no more than `limit` of them.
class ListGrammar : public Grammar {
 public:
  explicit ListGrammar(std::vector<int32_t> list, size_t limit = SIZE_MAX)
      : list_(std::move(list)), limit_(limit) {}
  std::unique_ptr<GrammarState> make_state() const override { return std::make_unique<State>(*this); }

 private:
  class State : public GrammarState {
   public:
    explicit State(const ListGrammar& grammar) : grammar_(grammar), mask_(5, 0) {}
    std::span<const uint64_t> mask() override {
      std::fill(mask_.begin(), mask_.end(), 0);
      const auto token = static_cast<size_t>(grammar_.list_[at_]);
      mask_[token / 64] |= uint64_t{1} << (token % 64);
      return mask_;
    }
    bool accept(int32_t token) override {
      return at_ < grammar_.limit_ && token == grammar_.list_[at_] && ++at_ > 0;
    }
    bool is_done() const override { return at_ == grammar_.list_.size(); }

   private:
    const ListGrammar& grammar_;
    std::vector<uint64_t> mask_;
    size_t at_ = 0;
  };
  std::vector<int32_t> list_;
  size_t limit_;
};

TEST_F(EngineTest, AGrammarDecidesGreedyAndSampledAlike) {
  Engine engine(*runtime_);
  for (const float temperature : {0.0f, 1.0f}) {
    Request r = request({1, 2, 3}, 20, temperature);
    r.grammar = std::make_shared<ListGrammar>(std::vector<int32_t>{250, 64, 63, 319});
    const Outcome o = run(engine, {r})[0];
    EXPECT_EQ(o.tokens, (std::vector<int32_t>{1, 2, 3, 250, 64, 63, 319}));
    EXPECT_EQ(o.reason, FinishReason::kStop);
  }
}

TEST_F(EngineTest, ABetterRequestTakesThePlaceOfTheWorstAndEqualOnesNever) {
  EngineConfig config;
  config.max_running = 2;
  Engine engine(*runtime_, config);
  const auto submit = [&](int32_t token, int32_t priority) {
    Request r = request({token, 2, 3}, 12);
    r.priority = priority;
    const SeqId id = engine.submit(r).value();
    engine.step();
    engine.step();
    return id;
  };
  const auto preempted = [&](SeqId id) { return engine.ledger(id).preemptions; };
  const SeqId first = submit(1, 1), second = submit(2, 1), equal = submit(3, 1);
  EXPECT_EQ(engine.rows_done(equal), 0);
  EXPECT_EQ(engine.stats().preemptions, 0);
  const SeqId better = submit(4, 0);  // the newer of the worst two makes way
  EXPECT_EQ(std::tuple(preempted(first), preempted(second), preempted(equal)), std::tuple(0, 1, 0));
  EXPECT_GT(engine.rows_done(better), 0);
  const SeqId same = submit(5, 0);
  EXPECT_EQ(std::tuple(preempted(first), preempted(better)), std::tuple(1, 0));
  const SeqId third = submit(6, 0);  // none of its equals does
  EXPECT_EQ(engine.stats().preemptions, 2);
  EXPECT_EQ(engine.rows_done(third), 0);
  while (!engine.idle()) engine.step();
  EXPECT_EQ(engine.stats().preemptions, 2);
  for (const SeqId id : {first, second, equal, better, same, third}) {
    Request r = request({engine.tokens(id)[0], 2, 3}, 12);
    EXPECT_EQ(engine.tokens(id), run_fresh({r})[0].tokens) << id;
  }
}

TEST_F(EngineTest, ProbabilitiesAfterSamplingAreThoseThatTokensAreDrawnBy) {
  Request r = request({5, 6, 7, 8}, 6, 1.5f, 3);
  r.sampling.top_p = 1;
  r.sampling.min_p = 0;
  r.sampling.top_k = 7;
  r.top_logprobs = static_cast<int32_t>(runtime_->model_config().vocab);
  const auto events = [&](bool after) {
    r.post_sampling_probs = after;
    Engine engine(*runtime_);
    engine.submit(request({1, 2}, 9)).value();
    const SeqId id = engine.submit(r).value();
    std::vector<std::pair<TokenEvent, std::vector<TokenLogprob>>> all;
    while (!engine.idle()) {
      for (const TokenEvent& e : engine.step()) {
        if (e.seq == id) all.push_back({e, {e.top.begin(), e.top.end()}});
      }
    }
    return all;
  };
  const auto raw = events(false), drawn = events(true);
  ASSERT_EQ(drawn.size(), raw.size());
  for (size_t i = 0; i < raw.size(); ++i) {
    EXPECT_EQ(drawn[i].first.token, raw[i].first.token);
    ASSERT_EQ(drawn[i].second.size(), 7u);
    double sum = 0;
    for (size_t k = 0; k < 7; ++k) sum += std::exp(static_cast<double>(raw[i].second[k].logprob) / 1.5);
    for (size_t k = 0; k < 7; ++k) {
      const TokenLogprob& found = drawn[i].second[k];
      EXPECT_EQ(found.token, raw[i].second[k].token);
      EXPECT_NEAR(found.logprob, std::exp(static_cast<double>(raw[i].second[k].logprob) / 1.5) / sum, 1e-5);
      if (found.token == drawn[i].first.token) {
        EXPECT_EQ(found.logprob, drawn[i].first.logprob);
      }
    }
  }
  r.sampling.temperature = 0;
  for (const auto& [event, top] : events(true)) {
    ASSERT_EQ(top.size(), 1u);
    EXPECT_EQ(std::pair(top[0].token, top[0].logprob), std::pair(event.token, 1.0f));
  }
}

TEST_F(EngineTest, AGrammarThatCannotGoOnEndsItsSequenceAlone) {
  Request bad = request({1, 2, 3}, 20);
  bad.grammar = std::make_shared<ListGrammar>(std::vector<int32_t>{250, 64, 63, 319}, 2);
  const Request other = request({4, 5}, 10);
  const std::vector<Outcome> both = run_fresh({bad, other});
  EXPECT_EQ(both[0].reason, FinishReason::kError);
  EXPECT_EQ(both[0].tokens, (std::vector<int32_t>{1, 2, 3, 250, 64}));
  EXPECT_EQ(both[1], run_fresh({other})[0]);
  EXPECT_EQ(runtime_->kv().bytes(), 0u);
}

}  // namespace
}  // namespace mete
