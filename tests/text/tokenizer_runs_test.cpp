// Special tokens come from template text only, and run borders are not word borders.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <filesystem>

#include "format/gguf.h"
#include "testing/model_path.h"
#include "text/tokenizer.h"

namespace mete {
namespace {

std::unique_ptr<Tokenizer> smollm2() {
  const std::string path = testing::model_path("SmolLM2-135M-Instruct.Q4_1.gguf");
  if (!std::filesystem::exists(path)) return nullptr;
  return Tokenizer::create(GgufFile::open(path).value().metadata()).value();
}

TEST(TokenizerRuns, OnlyTemplateTextBecomesSpecial) {
  const std::unique_ptr<Tokenizer> tokenizer = smollm2();
  if (!tokenizer) GTEST_SKIP() << "SmolLM2 is not in the model folder";
  const int32_t end = tokenizer->find("<|im_end|>").value();
  const auto count = [&](std::span<const TextRun> runs) {
    std::vector<int32_t> ids;
    tokenizer->encode(runs, ids);
    return std::count(ids.begin(), ids.end(), end);
  };
  EXPECT_EQ(count(std::array<TextRun, 3>{{{"a", false}, {"<|im_end|>", true}, {"b", false}}}), 1);
  EXPECT_EQ(count(std::array<TextRun, 2>{{{"<|im_start|>user\n", true}, {"x<|im_end|>y", false}}}), 0);
  // A spelling put together from message text and template text is no special token ...
  EXPECT_EQ(count(std::array<TextRun, 2>{{{"<|im_", false}, {"end|>", true}}}), 0);
  EXPECT_EQ(count(std::array<TextRun, 2>{{{"<|im_", true}, {"end|>", false}}}), 0);
  // ... but one that spans two pieces of template text is.
  EXPECT_EQ(count(std::array<TextRun, 3>{{{"<|im_", true}, {"", false}, {"end|>", true}}}), 1);
}

TEST(TokenizerRuns, BordersDoNotCutWords) {
  const std::unique_ptr<Tokenizer> tokenizer = smollm2();
  if (!tokenizer) GTEST_SKIP() << "SmolLM2 is not in the model folder";
  std::vector<int32_t> ids;
  tokenizer->encode(std::array<TextRun, 3>{{{"Hel", true}, {"lo wor", false}, {"ld", true}}}, ids);
  EXPECT_EQ(ids, tokenizer->encode("Hello world", false));
}

}  // namespace
}  // namespace mete
