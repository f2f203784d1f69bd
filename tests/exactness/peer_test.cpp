// Real files against llama.cpp (tests/golden/llama/make.py): where the peer's choice is clear, ours is the
// same.
#include <gtest/gtest.h>

#include <cctype>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "exactness/machine.h"

namespace mete::testing {
namespace {

/// Our choice at each step of the peer's text: rows `first` .. of the tokens, in one step.
std::vector<int32_t> choices(Machine& machine, const std::vector<int32_t>& tokens, size_t first) {
  const SeqId seq = machine.kv().create();
  std::vector<Row> rows;
  std::vector<int32_t> wanted;
  for (size_t i = 0; i < tokens.size(); ++i) {
    rows.push_back({tokens[i], static_cast<int32_t>(i), seq});
    if (i >= first) wanted.push_back(static_cast<int32_t>(i));
  }
  Batch batch;
  batch.rows = rows;
  batch.logits_rows = wanted;
  const std::vector<float> logits = machine.step(batch);
  machine.kv().release(seq);
  std::vector<int32_t> out;
  for (size_t i = 0; i < wanted.size(); ++i) {
    const auto row = logits.begin() + static_cast<int64_t>(i) * machine.vocab();
    out.push_back(static_cast<int32_t>(std::max_element(row, row + machine.vocab()) - row));
  }
  return out;
}

class PeerTest : public ::testing::TestWithParam<const char*> {};

TEST_P(PeerTest, ChoosesTheTokensThatThePeerIsSureOf) {
  nlohmann::json golden;
  std::ifstream(std::string(METE_GOLDEN_DIR) + "/llama/" + GetParam() + ".json") >> golden;
  const std::string path = model_path(golden["model"]["file"]);
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "no " << path;
  const GgufFile file = GgufFile::open(path).value();
  MachineConfig config;
  config.max_rows = 2048;
  Machine machine(file, config);
  int sure = 0, sure_and_same = 0;
  size_t agreeing_prompts = 0;
  for (const auto& prompt : golden["prompts"]) {
    auto tokens = prompt["tokens"].get<std::vector<int32_t>>();
    const auto continuation = prompt["continuation"].get<std::vector<int32_t>>();
    const auto margins = prompt["margin"].get<std::vector<float>>();
    const auto float_margins = prompt["float_margin"].get<std::vector<float>>();
    const size_t first = tokens.size() - 1;
    tokens.insert(tokens.end(), continuation.begin(), continuation.end() - 1);
    const std::vector<int32_t> ours = choices(machine, tokens, first);
    bool agrees = true, unsure = false;
    for (size_t i = 0; i < continuation.size(); ++i) {
      // A step counts as unsure too if the peer itself, on a float32 copy of the file, rejects the choice
      // that its 8-bit activations made.
      unsure = unsure || margins[i] < 0.3f || float_margins[i] < 0.0f;
      if (ours[i] != continuation[i] && !unsure) agrees = false;
      if (margins[i] < 0.3f) continue;
      ++sure;
      if (ours[i] == continuation[i]) ++sure_and_same;
      // Rounding activations to 8 bits moves logits by up to about half a nat in models this small, the
      // peer's as well as ours. So where the two differ, the peer in float32 must be unsure, or disagree too.
      if (float_margins[i] < 0.5f) continue;
      EXPECT_EQ(ours[i], continuation[i]) << prompt["name"] << ", step " << i << ", the peer's margin "
                                          << margins[i] << ", in float32 " << float_margins[i];
    }
    agreeing_prompts += agrees ? 1 : 0;
  }
  std::printf("%s: %d of %d sure steps the same; %zu of %zu greedy texts agree until an unsure step\n",
              GetParam(), sure_and_same, sure, agreeing_prompts, golden["prompts"].size());
  EXPECT_GT(sure, 400);
  EXPECT_GE(sure_and_same, sure - 5);
  EXPECT_EQ(agreeing_prompts, golden["prompts"].size());
}

INSTANTIATE_TEST_SUITE_P(Files, PeerTest,
                         ::testing::Values("smollm2-135m-q4_1", "gemma3-270m-q4_k_m",
                                           "qwen2.5-coder-0.5b-q4_k_m", "smolmoe-268m-q4_0"),
                         [](const auto& param) {
                           std::string text = param.param;
                           for (char& c : text) {
                             if (std::isalnum(static_cast<unsigned char>(c)) == 0) c = '_';
                           }
                           return text;
                         });

}  // namespace
}  // namespace mete::testing
