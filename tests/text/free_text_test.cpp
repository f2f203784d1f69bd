// Free text with bound tool calls: against a plain scan for marks, and the masks of special tokens.
#include "text/grammar/free_text.h"

#include <gtest/gtest.h>

#include <regex>

#include "base/rng.h"
#include "text/grammar/automaton.h"
#include "text/grammar/compiler.h"
#include "text/grammar/gbnf.h"
#include "text/grammar/json_schema.h"
#include "text/tokenizer_builder.h"

namespace mete {
namespace {

std::string one_or_22(FreeTextStart start) {
  const std::string call = json_schema_to_gbnf(R"({"enum": [1, 22]})").value();
  return free_text_gbnf(call, {"<tool_call>", "</tool_call>", "<think>", "</think>"}, start);
}

/// What the grammar means, by searching.
bool fits(std::string text, FreeTextStart start) {
  if (start == FreeTextStart::kAnything) {
    const size_t first = text.find_first_not_of(" \t\r\n");
    if (first != std::string::npos && text.compare(first, 7, "<think>") == 0) {
      text.erase(0, first + 7);
      start = FreeTextStart::kReasoning;
    }
  }
  if (start == FreeTextStart::kReasoning) {
    const size_t end = text.find("</think>");
    if (end == std::string::npos) return true;
    text.erase(0, end + 8);
  }
  static const std::regex call("^( |\n\n?[ \t]*)?(1|22)( |\n\n?[ \t]*)?</tool_call>");
  for (;;) {
    const size_t open = text.find("<tool_call>");
    if (open == std::string::npos) return true;
    text.erase(0, open + 11);
    std::smatch found;
    if (!std::regex_search(text, found, call)) return false;
    text.erase(0, static_cast<size_t>(found.length()));
  }
}

TEST(FreeText, IsWhatASearchForMarksSays) {
  const char* pieces[] = {"<tool_call>", "</tool_call>", "<tool_call>1</tool_call>",
                          "<",           "<tool",        "_call>",
                          "1",           "22",           "\n",
                          "<think>",     "</",           "think>",
                          " x",          "\xc3\xa9"};
  for (const FreeTextStart start :
       {FreeTextStart::kText, FreeTextStart::kAnything, FreeTextStart::kReasoning}) {
    GrammarAutomaton automaton(parse_gbnf(one_or_22(start)).value());
    int yes = 0;
    for (uint64_t i = 0; i < 4000; ++i) {
      std::string text;
      for (uint64_t k = 0; k < 1 + i % 9; ++k) {
        text += pieces[random_bits(i, k, Purpose::kTest) % std::size(pieces)];
      }
      GrammarAutomaton::State state = automaton.start();
      for (const char c : text) state = automaton.step(state, static_cast<uint8_t>(c));
      const bool expected = fits(text, start);
      ASSERT_EQ(automaton.complete(state), expected) << static_cast<int>(start) << ": " << text;
      yes += expected ? 1 : 0;
    }
    EXPECT_GT(yes, 1000);
    EXPECT_LT(yes, 4000);
    EXPECT_FALSE(automaton.exhausted());
  }
}

TEST(FreeText, SpecialTokensStandOutsideOfCalls) {
  std::vector<std::string> tokens = test::byte_level_tokens();
  tokens.push_back("ab");
  const auto special = static_cast<int32_t>(tokens.size());
  for (const char* text : {"<tool_call>", "</tool_call>", "<hidden>", "<end>"}) tokens.push_back(text);
  const int32_t open = special, close = special + 1, hidden = special + 2, end = special + 3;
  std::vector<int32_t> types(tokens.size(), 1);
  for (int32_t id = special; id <= end; ++id) types[static_cast<size_t>(id)] = 3;
  test::MetadataBuilder b;
  b.text("tokenizer.ggml.model", "gpt2").text("tokenizer.ggml.pre", "gpt-2");
  b.texts("tokenizer.ggml.tokens", tokens).texts("tokenizer.ggml.merges", {"a b"});
  b.integers("tokenizer.ggml.token_type", types).integer("tokenizer.ggml.eos_token_id", end);
  const std::unique_ptr<Tokenizer> t = b.create().value();
  GrammarCompiler compiler(*t);
  const std::vector<int32_t> shown = {open, close};
  const auto grammar = compiler.open_gbnf(one_or_22(FreeTextStart::kText), shown).value();
  const auto state = grammar->make_state();
  const auto allows = [&](int32_t token) { return mask_allows(state->mask(), token); };
  const auto put = [&](std::string_view text) {
    for (const char c : text) {
      EXPECT_TRUE(allows(static_cast<uint8_t>(c))) << text;
      EXPECT_TRUE(state->accept(static_cast<uint8_t>(c))) << text;
    }
  };
  const auto at = [&] {
    return std::vector<bool>{allows(open), allows(close), allows(hidden), allows(end), allows('x')};
  };
  const std::vector<bool> outside = {true, true, true, true, true},
                          inside = {false, false, false, false, false};
  put("a <tool_");
  EXPECT_EQ(at(), outside);
  EXPECT_TRUE(state->accept(hidden));  // it is not in the text: the mark goes on
  put("call>");
  EXPECT_EQ(at(), inside);
  EXPECT_FALSE(state->accept(hidden));
  EXPECT_FALSE(state->accept(close));
  put("\n22");
  EXPECT_EQ(at(), (std::vector<bool>{false, true, false, false, false}));
  EXPECT_TRUE(state->accept(close));
  EXPECT_EQ(at(), outside);
  EXPECT_TRUE(state->accept(open));
  EXPECT_EQ(at(), inside);
  put("1</tool_call>x");
  EXPECT_EQ(at(), outside);
  EXPECT_FALSE(state->is_done());
}

}  // namespace
}  // namespace mete
