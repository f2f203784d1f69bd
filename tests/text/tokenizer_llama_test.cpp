// llama.cpp's vocabularies with their published texts and ids: $METE_LLAMA_MODELS_DIR is the folder `models`
// of its source. The ids there were made by each family's reference tokenizer.
#include <gtest/gtest.h>

#include <algorithm>

#include "text/tokenizer_builder.h"

namespace mete {
namespace {

using test::read_file;

struct Case {
  const char* vocab;
  const char* kind;
};

class LlamaVocab : public testing::TestWithParam<Case> {};

std::string models() { return test::directory_of("METE_LLAMA_MODELS_DIR", ""); }

TEST_P(LlamaVocab, GivesThePublishedIds) {
  const std::string path = models() + "/ggml-vocab-" + GetParam().vocab + ".gguf";
  const std::string input = read_file(path + ".inp"), output = read_file(path + ".out");
  if (input.empty() || output.empty())
    GTEST_SKIP() << "no " << path << ".inp and .out: set METE_LLAMA_MODELS_DIR";
  const auto file = GgufFile::open(path);
  ASSERT_TRUE(file) << file.error().message();
  const auto tokenizer = Tokenizer::create(file->metadata());
  ASSERT_TRUE(tokenizer) << tokenizer.error().message();
  EXPECT_EQ((*tokenizer)->kind(), GetParam().kind);

  const std::string separator = "\n__ggml_vocab_test__\n";
  std::istringstream lines(output);
  std::string line;
  int cases = 0;
  for (size_t at = 0; at != std::string::npos; ++cases) {
    const size_t next = input.find(separator, at);
    const std::string text = input.substr(at, next == std::string::npos ? next : next - at);
    at = next == std::string::npos ? next : next + separator.size();
    if (!std::getline(lines, line)) {  // some files end in a separator
      ASSERT_TRUE(text.empty() && at == std::string::npos);
      break;
    }
    std::istringstream words(line);
    const std::vector<int32_t> want{std::istream_iterator<int32_t>(words), {}};
    EXPECT_EQ((*tokenizer)->encode(text, false), want) << "text: " << text;
  }
  EXPECT_GE(cases, 40);
}

INSTANTIATE_TEST_SUITE_P(
    All, LlamaVocab,
    testing::Values(Case{"command-r", "bpe/command-r"}, Case{"deepseek-coder", "bpe/deepseek-coder"},
                    Case{"deepseek-llm", "bpe/deepseek-llm"}, Case{"falcon", "bpe/falcon"},
                    Case{"gemma-4", "bpe/gemma4"}, Case{"gpt-2", "bpe/gpt-2"},
                    Case{"llama-bpe", "bpe/llama-bpe"}, Case{"llama-spm", "spm"}, Case{"mpt", "bpe/mpt"},
                    Case{"phi-3", "spm"}, Case{"qwen2", "bpe/qwen2"}, Case{"qwen35", "bpe/qwen35"},
                    Case{"refact", "bpe/refact"}, Case{"starcoder", "bpe/starcoder"}),
    [](const auto& given) {
      std::string name = given.param.vocab;
      std::replace(name.begin(), name.end(), '-', '_');
      return name;
    });

/// Vocabularies there that are of other kinds or name no pre-tokenizer: an error that says so, not a guess.
TEST(LlamaVocabUnsupported, IsAnError) {
  if (read_file(models() + "/ggml-vocab-qwen2.gguf.inp").empty()) GTEST_SKIP() << "set METE_LLAMA_MODELS_DIR";
  const std::pair<const char*, const char*> cases[] = {{"aquila", "tokenizer.ggml.pre"},
                                                       {"gpt-neox", "tokenizer.ggml.pre"},
                                                       {"bert-bge", "tokenizer.ggml.model"},
                                                       {"nomic-bert-moe", "tokenizer.ggml.model"}};
  for (const auto& [vocab, field] : cases) {
    const auto file = GgufFile::open(models() + "/ggml-vocab-" + vocab + ".gguf");
    ASSERT_TRUE(file) << file.error().message();
    const auto tokenizer = Tokenizer::create(file->metadata());
    ASSERT_FALSE(tokenizer) << vocab;
    EXPECT_EQ(tokenizer.error().code(), Code::kBadModel);
    EXPECT_NE(tokenizer.error().message().find(field), std::string::npos) << tokenizer.error().message();
  }
}

}  // namespace
}  // namespace mete
