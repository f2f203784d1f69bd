// Malformed and hostile tokenizer metadata: one clear error each, never a crash.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "text/tokenizer_builder.h"

namespace mete {
namespace {

using test::MetadataBuilder;

MetadataBuilder bpe() {
  auto tokens = test::byte_level_tokens();
  tokens.insert(tokens.end(), {"ab", "<|end|>"});
  std::vector<int32_t> types(tokens.size(), 1);
  types.back() = 3;
  MetadataBuilder out;
  out.text("tokenizer.ggml.model", "gpt2").text("tokenizer.ggml.pre", "qwen2");
  out.texts("tokenizer.ggml.tokens", tokens).texts("tokenizer.ggml.merges", {"a b"});
  return out.integers("tokenizer.ggml.token_type", types);
}

MetadataBuilder spm(const std::string& byte = "<0x0A>", int32_t byte_type = 6) {
  MetadataBuilder out;
  out.text("tokenizer.ggml.model", "llama").texts("tokenizer.ggml.tokens", {"<unk>", "<s>", byte, "a"});
  out.integers("tokenizer.ggml.token_type", {2, 3, byte_type, 1});
  return out.floats("tokenizer.ggml.scores", {0, 0, 0, -1});
}

struct Hostile {
  const char* what;
  std::function<MetadataBuilder()> make;
  const char* named;  ///< what the message must name
};

const Hostile kCases[] = {
    {"no model", [] { return MetadataBuilder(); }, "tokenizer.ggml.model"},
    {"unknown model", [] { return bpe().text("tokenizer.ggml.model", "t5"); }, "\"t5\""},
    {"model not a string", [] { return bpe().integer("tokenizer.ggml.model", 1); }, "tokenizer.ggml.model"},
    {"unknown pre", [] { return bpe().text("tokenizer.ggml.pre", "qwen9"); }, "\"qwen9\""},
    {"empty pre", [] { return bpe().text("tokenizer.ggml.pre", ""); }, "tokenizer.ggml.pre"},
    {"no tokens", [] { return bpe().texts("tokenizer.ggml.tokens", {}); }, "tokenizer.ggml.tokens"},
    {"tokens not strings", [] { return bpe().integers("tokenizer.ggml.tokens", {1}); },
     "tokenizer.ggml.tokens"},
    {"too few types",
     [] {
       return bpe().integers("tokenizer.ggml.token_type", {1, 1});
     },
     "tokenizer.ggml.token_type"},
    {"bad type", [] { return spm("<0x0A>", 9); }, "tokenizer.ggml.token_type[2] is 9"},
    {"negative type", [] { return spm("<0x0A>", -6); }, "tokenizer.ggml.token_type[2] is -6"},
    {"duplicate token", [] { return spm("a", 1); }, "tokens 2 and 3"},
    {"bos outside", [] { return bpe().integer("tokenizer.ggml.bos_token_id", 258); },
     "tokenizer.ggml.bos_token_id"},
    {"eos negative", [] { return bpe().integer("tokenizer.ggml.eos_token_id", -1); },
     "tokenizer.ggml.eos_token_id"},
    {"eot outside", [] { return bpe().integer("tokenizer.ggml.eot_token_id", 1 << 30); },
     "tokenizer.ggml.eot_token_id"},
    {"unk a string", [] { return bpe().text("tokenizer.ggml.unknown_token_id", "0"); },
     "tokenizer.ggml.unknown_token_id"},
    {"bos wanted, none there", [] { return bpe().boolean("tokenizer.ggml.add_bos_token", true); },
     "tokenizer.ggml.bos_token_id"},
    {"eos wanted, none there", [] { return bpe().boolean("tokenizer.ggml.add_eos_token", true); },
     "tokenizer.ggml.eos_token_id"},
    {"flag not a flag", [] { return bpe().text("tokenizer.ggml.add_bos_token", "yes"); },
     "tokenizer.ggml.add_bos_token"},
    {"no merges", [] { return bpe().integer("tokenizer.ggml.merges", 0); }, "tokenizer.ggml.merges"},
    {"merge without space",
     [] {
       return bpe().texts("tokenizer.ggml.merges", {"a b", "ab"});
     },
     "tokenizer.ggml.merges[1]"},
    {"empty merge", [] { return bpe().texts("tokenizer.ggml.merges", {""}); }, "tokenizer.ggml.merges[0]"},
    {"merge of nothing", [] { return bpe().texts("tokenizer.ggml.merges", {"a "}); },
     "tokenizer.ggml.merges[0]"},
    {"unknown part", [] { return bpe().texts("tokenizer.ggml.merges", {"a bb"}); },
     "\"bb\" is not in the vocabulary"},
    {"unknown result", [] { return bpe().texts("tokenizer.ggml.merges", {"b a"}); },
     "\"ba\" is not in the vocabulary"},
    {"merge that forges a special token",
     [] {
       auto tokens = test::byte_level_tokens();
       tokens.push_back("ab");
       std::vector<int32_t> types(tokens.size(), 1);
       types.back() = 3;
       return bpe().texts("tokenizer.ggml.tokens", tokens).integers("tokenizer.ggml.token_type", types);
     },
     "\"ab\" is a special token"},
    {"lower-case byte token", [] { return spm("<0x0a>"); }, "\"<0x0a>\", expected a byte token"},
    {"short byte token", [] { return spm("<0xA>"); }, "expected a byte token"},
    {"long byte token", [] { return spm("<0x00A>"); }, "expected a byte token"},
    {"signed byte token", [] { return spm("<0x-1>"); }, "expected a byte token"},
    {"word as byte token", [] { return spm("hello"); }, "expected a byte token"},
    {"no scores", [] { return spm().integer("tokenizer.ggml.scores", 0); }, "tokenizer.ggml.scores"},
    {"too few scores",
     [] {
       return spm().floats("tokenizer.ggml.scores", {0, 0});
     },
     "tokenizer.ggml.scores"},
    {"too many scores",
     [] {
       return spm().floats("tokenizer.ggml.scores", {0, 0, 0, 0, 0});
     },
     "tokenizer.ggml.scores"},
    {"score not a number",
     [] {
       return spm().floats("tokenizer.ggml.scores", {0, 0, 0, NAN});
     },
     "tokenizer.ggml.scores[3]"},
    {"score infinite",
     [] {
       return spm().floats("tokenizer.ggml.scores", {0, 0, 0, -INFINITY});
     },
     "tokenizer.ggml.scores[3]"},
    {"neither bytes nor unknown",
     [] {
       return spm().integers("tokenizer.ggml.token_type", {1, 3, 6, 1});
     },
     "<0x00>"},
};

TEST(TokenizerHostile, SoundFilesAreTaken) {
  EXPECT_TRUE(bpe().create());
  EXPECT_TRUE(spm().create());
}

TEST(TokenizerHostile, EveryFaultIsNamed) {
  for (const Hostile& hostile : kCases) {
    const auto result = hostile.make().create();
    ASSERT_FALSE(result) << hostile.what;
    EXPECT_EQ(result.error().code(), Code::kBadModel) << hostile.what;
    EXPECT_NE(result.error().message().find(hostile.named), std::string::npos)
        << hostile.what << ": " << result.error().message();
    EXPECT_EQ(result.error().message().find('\n'), std::string::npos) << hostile.what;
  }
}

TEST(TokenizerHostile, OddButSoundVocabulariesWork) {
  // Holes, spellings that are not UTF-8 or not in the byte map, a token for every single-token field.
  auto tokens = test::byte_level_tokens();
  tokens.insert(tokens.end(), {"", "\xff\xfe", "\xe4\xb8\xad", "", std::string(70000, 'z')});
  MetadataBuilder builder;
  builder.text("tokenizer.ggml.model", "gpt2").text("tokenizer.ggml.pre", "llama-bpe");
  builder.texts("tokenizer.ggml.tokens", tokens).texts("tokenizer.ggml.merges", {});
  const auto t = builder.create().value();
  EXPECT_EQ(t->vocab_size(), 261);
  EXPECT_EQ(t->piece(256), "");
  EXPECT_EQ(t->piece(257), "\xff\xfe");
  EXPECT_FALSE(t->find("").has_value());
  EXPECT_EQ(t->encode(std::string(70000, 'z'), false), std::vector<int32_t>{260});
}

}  // namespace
}  // namespace mete
