// The chain: orders, greedy, seeds, draws against the distribution, mirostat, bad rows, no allocation.
#include "sample/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <limits>
#include <map>
#include <new>

#include "base/rng.h"
#include "sample/order.h"
#include "sample/stages.h"
#include "text/grammar.h"

namespace {
size_t g_allocations = 0;  // counted by the replaced operator new of this test program
}

// Kept out of line: inlined halves of a pair look mismatched to the compiler.
__attribute__((noinline)) void* operator new(size_t size) {
  ++g_allocations;
  if (void* memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
__attribute__((noinline)) void* operator new(size_t size, const std::nothrow_t&) noexcept {
  ++g_allocations;
  return std::malloc(size);
}
__attribute__((noinline)) void operator delete(void* memory) noexcept { std::free(memory); }
__attribute__((noinline)) void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace mete {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr int32_t kVocab = 1000;

std::vector<float> random_logits(uint64_t seed, int32_t vocab = kVocab) {
  std::vector<float> out;
  for (int32_t i = 0; i < vocab; ++i) {
    const double u = random_unit(seed, static_cast<uint64_t>(i), Purpose::kTest);
    out.push_back(static_cast<float>(10.0 * u * u - 2.0));
  }
  return out;
}

SamplingParams plain() {  // everything off: the softmax of the row
  SamplingParams params;
  params.temperature = 1.0f;
  params.top_k = 0;
  params.top_p = 1.0f;
  params.min_p = 0.0f;
  return params;
}

std::map<int32_t, double> distribution(std::span<const Candidate> list) {
  std::map<int32_t, double> out;
  double sum = 0;
  for (const Candidate& c : list) {
    EXPECT_EQ(out.count(c.id), 0U);
    out[c.id] = c.p;
    sum += c.p;
  }
  EXPECT_NEAR(sum, 1.0, 1e-12);
  return out;
}

TEST(Sampler, DefaultChainEqualsItsStagesOneByOne) {
  const auto logits = random_logits(1);
  SamplingParams params;
  Sampler sampler(params, nullptr, kVocab);
  const auto found = distribution(sampler.process(logits, 0));
  Candidates list;
  for (int32_t i = 0; i < kVocab; ++i) list.items.push_back({i, logits[static_cast<size_t>(i)], 0.0});
  apply_top_k(&list, 40);
  apply_top_p(&list, 0.95f, 0);
  apply_min_p(&list, 0.05f, 0);
  apply_temperature(&list, 0.8f, 0.0f, 1.0f);
  softmax(&list);
  EXPECT_EQ(found, distribution(list.items));
}

TEST(Sampler, NeutralSettingsGiveTheSoftmax) {
  const auto logits = random_logits(2);
  Sampler sampler(plain(), nullptr, kVocab);
  const auto found = distribution(sampler.process(logits, 0));
  double sum = 0;
  for (const float z : logits) sum += std::exp(static_cast<double>(z));
  for (int32_t i = 0; i < kVocab; ++i)
    EXPECT_NEAR(found.at(i), std::exp(double{logits[static_cast<size_t>(i)]}) / sum, 1e-15);
}

TEST(Sampler, TopKFromTheRowEqualsTopKFromTheList) {
  for (uint64_t seed = 1; seed < 30; ++seed) {
    auto logits = random_logits(seed);
    for (size_t i = 0; i < logits.size(); i += 3) logits[i] = std::round(logits[i]);  // many ties
    SamplingParams params = plain();
    params.top_k = 50;
    Sampler fast(params, nullptr, kVocab);
    params.logit_bias = {{0, 0.0f}};  // same meaning, but through the whole list
    Sampler slow(params, nullptr, kVocab);
    const auto a = fast.process(logits, 0);
    const auto b = slow.process(logits, 0);
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i) {
      EXPECT_EQ(a[i].id, b[i].id);
      EXPECT_EQ(a[i].p, b[i].p);
    }
  }
}

TEST(Sampler, OrderOfTemperatureAndTruncationsMatters) {
  const auto logits = random_logits(3);
  SamplingParams params = plain();
  params.temperature = 2.0f;
  params.top_p = 0.5f;
  Sampler last(params, nullptr, kVocab);
  const size_t after = last.process(logits, 0).size();
  params.order = temperature_first_order();
  Sampler first(params, nullptr, kVocab);
  EXPECT_GT(first.process(logits, 0).size(), after);
}

TEST(Sampler, MinPAfterTemperatureEqualsPowerBefore) {
  const auto logits = random_logits(4);
  SamplingParams params = plain();
  params.temperature = 1.7f;
  params.min_p = 0.1f;
  params.order = {SamplerStage::kTemperature, SamplerStage::kMinP};
  Sampler after(params, nullptr, kVocab);
  const auto a = distribution(after.process(logits, 0));
  params.min_p = static_cast<float>(std::pow(0.1, 1.7));
  params.order = {SamplerStage::kMinP, SamplerStage::kTemperature};
  Sampler before(params, nullptr, kVocab);
  EXPECT_EQ(a, distribution(before.process(logits, 0)));
}

TEST(Sampler, GreedyTakesTheHighestAndTheLowestIdOfEquals) {
  SamplingParams params;
  params.temperature = 0.0f;
  Sampler sampler(params, nullptr, 5);
  EXPECT_EQ(sampler.sample(std::vector<float>{1, 7, 3, 7, 2}, 0), 1);
  EXPECT_EQ(sampler.process(std::vector<float>{1, 7, 3, 7, 2}, 0)[0].id, 1);
  params.repeat_penalty = 2.0f;
  Sampler penalised(params, nullptr, 5);
  penalised.accept(1);
  EXPECT_EQ(penalised.sample(std::vector<float>{1, 7, 3, 7, 2}, 1), 3);
  penalised.accept(3);
  EXPECT_EQ(penalised.sample(std::vector<float>{1, 7, 3, 7, 2}, 2), 1);
  params.repeat_penalty = 1.0f;
  params.logit_bias = {{4, 10.0f}, {1, -kInf}};
  Sampler biased(params, nullptr, 5);
  EXPECT_EQ(biased.sample(std::vector<float>{1, 7, 3, 7, 2}, 0), 4);
}

TEST(Sampler, ArgmaxForEveryLengthAndPlace) {
  for (size_t size = 1; size <= 70; ++size) {
    for (size_t at = 0; at < size; ++at) {
      std::vector<float> row(size, -1.0f);
      row[at] = 2.0f;
      if (at + 3 < size) row[at + 3] = 2.0f;
      if (at > 0) row[at - 1] = std::nanf("");
      EXPECT_EQ(argmax(row), static_cast<int32_t>(at));
      EXPECT_EQ(count_nans(row), at > 0 ? 1 : 0);
    }
  }
}

TEST(Sampler, DrawsFollowTheProcessedDistribution) {
  const auto logits = random_logits(5);
  SamplingParams params;  // defaults
  params.seed = 42;
  Sampler sampler(params, nullptr, kVocab);
  const auto expected = distribution(sampler.process(logits, 0));
  std::map<int32_t, int64_t> counts;
  constexpr int64_t kDraws = 200000;
  for (int64_t i = 0; i < kDraws; ++i) ++counts[sampler.sample(logits, static_cast<uint64_t>(i))];
  double chi2 = 0;
  for (const auto& [id, p] : expected) {
    const double want = p * kDraws;
    chi2 += (counts[id] - want) * (counts[id] - want) / want;
  }
  EXPECT_EQ(counts.size(), expected.size());
  const auto freedom = static_cast<double>(expected.size() - 1);
  EXPECT_LT(chi2, freedom + 5.0 * std::sqrt(2.0 * freedom));  // five sigma
  EXPECT_GT(chi2, freedom - 5.0 * std::sqrt(2.0 * freedom));
}

TEST(Sampler, TokenIsAFunctionOfSeedAndPosition) {
  const auto logits = random_logits(6);
  SamplingParams params = plain();
  params.seed = 7;
  Sampler a(params, nullptr, kVocab);
  Sampler b(params, nullptr, kVocab);
  std::vector<int32_t> first, second;
  for (uint64_t i = 0; i < 100; ++i) first.push_back(a.sample(logits, i));
  for (uint64_t i = 100; i-- > 0;) second.insert(second.begin(), b.sample(logits, i));
  EXPECT_EQ(first, second);
  params.seed = 8;
  Sampler c(params, nullptr, kVocab);
  int same = 0;
  for (uint64_t i = 0; i < 100; ++i) same += c.sample(logits, i) == first[i] ? 1 : 0;
  EXPECT_LT(same, 20);
  // Pinned: the same on every machine and compiler.
  EXPECT_EQ(std::vector<int32_t>(first.begin(), first.begin() + 4),
            (std::vector<int32_t>{641, 726, 959, 264}));
}

TEST(Sampler, PenaltyWindowSlides) {
  SamplingParams params = plain();
  params.presence_penalty = 3.0f;
  params.penalty_last_n = 2;
  Sampler sampler(params, nullptr, 4);
  const std::vector<float> logits(4, 0.0f);
  const auto penalised = [&] {
    std::string out;
    for (const auto& [id, p] : distribution(sampler.process(logits, 0)))
      out += p < 0.25 ? static_cast<char>('0' + id) : '.';
    return out;
  };
  EXPECT_EQ(penalised(), "....");
  sampler.accept(0);
  EXPECT_EQ(penalised(), "0...");
  sampler.accept(1);
  sampler.accept(2);
  EXPECT_EQ(penalised(), ".12.");
  sampler.rollback(1);
  EXPECT_EQ(penalised(), "01..");
  sampler.accept(3);
  EXPECT_EQ(penalised(), ".1.3");
}

TEST(Sampler, DryLowersTheContinuationOfARepetition) {
  SamplingParams params = plain();
  params.temperature = 0.0f;
  params.dry_multiplier = 1.0f;
  Sampler sampler(params, nullptr, 6);
  for (const int32_t token : {1, 2, 3, 4, 1, 2, 3}) sampler.accept(token);
  const std::vector<float> logits = {0, 0, 0, 0, 1.0f, 0.9f};
  EXPECT_EQ(sampler.sample(logits, 7), 5);
  params.dry_penalty_last_n = 3;
  Sampler shorter(params, nullptr, 6);
  for (const int32_t token : {1, 2, 3, 4, 1, 2, 3}) shorter.accept(token);
  EXPECT_EQ(shorter.sample(logits, 7), 4);
}

TEST(Sampler, MirostatHoldsTheTargetSurprise) {
  for (const int32_t version : {1, 2}) {
    SamplingParams params = plain();
    params.mirostat = version;
    params.mirostat_tau = 3.0f;
    params.mirostat_eta = 0.1f;
    Sampler sampler(params, nullptr, kVocab);
    EXPECT_EQ(sampler.mirostat_mu(), 6.0);
    double sum = 0;
    constexpr int kTokens = 3000;
    for (int i = 0; i < kTokens; ++i) {
      const auto logits = random_logits(static_cast<uint64_t>(i % 50));
      const double mu = sampler.mirostat_mu();
      const int32_t token = sampler.sample(logits, static_cast<uint64_t>(i));
      const double p = distribution(sampler.process(logits, static_cast<uint64_t>(i))).at(token);
      sampler.accept(token);
      const double surprise = -std::log2(p);
      EXPECT_NEAR(sampler.mirostat_mu(), mu - 0.1f * (surprise - 3.0), 1e-9);
      if (i >= kTokens / 2) sum += surprise;
    }
    EXPECT_NEAR(sum / (kTokens / 2), 3.0, 0.3) << "mirostat " << version;
    const double mu = sampler.mirostat_mu();
    sampler.sample(random_logits(1), 1);
    sampler.accept(5);
    sampler.rollback(1);
    EXPECT_EQ(sampler.mirostat_mu(), mu);
  }
}

TEST(Sampler, XtcIsKeyedByPosition) {
  SamplingParams params = plain();
  params.xtc_probability = 0.5f;
  params.xtc_threshold = 0.1f;
  Sampler sampler(params, nullptr, 4);
  const std::vector<float> logits = {3.0f, 2.5f, 2.0f, 0.0f};
  int dropped = 0;
  for (uint64_t i = 0; i < 2000; ++i) {
    const size_t size = sampler.process(logits, i).size();
    EXPECT_TRUE(size == 4 || size == 2);
    EXPECT_EQ(size, sampler.process(logits, i).size());
    dropped += size == 2 ? 1 : 0;
  }
  EXPECT_NEAR(dropped, 1000, 120);
}

TEST(Sampler, BadRowsAreDefinedAndReported) {
  const float nan = std::nanf("");
  for (const float temperature : {0.0f, 0.8f}) {
    SamplingParams params;
    params.temperature = temperature;
    Sampler sampler(params, nullptr, 4);
    EXPECT_EQ(sampler.sample(std::vector<float>{nan, -kInf, 5.0f, nan}, 0), 2);
    EXPECT_EQ(sampler.report().nan_logits, 2);
    EXPECT_FALSE(sampler.report().all_masked);
    EXPECT_EQ(sampler.sample(std::vector<float>(4, -kInf), 0), 0);
    EXPECT_TRUE(sampler.report().all_masked);
    EXPECT_EQ(sampler.sample(std::vector<float>(4, nan), 0), 0);
    EXPECT_EQ(sampler.report().nan_logits, 4);
    EXPECT_EQ(sampler.sample(std::vector<float>{1.0f, kInf, 2.0f, -kInf}, 0), 1);
    EXPECT_FALSE(sampler.report().all_masked);
    params.logit_bias = {{0, -kInf}, {1, -kInf}, {2, -kInf}, {3, -kInf}};
    Sampler banned(params, nullptr, 4);
    EXPECT_EQ(banned.sample(std::vector<float>{1.0f, 3.0f, 2.0f, 0.0f}, 0), 1);
    EXPECT_TRUE(banned.report().all_masked);
  }
}

/// With many allowed tokens the k best are searched for, with few, or with a bias, all are listed first.
TEST(Sampler, TheBestOfTheAllowedAreTheSameHoweverTheyAreFound) {
  constexpr int32_t kLarge = 40000;
  SamplingParams params;
  params.top_k = 50;
  SamplingParams listed = params;
  listed.logit_bias = {{7, 0.0f}};
  Sampler searching(params, nullptr, kLarge), listing(listed, nullptr, kLarge);
  for (uint64_t seed = 0; seed < 8; ++seed) {
    std::vector<float> logits = random_logits(seed, kLarge);
    for (float& x : logits) x = std::round(x * 8) / 8;  // many are equal
    logits[3] = std::nanf("");
    std::vector<uint64_t> mask(kLarge / 64, 0);
    for (size_t i = 0; i < mask.size(); ++i) {
      for (int part = 0; part < (seed % 2 == 0 ? 3 : 1); ++part) {
        mask[i] |= random_bits(seed, i, Purpose::kTest) >> part;
      }
    }
    const auto expected = listing.process(logits, 0, mask);
    const auto found = searching.process(logits, 0, mask);
    ASSERT_EQ(found.size(), expected.size());
    for (size_t i = 0; i < found.size(); ++i) {
      EXPECT_TRUE(mask_allows(mask, found[i].id));
      EXPECT_EQ(found[i].id, expected[i].id);
      EXPECT_EQ(found[i].p, expected[i].p);
    }
    EXPECT_EQ(searching.sample(logits, seed, mask), listing.sample(logits, seed, mask));
  }
}

TEST(Sampler, NoAllocationAfterWarmUp) {
  const auto logits = random_logits(8);
  SamplingParams params;
  params.repeat_penalty = 1.1f;
  params.dry_multiplier = 0.8f;
  params.top_n_sigma = 3.0f;
  params.typical_p = 0.9f;
  params.xtc_probability = 0.5f;
  params.dynatemp_range = 0.2f;
  SamplingParams mirostat;
  mirostat.mirostat = 2;
  for (const SamplingParams& used : {params, mirostat, SamplingParams()}) {
    Sampler sampler(used, nullptr, kVocab);
    sampler.reserve(300);
    sampler.accept(sampler.sample(logits, 0));
    const size_t before = g_allocations;
    for (uint64_t i = 1; i < 250; ++i) sampler.accept(sampler.sample(logits, i));
    EXPECT_EQ(g_allocations, before);
  }
}

TEST(Order, NamesLettersAndErrors) {
  const auto order = parse_sampler_order("top-k;TOPP;temp;typ;min_p");
  ASSERT_TRUE(order);
  EXPECT_EQ(*order,
            (std::vector<SamplerStage>{SamplerStage::kTopK, SamplerStage::kTopP, SamplerStage::kTemperature,
                                       SamplerStage::kTypicalP, SamplerStage::kMinP}));
  EXPECT_EQ(*parse_sampler_letters("edskypmxt"), SamplingParams().order);
  std::string all;
  for (const SamplerStage stage : SamplingParams().order) all += std::string(sampler_stage_name(stage)) + ";";
  EXPECT_EQ(*parse_sampler_order(all), SamplingParams().order);
  EXPECT_NE(parse_sampler_order("top_k;foo").error().message().find("found 'foo'"), std::string::npos);
  EXPECT_NE(parse_sampler_order("top_k;top-k").error().message().find("twice"), std::string::npos);
  EXPECT_FALSE(parse_sampler_letters("kz"));
  EXPECT_EQ(temperature_first_order().size(), SamplingParams().order.size());
}

TEST(SamplingParams, ValidateNamesFieldFoundExpected) {
  SamplingParams params;
  EXPECT_TRUE(params.validate(100));
  params.top_p = 1.5f;
  EXPECT_EQ(params.validate(100).error().message(), "top_p: found 1.5, expected 0 to 1");
  params = {};
  params.logit_bias = {{100, 1.0f}};
  EXPECT_EQ(params.validate(100).error().message(), "logit_bias: found token id 100, expected 0 to 99");
}

}  // namespace
}  // namespace mete
