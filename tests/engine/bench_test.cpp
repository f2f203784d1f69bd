#include "engine/bench.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>

#include "testing/tiny_models.h"

namespace mete {
namespace {

double g_seconds = 0;
/// Each look at the clock takes a quarter of a second.
double slow_clock() { return g_seconds += 0.25; }
int64_t g_ticks = 0;
int64_t counting_clock() { return ++g_ticks; }

class BenchTestFixture : public ::testing::Test {
 protected:
  BenchTestFixture() {
    const std::vector<uint8_t> bytes = testing::named_tiny_model_gguf("llama", DType::kQ4_0);
    path_ = ::testing::TempDir() + "bench_test_" + std::to_string(::getpid()) + ".gguf";
    std::FILE* file = std::fopen(path_.c_str(), "wb");
    std::fwrite(bytes.data(), 1, bytes.size(), file);
    std::fclose(file);
    RuntimeConfig config;
    config.model_path = path_;
    config.threads = 2;
    config.context = 64;
    config.max_rows = 8;
    config.max_seqs = 4;
    config.ledger_clock = counting_clock;
    runtime_ = std::make_unique<Runtime>(config);
  }
  ~BenchTestFixture() override { std::remove(path_.c_str()); }
  std::string path_;
  std::unique_ptr<Runtime> runtime_;
};

TEST_F(BenchTestFixture, CountsWhatItRunsAndTimesPhasesApart) {
  BenchRunner runner(*runtime_, {1, 2, 3, 4, 5}, nullptr, slow_clock);
  const BenchTest test{20, 3, 8, 2, 1};
  const BenchSample sample = runner.run(test, 0);
  EXPECT_DOUBLE_EQ(sample.prompt.seconds, 0.25);  // one look to the next
  EXPECT_DOUBLE_EQ(sample.gen.seconds, 0.25);
  EXPECT_EQ(sample.prompt.ledger.count(Counter::kRows), 40);  // the depth is not in it
  EXPECT_EQ(sample.prompt.ledger.count(Counter::kSteps), 6);  // 8 + 8 + 4 rows, twice
  EXPECT_EQ(sample.gen.ledger.count(Counter::kRows), 6);
  EXPECT_EQ(sample.gen.ledger.count(Counter::kSteps), 3);
  EXPECT_EQ(sample.joules, std::nullopt);
}

TEST_F(BenchTestFixture, DepthIsComputedOnceAndCutBackTo) {
  BenchRunner runner(*runtime_, {1, 2, 3}, nullptr);
  const BenchTest test{4, 2, 16, 1, 1};
  const LedgerMark before = runtime_->ledger().mark();
  for (int i = 0; i < 3; ++i) runner.run(test, i);
  // 16 rows once, then 4 + 2 rows three times.
  EXPECT_EQ(between(before, runtime_->ledger().mark()).count(Counter::kRows), 16 + 3 * 6);
}

TEST_F(BenchTestFixture, ATooLongTestIsAnError) {
  BenchRunner runner(*runtime_, {1}, nullptr);
  EXPECT_THROW(runner.run({1000, 0, 0, 1, 1}, 0), Error);
}

BenchPhase phase(double seconds, int64_t rows, int64_t bytes) {
  BenchPhase p;
  p.seconds = seconds;
  p.ledger.wall_s = seconds;
  p.ledger.counters[static_cast<size_t>(Counter::kRows)] = rows;
  p.ledger.bytes[static_cast<size_t>(Part::kMatmul)] = bytes;
  p.ledger.switches = 10;
  return p;
}

TEST(BenchFigures, DecodeIsHeldAgainstMemory) {
  const BenchTest test{0, 4, 0, 1, 1};
  std::vector<BenchSample> samples(3);
  for (size_t i = 0; i < 3; ++i) {
    samples[i].gen = phase(1.0 + static_cast<double>(i), 4, 4000);  // 4, 2, 4/3 tokens/s
    samples[i].joules = 8.0;
  }
  BenchCost cost;
  cost.macs_per_row = 10;
  cost.macs_per_logits = 5;
  cost.ops_per_s = 1e6;
  cost.read_bytes_per_s = 8000;
  cost.report_s = 0.01;
  const BenchFigures f = figures_of(test, samples, cost);
  EXPECT_DOUBLE_EQ(f.tokens_per_s.median, 2.0);
  EXPECT_DOUBLE_EQ(f.mean, (4 + 2 + 4.0 / 3) / 3);
  EXPECT_DOUBLE_EQ(f.bytes_per_token, 1000);
  EXPECT_DOUBLE_EQ(f.bytes_per_s, 12000.0 / 6);
  EXPECT_DOUBLE_EQ(f.ops_per_s, 3 * 2 * (4 * 10 + 4 * 5) / 6.0);
  EXPECT_DOUBLE_EQ(f.joules_per_token.value(), 2.0);
  EXPECT_DOUBLE_EQ(f.ledger_share, 30 * 0.01 / 6);
  EXPECT_DOUBLE_EQ(f.share_of_limit, 1.5 / 6);  // 12000 bytes at 8000 per second
  EXPECT_TRUE(f.bound_by_memory);
  EXPECT_EQ(f.first_token_s.median, 0);
  std::vector<BenchSample> brief(1);
  brief[0].gen = phase(0.9, 4, 4000);
  brief[0].joules = 8.0;
  EXPECT_EQ(figures_of(test, brief, cost).joules_per_token, std::nullopt);
  samples[1].joules = std::nullopt;
  EXPECT_EQ(figures_of(test, samples, cost).joules_per_token, std::nullopt);
}

TEST(BenchFigures, PromptIsHeldAgainstArithmeticAndMixedAgainstBoth) {
  BenchTest test{100, 0, 0, 2, 1};
  std::vector<BenchSample> samples(1);
  samples[0].prompt = phase(2.0, 200, 1000);
  BenchCost cost;
  cost.macs_per_row = 1e3;
  cost.macs_per_logits = 5e3;
  cost.ops_per_s = 1e6;
  cost.read_bytes_per_s = 1e6;
  const BenchFigures f = figures_of(test, samples, cost);
  EXPECT_DOUBLE_EQ(f.tokens_per_s.median, 100.0);
  EXPECT_DOUBLE_EQ(f.first_token_s.median, 2.0);
  EXPECT_DOUBLE_EQ(f.ops_per_s, 2 * (200e3 + 2 * 5e3) / 2);
  EXPECT_DOUBLE_EQ(f.share_of_limit, 0.42 / 2);
  EXPECT_FALSE(f.bound_by_memory);
  test.gen = 1;
  samples[0].gen = phase(1.0, 2, 900000);
  const BenchFigures mixed = figures_of(test, samples, cost);
  EXPECT_DOUBLE_EQ(mixed.tokens_per_s.median, 202 / 3.0);
  EXPECT_DOUBLE_EQ(mixed.share_of_limit, (0.42 + 0.9) / 3);
  EXPECT_TRUE(mixed.bound_by_memory);
}

TEST(BenchFigures, NoSamplesAndNoLimitsAreNoFigures) {
  EXPECT_EQ(figures_of({0, 1, 0, 1, 1}, {}, {}).tokens_per_s.median, 0);
  std::vector<BenchSample> samples(1);
  samples[0].gen = phase(1.0, 1, 10);
  EXPECT_EQ(figures_of({0, 1, 0, 1, 1}, samples, {}).share_of_limit, 0);
}

TEST(BenchRatio, IsOfMediansWithANoiseBound) {
  const Ratio same = ratio_of({10, 10, 10}, {10, 10, 10});
  EXPECT_EQ(same.value, 1);
  EXPECT_EQ(same.noise, 0);
  EXPECT_TRUE(same.within_noise());
  const Ratio twice = ratio_of({20, 20.1, 20.2, 19.9, 19.8}, {10, 10.1, 9.9, 10, 10});
  EXPECT_DOUBLE_EQ(twice.value, 2);
  EXPECT_FALSE(twice.within_noise());
  // Quartiles 8 and 12 about 10, four values: 1.57 * 4 / (2 * 10).
  const Ratio noisy = ratio_of({10, 10, 10, 10}, {6.5, 8.5, 11.5, 13.5});
  EXPECT_DOUBLE_EQ(noisy.noise, 1.57 * 4 / (2 * 10));
  EXPECT_TRUE(noisy.within_noise());
  EXPECT_EQ(ratio_of({}, {1}).value, 0);
}

TEST(BenchReport, TakesTime) { EXPECT_GT(measure_report_seconds(), 0); }

}  // namespace
}  // namespace mete
