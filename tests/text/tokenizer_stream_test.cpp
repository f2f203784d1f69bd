// UTF-8 helpers, decode() and the streaming detokeniser.
#include <gtest/gtest.h>

#include <random>

#include "text/detokenizer.h"
#include "text/tokenizer_builder.h"

namespace mete {
namespace {

bool is_valid(std::string_view text) { return utf8_valid_prefix(text) == text.size(); }

TEST(Utf8, StepsFollowTheStandard) {
  for (uint32_t point = 0; point < 0x110000; point += point < 0x3000 ? 1 : 37) {
    if (point >= 0xd800 && point < 0xe000) continue;
    std::string text;
    utf8_append(text, point);
    const Utf8Step step = utf8_step(text);
    EXPECT_TRUE(step.valid);
    EXPECT_EQ(step.code_point, point);
    EXPECT_EQ(step.bytes, text.size());
    for (size_t size = 1; size < text.size(); ++size) {
      EXPECT_TRUE(utf8_step(std::string_view(text).substr(0, size)).cut) << point;
      EXPECT_EQ(utf8_step(std::string_view(text).substr(0, size)).bytes, size);
    }
  }
  for (const char* broken :
       {"\x80", "\xbf", "\xc0\x80", "\xc1\xbf", "\xe0\x80\x80", "\xe0\x9f\xbf", "\xed\xa0\x80",
        "\xf0\x80\x80\x80", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff"}) {
    EXPECT_FALSE(utf8_step(broken).valid);
    EXPECT_FALSE(utf8_step(broken).cut);
    EXPECT_EQ(utf8_step(broken).bytes, 1u);
  }
}

TEST(Utf8, RepairReplacesMaximalSubparts) {
  // Unicode 15, table 3-8.
  EXPECT_EQ(utf8_repair("a\xf1\x80\x80\xe1\x80\xc2"
                        "b\x80"
                        "c\x80\xbf"
                        "d"),
            "a\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"
            "b\xef\xbf\xbd"
            "c\xef\xbf\xbd\xef\xbf\xbd"
            "d");
  EXPECT_EQ(utf8_repair("\xe2\x82"), "\xef\xbf\xbd");
  EXPECT_EQ(utf8_repair(""), "");
}

/// Byte tokens, a few pieces that begin or end inside a code point, and a control token.
std::unique_ptr<Tokenizer> small() {
  auto tokens = test::byte_level_tokens();
  const auto bytes = tokens;
  const auto spelled = [&](std::string_view raw) {
    std::string out;
    for (const char c : raw) out += bytes[static_cast<uint8_t>(c)];
    return out;
  };
  for (const char* raw : {"\xf0\x9f", "\x98\x80", "x\xe2\x82", "\xac y", "\xe4\xb8\xad\xe6\x96\x87", "hello",
                          "\xf0\x9f\x98\xc3"}) {
    tokens.push_back(spelled(raw));
  }
  std::vector<int32_t> types(tokens.size(), 1);
  tokens.push_back("<|im_end|>");
  types.push_back(3);
  test::MetadataBuilder builder;
  builder.text("tokenizer.ggml.model", "gpt2").text("tokenizer.ggml.pre", "gpt-2");
  builder.texts("tokenizer.ggml.tokens", tokens).texts("tokenizer.ggml.merges", {});
  return builder.integers("tokenizer.ggml.token_type", types).create().value();
}

TEST(StreamDetokenizer, WaitsForWholeCodePoints) {
  const auto t = small();
  StreamDetokenizer stream(*t);
  EXPECT_EQ(stream.put('a'), "a");
  EXPECT_EQ(stream.put(256), "");  // first half of an emoji
  EXPECT_EQ(stream.put(257), "\xf0\x9f\x98\x80");
  EXPECT_EQ(stream.put(258), "x");
  EXPECT_EQ(stream.put(259), "\xe2\x82\xac y");
  EXPECT_EQ(stream.put(256), "");
  EXPECT_EQ(stream.put('b'),
            "\xef\xbf\xbd"
            "b");  // never completed
  EXPECT_EQ(stream.put(0xe4), "");
  EXPECT_EQ(stream.finish(), "\xef\xbf\xbd");
  EXPECT_EQ(stream.finish(), "");
}

TEST(StreamDetokenizer, HidesSpecialTokensUnlessAsked) {
  const auto t = small();
  const int32_t end = t->vocab_size() - 1;
  StreamDetokenizer hidden(*t), shown(*t, true);
  EXPECT_EQ(hidden.put(end), "");
  EXPECT_EQ(shown.put(end), "<|im_end|>");
  // A hidden token does not break a code point in two.
  EXPECT_EQ(hidden.put(256), "");
  EXPECT_EQ(hidden.put(end), "");
  EXPECT_EQ(hidden.put(257), "\xf0\x9f\x98\x80");
  EXPECT_EQ(decode(*t, std::vector<int32_t>{256, end, 257}), "\xf0\x9f\x98\x80");
}

TEST(StreamDetokenizer, ConcatenationIsTheWholeDecode) {
  const auto t = small();
  std::mt19937 random(3);
  for (int round = 0; round < 3000; ++round) {
    const bool show = round % 2 == 0;
    StreamDetokenizer stream(*t, show);
    std::vector<int32_t> ids(random() % 12);
    std::string streamed, bytes;
    for (int32_t& id : ids) {
      // half of them bytes above 0x7f or the odd pieces
      id = static_cast<int32_t>(random() % 2 == 0 ? 0xc0 + random() % 72 : random() % 256);
      if (id >= t->vocab_size()) id = t->vocab_size() - 1;
      const std::string part = stream.put(id);
      EXPECT_TRUE(is_valid(part));
      streamed += part;
      if (show || !t->is_special(id)) bytes.append(t->piece(id));
    }
    streamed += stream.finish();
    EXPECT_EQ(streamed, decode(*t, ids, show));
    EXPECT_EQ(streamed, utf8_repair(bytes));
    if (is_valid(bytes)) {
      EXPECT_EQ(streamed, bytes);
    }
  }
}

}  // namespace
}  // namespace mete
