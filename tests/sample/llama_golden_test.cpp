// Distributions of llama.cpp's own samplers (tests/golden/sampling/make.py).
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "sample/order.h"
#include "sample/sampler.h"

namespace mete {
namespace {

constexpr int32_t kVocab = 400;

std::vector<float> row(uint32_t seed) {  // as make.py's
  std::vector<float> out;
  uint64_t x = seed;
  for (int32_t i = 0; i < kVocab; ++i) {
    x = (x * 1103515245 + 12345) % (1U << 31);
    const uint64_t u = (x >> 8) % 4096;
    out.push_back(static_cast<float>(u * u / 4096) / 256.0f - 6.0f);
  }
  return out;
}

SamplingParams params_of(const nlohmann::json& given, const std::string& stages) {
  SamplingParams p;
  p.temperature = given.value("temperature", 1.0f);
  p.dynatemp_range = given.value("dynatemp_range", 0.0f);
  p.dynatemp_exponent = given.value("dynatemp_exponent", 1.0f);
  p.top_k = given.value("top_k", 0);
  p.top_p = given.value("top_p", 1.0f);
  p.min_p = given.value("min_p", 0.0f);
  p.typical_p = given.value("typical_p", 1.0f);
  p.top_n_sigma = given.value("top_n_sigma", -1.0f);
  p.xtc_probability = given.value("xtc_probability", 0.0f);
  p.xtc_threshold = given.value("xtc_threshold", 0.1f);
  p.min_keep = given.value("min_keep", 0);
  p.penalty_last_n = given.value("penalty_last_n", 64);
  p.repeat_penalty = given.value("repeat_penalty", 1.0f);
  p.frequency_penalty = given.value("frequency_penalty", 0.0f);
  p.presence_penalty = given.value("presence_penalty", 0.0f);
  p.dry_multiplier = given.value("dry_multiplier", 0.0f);
  p.dry_base = given.value("dry_base", 1.75f);
  p.dry_allowed_length = given.value("dry_allowed_length", 2);
  p.dry_penalty_last_n = given.value("dry_penalty_last_n", -1);
  p.mirostat = given.value("mirostat", 0);
  p.mirostat_tau = given.value("mirostat_tau", 5.0f);
  if (p.mirostat == 0) p.order = parse_sampler_order(stages).value();
  return p;
}

TEST(LlamaGolden, DistributionsAgree) {
  std::ifstream in(std::string(METE_GOLDEN_DIR) + "/sampling/llama.json");
  ASSERT_TRUE(in.good());
  const auto golden = nlohmann::json::parse(in);
  ASSERT_GE(golden["cases"].size(), 50U);
  for (const auto& example : golden["cases"]) {
    SCOPED_TRACE(example["stages"].get<std::string>() + " " + example["params"].dump() + " seed " +
                 example["seed"].dump());
    Sampler sampler(params_of(example["params"], example["stages"]), nullptr, kVocab);
    if (!example["params"].contains("mirostat")) {
      for (const int32_t token : golden["history"]) sampler.accept(token);
    }
    const auto list = sampler.process(row(example["seed"]), 0);
    std::vector<Candidate> found;
    for (const Candidate& c : list) {
      if (c.p > 1e-45) found.push_back(c);  // float's underflow
    }
    std::sort(found.begin(), found.end(), [](const Candidate& a, const Candidate& b) {
      return a.p > b.p || (a.p == b.p && a.id < b.id);
    });
    ASSERT_EQ(found.size(), example["kept"].get<size_t>());
    const auto ids = example["ids"].get<std::vector<int32_t>>();
    const auto p = example["p"].get<std::vector<double>>();
    std::map<int32_t, double> by_id;
    for (const Candidate& c : found) by_id[c.id] = c.p;
    for (size_t i = 0; i < ids.size(); ++i) {
      EXPECT_NEAR(found[i].p, p[i], 2e-5 * p[i]) << "rank " << i;
      // Ties at the end of the excerpt may list another of the equal ids.
      if (by_id.count(ids[i]) == 0) ADD_FAILURE() << "token " << ids[i] << " is missing";
      EXPECT_NEAR(by_id[ids[i]], p[i], 2e-5 * p[i]);
    }
  }
}

}  // namespace
}  // namespace mete
