// The exactness matrix on real files with a prompt of 1,500 tokens: six KV splits, chunk borders inside
// splits, past Gemma's window, rows of 576 weights, vocabularies that are no multiple of 16. Slow: not run
// under sanitizers.
#include <gtest/gtest.h>

#include <filesystem>

#include "exactness/machine.h"

namespace mete::testing {
namespace {

class SlowRealModels : public ::testing::TestWithParam<const char*> {};

TEST_P(SlowRealModels, SameBitsInEveryWayThatMustNotMatter) {
  const std::string path = model_path(GetParam());
  if (!std::filesystem::exists(path)) GTEST_SKIP() << GetParam() << " is not in the model folder";
  const GgufFile file = GgufFile::open(path).value();
  const Keep keep{149};
  const auto hash = [&](const MachineConfig& config, int64_t chunk, int neighbours, int64_t count) {
    Machine m(file, config);
    return hash_of(run_logits(m, some_tokens(count, m.vocab()), chunk, neighbours, keep));
  };
  for (const KvType codec : {KvType::kF16, KvType::kBF16, KvType::kQ8_0}) {
    MachineConfig config;
    config.codec = codec;
    const uint64_t expected = hash(config, 512, 0, 1500);
    config.threads = 1;
    EXPECT_EQ(hash(config, 64, 0, 1500), expected) << "chunks of 64, 1 thread";
    config.threads = 3;
    config.page_slots = 16;
    EXPECT_EQ(hash(config, 200, 1, 1500), expected) << "beside another sequence, 3 threads, pages of 16";
    if (codec != KvType::kF16) continue;
    config.threads = 2;
    EXPECT_EQ(hash(config, 7, 0, 1500), expected) << "chunks of 7";
    for (const CpuTier tier : supported_tiers()) {
      if (tier == CpuTier::kGeneric) continue;  // below
      config.tier = tier;
      EXPECT_EQ(hash(config, 500, 0, 1500), expected) << name(tier);
    }
  }
  // One by one, and the scalar tier, on fewer tokens: three splits, and two.
  MachineConfig config;
  const uint64_t expected = hash(config, 512, 0, 600);
  EXPECT_EQ(hash(config, 1, 0, 600), expected) << "one by one";
  const uint64_t small = hash(config, 40, 0, 40);
  config.tier = CpuTier::kGeneric;
  EXPECT_EQ(hash(config, 16, 0, 40), small) << "generic";
}

INSTANTIATE_TEST_SUITE_P(All, SlowRealModels,
                         ::testing::Values("SmolLM2-135M-Instruct.Q4_1.gguf", "gemma-3-270m-q4_k_m.gguf",
                                           "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
                                           "smolmoe-268m-a81m-q4_0.gguf"),
                         [](const auto& tested) {
                           std::string text = tested.param;
                           for (char& c : text) c = std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
                           return text;
                         });

}  // namespace
}  // namespace mete::testing
