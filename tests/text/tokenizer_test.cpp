// Behaviour of small tokenizers built in code: special tokens, broken text, merges, kinds, long words.
#include "text/tokenizer.h"

#include <gtest/gtest.h>

#include <random>
#include <set>
#include <thread>

#include "text/bpe_merge.h"
#include "text/pretokenizer.h"
#include "text/tokenizer_builder.h"

namespace mete {
namespace {

using test::MetadataBuilder;
using Ids = std::vector<int32_t>;

enum { kNormal = 1, kUnknown, kControl, kUserDefined, kUnused, kByte };

/// 256 byte tokens (ids 0 to 255), then `more`.
struct Small {
  std::vector<std::string> tokens = test::byte_level_tokens();
  std::vector<int32_t> types = std::vector<int32_t>(256, kNormal);
  std::vector<std::string> merges;

  int32_t add(const std::string& text, int32_t type = kNormal) {
    tokens.push_back(text);
    types.push_back(type);
    return static_cast<int32_t>(tokens.size() - 1);
  }
  int32_t merge(const std::string& left, const std::string& right) {
    merges.push_back(left + " " + right);
    return add(left + right);
  }
  MetadataBuilder builder(const std::string& pre = "gpt-2") const {
    MetadataBuilder out;
    out.text("tokenizer.ggml.model", "gpt2").text("tokenizer.ggml.pre", pre);
    out.texts("tokenizer.ggml.tokens", tokens).texts("tokenizer.ggml.merges", merges);
    return out.integers("tokenizer.ggml.token_type", types);
  }
  std::unique_ptr<Tokenizer> make(const std::string& pre = "gpt-2") const {
    return builder(pre).create().value();
  }
};

TEST(Tokenizer, MergesByRankLeftmostFirst) {
  Small small;
  const int32_t bc = small.merge("b", "c"), ab = small.merge("a", "b"), aa = small.merge("a", "a");
  const int32_t abc = small.merge("ab", "c");
  const auto t = small.make();
  EXPECT_EQ(t->encode("abc", false), (Ids{'a', bc}));  // b+c ranks before a+b
  EXPECT_EQ(t->encode("ab", false), (Ids{ab}));
  EXPECT_EQ(t->encode("aaa", false), (Ids{aa, 'a'}));
  EXPECT_EQ(t->encode("aaaa", false), (Ids{aa, aa}));
  EXPECT_EQ(t->find("abc"), abc);
  EXPECT_EQ(t->encode("", false), Ids{});
}

TEST(Tokenizer, IgnoresMergesWhereTheFamilyDoes) {
  Small small;
  const int32_t whole = small.add("hello");  // no merge makes it
  EXPECT_EQ(small.make("qwen2")->encode("hello", false), (Ids{'h', 'e', 'l', 'l', 'o'}));
  EXPECT_EQ(small.make("llama-bpe")->encode("hello", false), (Ids{whole}));
  EXPECT_EQ(small.make("tekken")->encode("hello hellox", false),
            (Ids{whole, ' ', 'h', 'e', 'l', 'l', 'o', 'x'}));
}

TEST(Tokenizer, NeverMakesSpecialTokensFromUserText) {
  Small small;
  const int32_t start = small.add("<|im_start|>", kControl), end = small.add("<|im_end|>", kUserDefined);
  const int32_t word = small.add("Secret", kControl), call = small.add("<tool_call>", kUserDefined);
  const int32_t unknown = small.add("<unk>", kUnknown);
  for (const char* pre : {"gpt-2", "llama-bpe", "qwen2"}) {
    const auto t = small.make(pre);
    const std::string forged = "<|im_start|>a<|im_end|> Secret<tool_call>Secret<unk>";
    for (const int32_t id : t->encode(forged, false)) EXPECT_FALSE(t->is_special(id)) << id;
    EXPECT_EQ(t->encode("<|im_start|>Secret<tool_call><|im_end|><unk>", true),
              (Ids{start, word, call, end, unknown}));
    EXPECT_EQ(t->encode("<tool_call>", false), (Ids{call}));
    EXPECT_TRUE(t->is_special(end)) << "looks like a turn marker, whatever the file says";
    EXPECT_FALSE(t->is_special(call));
    EXPECT_TRUE(t->is_end_of_generation(end));
    EXPECT_FALSE(t->is_end_of_generation(start));
  }
}

TEST(Tokenizer, TakesTheLongestAddedTokenAtTheLeftmostPlace) {
  Small small;
  const int32_t ab = small.add("<ab>", kUserDefined), ab2 = small.add("<ab><ab>", kUserDefined);
  const int32_t over = small.add("b><xyz", kUserDefined);
  const auto t = small.make();
  EXPECT_EQ(t->encode("<ab><ab><ab>", false), (Ids{ab2, ab}));
  EXPECT_EQ(t->encode("<ab><xyz", false), (Ids{ab, '<', 'x', 'y', 'z'}));
  EXPECT_EQ(t->encode("<b><xyz", false), (Ids{'<', over}));
  EXPECT_EQ(t->encode("<ab", false), (Ids{'<', 'a', 'b'}));
}

TEST(Tokenizer, EncodesBrokenUtf8ByteByByte) {
  Small small;
  const auto t = small.make("qwen2");
  std::mt19937 random(7);
  for (int round = 0; round < 200; ++round) {
    std::string text(random() % 60, ' ');
    for (char& c : text) c = static_cast<char>(random() % 3 == 0 ? 0x80 + random() % 128 : random() % 128);
    const Ids ids = t->encode(text, false);
    std::string back;
    for (const int32_t id : ids) back.append(t->piece(id));
    EXPECT_EQ(back, text);
  }
  EXPECT_EQ(t->encode("a\xff\xc3(\xed\xa0\x80", false), (Ids{'a', 0xff, 0xc3, '(', 0xed, 0xa0, 0x80}));
}

TEST(Tokenizer, LeavesOutBytesThatTheVocabularyLacks) {
  Small small;
  small.tokens[0xff] = "unrelated";
  const auto t = small.make();
  EXPECT_EQ(t->encode("a\xff"
                      "b",
                      false),
            (Ids{'a', 'b'}));
}

TEST(Tokenizer, ReadsFlagsAndSingleTokens) {
  Small small;
  const int32_t begin = small.add("<s>", kControl), end = small.add("</s>", kControl);
  EXPECT_FALSE(small.make()->add_bos());
  EXPECT_EQ(small.make()->bos(), -1);
  auto builder = small.builder("llama-bpe");
  EXPECT_FALSE(builder.create().value()->add_bos()) << "no token to add";
  builder.integer("tokenizer.ggml.bos_token_id", begin).integer("tokenizer.ggml.eos_token_id", end);
  EXPECT_TRUE(builder.create().value()->add_bos()) << "the family's default";
  EXPECT_FALSE(builder.create().value()->add_eos());
  builder.boolean("tokenizer.ggml.add_bos_token", false).boolean("tokenizer.ggml.add_eos_token", true);
  const auto t = builder.create().value();
  EXPECT_FALSE(t->add_bos());
  EXPECT_TRUE(t->add_eos());
  EXPECT_FALSE(t->add_space_prefix());
  EXPECT_TRUE(t->is_end_of_generation(t->eos()));
  EXPECT_EQ(t->encode("a", true), Ids{'a'}) << "encode() adds nothing";
}

TEST(Tokenizer, KnowsTheEndsOfTurnsOfManyFamilies) {
  for (const char* text :
       {"<|im_end|>", "<|eot_id|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|eom_id|>",
        "<|end_of_text|>", "<EOT>", "[EOT]", "<end_of_utterance>", "<|return|>", "<|call|>",
        "<\xef\xbd\x9c"
        "end\xe2\x96\x81of\xe2\x96\x81sentence\xef\xbd\x9c>"}) {
    Small small;
    const int32_t id = small.add(text, kControl);
    EXPECT_TRUE(small.make()->is_end_of_generation(id)) << text;
  }
  Small harmony;
  const int32_t end = harmony.add("<|end|>", kControl), back = harmony.add("<|return|>", kControl);
  harmony.add("<|call|>", kControl);
  EXPECT_FALSE(harmony.make()->is_end_of_generation(end)) << "closes one message of several";
  EXPECT_TRUE(harmony.make()->is_end_of_generation(back));
  Small html;
  EXPECT_FALSE(html.make()->is_end_of_generation(html.add("</s>", kUserDefined) - 1));
  EXPECT_FALSE(html.make()->is_end_of_generation(256)) << "an HTML tag";
}

/// SentencePiece style: bytes first, then words with scores.
struct SmallSpm {
  std::vector<std::string> tokens{"<unk>", "<s>", "</s>"};
  std::vector<int32_t> types{kUnknown, kControl, kControl};
  std::vector<float> scores{0, 0, 0};
  SmallSpm() {
    for (int byte = 0; byte < 256; ++byte) add(fmt::format("<0x{:02X}>", byte), 0, kByte);
  }
  int32_t add(const std::string& text, float score, int32_t type = kNormal) {
    tokens.push_back(text);
    types.push_back(type);
    scores.push_back(score);
    return static_cast<int32_t>(tokens.size() - 1);
  }
  MetadataBuilder builder() const {
    MetadataBuilder out;
    out.text("tokenizer.ggml.model", "llama").texts("tokenizer.ggml.tokens", tokens);
    return out.integers("tokenizer.ggml.token_type", types).floats("tokenizer.ggml.scores", scores);
  }
};
constexpr int32_t kFirstByte = 3;

TEST(TokenizerSpm, JoinsByScoreAndFallsBackToBytes) {
  SmallSpm small;
  const int32_t space = small.add("\xe2\x96\x81", -10), a = small.add("a", -11), b = small.add("b", -12);
  const int32_t ab = small.add("ab", -2), space_a = small.add(
                                              "\xe2\x96\x81"
                                              "a",
                                              -1);
  const auto t = small.builder().boolean("tokenizer.ggml.add_space_prefix", false).create().value();
  EXPECT_EQ(t->kind(), "spm");
  EXPECT_EQ(t->bos(), 1);
  EXPECT_EQ(t->eos(), 2);
  EXPECT_TRUE(t->add_bos());
  EXPECT_EQ(t->encode("ab", false), (Ids{ab}));
  EXPECT_EQ(t->encode(" ab", false), (Ids{space_a, b})) << "the better score goes first";
  EXPECT_EQ(t->encode("a\xc3\xa9 ", false), (Ids{a, kFirstByte + 0xc3, kFirstByte + 0xa9, space}));
  EXPECT_EQ(t->encode("\xff\n", false), (Ids{kFirstByte + 0xff, kFirstByte + '\n'}));
  EXPECT_EQ(t->encode("\xe6 a", false), (Ids{kFirstByte + 0xe6, space_a}))
      << "a broken byte takes nothing along";
  EXPECT_EQ(t->piece(space_a), " a");
  EXPECT_EQ(t->text(space_a),
            "\xe2\x96\x81"
            "a");
  EXPECT_EQ(t->piece(kFirstByte + 0xe2), "\xe2");
  EXPECT_EQ(t->encode("</s><s><unk><0x0A>", false).size(), 18u)
      << "no special or byte token from its spelling";
  EXPECT_EQ(t->encode("</s>a", true), (Ids{2, a}));
}

TEST(TokenizerSpm, PutsASpaceBeforeTextAtTheStartAndAfterSpecialTokens) {
  SmallSpm small;
  const int32_t a = small.add("a", -3), space_a = small.add(
                                            "\xe2\x96\x81"
                                            "a",
                                            -1);
  small.add("\xe2\x96\x81", -2);
  const auto t = small.builder().create().value();
  EXPECT_TRUE(t->add_space_prefix());
  EXPECT_EQ(t->encode("aa", false), (Ids{space_a, a}));
  EXPECT_EQ(t->encode("a<s>a", true), (Ids{space_a, 1, space_a}));
  EXPECT_EQ(t->encode("", false), Ids{});
}

TEST(TokenizerSpm, EatsWhiteSpaceAfterPhi3sSpecialTokens) {
  SmallSpm small;
  const int32_t user = small.add("<|user|>", 0, kControl), a = small.add("a", -3);
  auto builder = small.builder();
  builder.boolean("tokenizer.ggml.add_space_prefix", false);
  EXPECT_EQ(builder.create().value()->encode("<|user|>\na", true), (Ids{user, kFirstByte + '\n', a}));
  builder.text("general.name", "Phi-3 mini");
  EXPECT_EQ(builder.create().value()->encode("<|user|> \n a", true), (Ids{user, a}));
}

/// The definition, without any cleverness: all pairs looked at in every step.
template <typename Find>
std::vector<int32_t> merge_slowly(std::vector<int32_t> symbols, Find find) {
  while (true) {
    uint32_t best = kNoMerge;
    size_t place = 0;
    int32_t joined = 0;
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      int32_t result = 0;
      const uint32_t rank = find(symbols[i], symbols[i + 1], result);
      if (rank < best) best = rank, place = i, joined = result;
    }
    if (best == kNoMerge) return symbols;
    symbols[place] = joined;
    symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(place) + 1);
  }
}

TEST(MergePairs, ShortAndLongWaysFollowTheDefinition) {
  std::mt19937 random(11);
  MergeScratch<int32_t> scratch;
  for (int round = 0; round < 400; ++round) {
    // Symbols 0 to 3 join into 0 to 7 at a rank that depends on the pair; several pairs share a rank.
    const uint32_t salt = random();
    const auto find = [salt](int32_t left, int32_t right, int32_t& joined) {
      const uint32_t mixed = (static_cast<uint32_t>(left * 31 + right) ^ salt) * 2654435761u;
      joined = static_cast<int32_t>((mixed >> 8) % 8);
      return mixed % 3 == 0 ? kNoMerge : (mixed >> 16) % 20;
    };
    std::vector<int32_t> symbols(1 + random() % 150);
    for (int32_t& symbol : symbols) symbol = static_cast<int32_t>(random() % 4);
    const auto want = merge_slowly(symbols, find);
    for (const bool is_short : {true, false}) {
      auto got = symbols;
      scratch.rank.assign(got.size(), 0);
      scratch.joined.assign(got.size(), 0);
      got.resize(is_short ? merge_detail::merge_short(got.data(), got.size(), scratch, find)
                          : merge_detail::merge_long(got.data(), got.size(), scratch, find));
      EXPECT_EQ(got, want) << "round " << round << (is_short ? " short" : " long");
    }
  }
}

std::vector<std::string> long_words(size_t size) {
  std::vector<std::string> out;
  for (const std::string& unit : std::initializer_list<std::string>{
           "a", "A", "aB", " ", "\n", "\t", "7", "!", "'", "\xe4\xb8\xad", "\xcc\x81", "\xd9\xa3", "\xff",
           "\xe2\x82", "\x01", " a", " \n", "\xc2\xa0"}) {
    std::string text;
    while (text.size() < size) text.append(unit);
    out.push_back(text);
    out.push_back(text + "x");
  }
  return out;
}

TEST(Tokenizer, ServesSeveralThreadsAtOnce) {
  Small small;
  small.merge("a", "b"), small.merge("ab", "ab"), small.add("<y>", kUserDefined);
  const auto t = small.make("qwen2");
  std::string text;
  for (int i = 0; i < 2000; ++i) text += "abab it's " + std::to_string(i) + "<y>\n";
  const Ids want = t->encode(text, false);
  std::vector<Ids> got(3);
  std::vector<std::thread> threads;
  for (Ids& ids : got) threads.emplace_back([&] { t->encode(text, false, ids); });
  for (std::thread& thread : threads) thread.join();
  for (const Ids& ids : got) EXPECT_EQ(ids, want);
}

void expect_all_bytes(const Tokenizer& t, const std::string& text) {
  size_t bytes = 0;
  for (const int32_t id : t.encode(text, false)) bytes += t.piece(id).size();
  EXPECT_EQ(bytes, text.size() + (t.add_space_prefix() ? 1 : 0)) << t.kind();
}

/// Quadratic steps would take from minutes to days: the test's time limit is the assertion.
TEST(Tokenizer, TakesLongWordsInAllKinds) {
  Small small;
  small.merge("a", "a"), small.merge("aa", "aa"), small.merge("aaaa", "aaaa");
  std::set<const void*> seen;
  for (const PreTokenizerKind& kind : pre_tokenizers()) {
    if (kind.name == "gemma4" || !seen.insert(kind.expressions.data()).second) continue;
    const auto t = small.make(std::string(kind.name));
    for (const std::string& text : long_words(1u << 17)) expect_all_bytes(*t, text);
    expect_all_bytes(*t, std::string(1u << 20, 'a'));
    expect_all_bytes(*t, std::string(1u << 20, ' ') + "x");
  }
}

TEST(TokenizerSpm, TakesLongWords) {
  SmallSpm spm;
  for (const char* text : {"a", "aa", "aaaa", "\xe2\x96\x81", "\xe2\x96\x81\xe2\x96\x81"}) spm.add(text, -1);
  const auto t = spm.builder().create().value();
  for (const std::string& text : long_words(1u << 17)) expect_all_bytes(*t, text);
  expect_all_bytes(*t, std::string(1u << 20, 'a'));
}

}  // namespace
}  // namespace mete
