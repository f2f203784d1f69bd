// Every kind of pre-tokenizer against Hugging Face `tokenizers`: words and ids of a Unicode torture corpus
// (tests/golden/tokenizers/make.py).
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "text/pretokenizer.h"
#include "text/tokenizer_builder.h"

namespace mete {
namespace {

using nlohmann::json;
using test::MetadataBuilder;

std::string golden(const std::string& name) {
  const std::string folder = test::directory_of("METE_TOKENIZER_GOLDEN_DIR", METE_GOLDEN_DIR "/tokenizers");
  return test::read_file(folder + "/" + name + ".json");
}

class HuggingFace : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    lines_ = json::parse(golden("corpus")).get<std::vector<std::string>>();
    // OLMo's tokenizer.json cuts as GPT-2's.
    golden_ = json::parse(golden(std::string(GetParam()) == "olmo" ? "gpt-2" : GetParam()));
  }
  std::vector<std::string> lines_;
  json golden_;
};

TEST_P(HuggingFace, CutsTheSameWords) {
  const PreTokenizer words(*find_pre_tokenizer(GetParam()));
  PreTokenizer::Scratch scratch(words);
  for (size_t i = 0; i < lines_.size(); ++i) {
    std::vector<size_t> sizes;
    size_t at = 0;
    words.split(lines_[i], scratch, [&](std::string_view word) {
      EXPECT_EQ(word.data(), lines_[i].data() + at);
      at += word.size();
      sizes.push_back(word.size());
    });
    EXPECT_EQ(at, lines_[i].size());
    EXPECT_EQ(sizes, golden_["words"][i].get<std::vector<size_t>>())
        << "line " << i << ": " << json(lines_[i]);
  }
}

TEST_P(HuggingFace, GivesTheSameIds) {
  std::vector<std::string> tokens;
  std::istringstream spelled(golden_["tokens"].get<std::string>());
  for (std::string token; spelled >> token;) tokens.push_back(token);
  const auto tokenizer =
      MetadataBuilder()
          .text("tokenizer.ggml.model", "gpt2")
          .text("tokenizer.ggml.pre", GetParam())
          .texts("tokenizer.ggml.tokens", tokens)
          .texts("tokenizer.ggml.merges", golden_["merges"].get<std::vector<std::string>>())
          .create();
  ASSERT_TRUE(tokenizer) << tokenizer.error().message();
  EXPECT_EQ((*tokenizer)->kind(), std::string("bpe/") + GetParam());
  for (size_t i = 0; i < lines_.size(); ++i) {
    const auto ids = (*tokenizer)->encode(lines_[i], false);
    EXPECT_EQ(ids, golden_["ids"][i].get<std::vector<int32_t>>()) << "line " << i << ": " << json(lines_[i]);
    std::string back;
    for (const int32_t id : ids) back.append((*tokenizer)->piece(id));
    EXPECT_EQ(back, lines_[i]);
  }
}

INSTANTIATE_TEST_SUITE_P(All, HuggingFace,
                         testing::Values("default", "gpt-2", "olmo", "smollm", "falcon", "llama-bpe", "qwen2",
                                         "qwen35", "tekken", "gpt-4o", "deepseek-llm", "deepseek-coder",
                                         "deepseek-v3"),
                         [](const auto& given) {
                           std::string name = given.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace mete
