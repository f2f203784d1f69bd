// Grammars: GBNF, JSON schema, and the token masks, whose every bit is checked against following the token's
// bytes one by one.
#include "text/grammar.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/rng.h"
#include "testing/model_path.h"
#include "text/grammar/automaton.h"
#include "text/grammar/compiler.h"
#include "text/grammar/gbnf.h"
#include "text/grammar/json_schema.h"
#include "text/grammar/matcher.h"
#include "text/tokenizer_builder.h"

namespace mete {
namespace {

bool accepts(GrammarAutomaton& automaton, std::string_view text) {
  GrammarAutomaton::State state = automaton.start();
  for (const char c : text) state = automaton.step(state, static_cast<uint8_t>(c));
  return automaton.complete(state);
}

std::string gbnf_error(std::string_view text) {
  const auto parsed = parse_gbnf(text);
  return parsed ? "" : parsed.error().message();
}
std::string schema_error(std::string_view text) {
  const auto converted = json_schema_to_gbnf(text);
  return converted ? "" : converted.error().message();
}

TEST(Gbnf, OperatorsMeanWhatTheySay) {
  GrammarAutomaton a(parse_gbnf(R"(
    # a comment
    root ::= item+ (","
             item)* end?   # nested rules go on over lines
    item ::= [a-c]{2} | "x"{2,3} | [^a-z\n,.]
    end ::= "." .
  )")
                         .value());
  for (const char* yes :
       {"ab", "xx", "xxx", "abxx", "1", "ab,cc", "ab.z", "\xc3\xa9", "xxxxx", "xx.\xe6\x9d\xb1"})
    EXPECT_TRUE(accepts(a, yes)) << yes;
  for (const char* no : {"", "a", "x", "ad", "ab,", "ab.", "\n", "ab.zz", "\xc3", "xx.\xed\xa0\x80", "xxxx,"})
    EXPECT_FALSE(accepts(a, no)) << no;
}

TEST(Gbnf, RecursionAndEmptyAlternatives) {
  GrammarAutomaton a(parse_gbnf("root ::= \"(\" root \")\" root | \n").value());
  EXPECT_TRUE(accepts(a, ""));
  EXPECT_TRUE(accepts(a, "(()())()"));
  EXPECT_FALSE(accepts(a, "(()"));
  EXPECT_FALSE(accepts(a, "())"));
  GrammarAutomaton b(parse_gbnf("root ::= ((\"a\"*)* \"b\"?)+").value());  // repeats what may be empty
  EXPECT_TRUE(accepts(b, "aabab"));
  EXPECT_FALSE(accepts(b, "c"));
}

TEST(Gbnf, CodePointRangesAreTheirUtf8) {
  for (const auto& [first, last] : {std::pair{0x61U, 0x7a5U},
                                    {0x7ffU, 0x800U},
                                    {0xd7feU, 0xe001U},
                                    {0xfffU, 0x10fffU},
                                    {0xffffU, 0x10ffffU},
                                    {0x1234U, 0x1234U}}) {
    GrammarAutomaton a(parse_gbnf(fmt::format("root ::= [\\U{:08X}-\\U{:08X}]", first, last)).value());
    for (uint32_t c = 0; c <= 0x10ffff; c += c < 0x12000 ? 1 : 97) {
      if (c >= 0xd800 && c <= 0xdfff) continue;
      std::string text;
      utf8_append(text, c);
      ASSERT_EQ(accepts(a, text), first <= c && c <= last) << c;
    }
    EXPECT_FALSE(accepts(a, "\xed\xa0\x80"));  // a surrogate
  }
}

TEST(Gbnf, ErrorsSayWhere) {
  EXPECT_EQ(gbnf_error("a ::= \"x\""), "the grammar has no rule \"root\"");
  EXPECT_EQ(gbnf_error("root ::= b"), "rule \"b\" is used but not defined");
  EXPECT_EQ(gbnf_error("root ::= \"x\nb ::= \"y\""),
            "grammar line 1 column 12: found \"\n\", expected the closing quote of a literal");
  EXPECT_EQ(gbnf_error("root = \"x\""), "grammar line 1 column 6: found \"=\", expected \"::=\"");
  EXPECT_EQ(gbnf_error("root ::= (\"x\""),
            "grammar line 1 column 14: found the end of the text, expected \")\"");
  EXPECT_EQ(gbnf_error("root ::= root \"x\" | \"y\""),
            "rule \"root\" is left-recursive: it can begin with itself");
  EXPECT_EQ(gbnf_error("root ::= \"x\"{3,2}"), "a repetition of at least 3 and at most 2");
  EXPECT_EQ(gbnf_error("root ::= \"x\"{99999}"), "a repetition of 99999 is too large: at most 10000");
  EXPECT_NE(gbnf_error("root ::= <think>"), "");
  EXPECT_NE(gbnf_error("root ::= [z-a]"), "");
  EXPECT_NE(gbnf_error("root ::= *"), "");
}

TEST(JsonSchema, AgreesWithTheValidator) {
  const auto cases = nlohmann::ordered_json::parse(test::read_file(METE_GOLDEN_DIR "/grammar/schemas.json"));
  ASSERT_GT(cases.size(), 30U);
  for (const auto& c : cases) {
    const auto gbnf = json_schema_to_gbnf(c["schema"].dump());
    ASSERT_TRUE(gbnf) << c["schema"] << gbnf.error().message();
    const auto program = parse_gbnf(*gbnf);
    ASSERT_TRUE(program) << *gbnf << program.error().message();
    GrammarAutomaton a(*program);
    for (const auto& t : c["texts"]) {
      EXPECT_EQ(accepts(a, t["text"].get<std::string>()), t["fits"].get<bool>())
          << c["schema"] << " " << t["text"];
    }
  }
}

TEST(JsonSchema, ErrorsNameThePlace) {
  EXPECT_EQ(schema_error("{"), "JSON schema: the text is not valid JSON");
  EXPECT_EQ(
      schema_error(R"({"type": "text"})"),
      "JSON schema #/type: found \"text\", expected object, array, string, number, integer, boolean or null");
  EXPECT_EQ(schema_error(R"({"properties": {"a": {"not": {}}}})"),
            "JSON schema #/properties/a: the keyword \"not\" is not supported");
  EXPECT_EQ(schema_error(R"({"$ref": "other.json"})"),
            "JSON schema #/$ref: found \"other.json\", expected a place in this schema (#/...)");
  EXPECT_EQ(schema_error(R"({"type": "string", "minLength": -1})"),
            "JSON schema #/minLength: found -1, expected a whole number from 0 to 10000");
  EXPECT_EQ(schema_error(R"({"type": "integer", "minimum": 5, "maximum": 4})"),
            "JSON schema #: no number lies between the bounds");
  for (const char* bad :
       {"3", "false", R"({"type": []})", R"({"enum": []})", R"({"type": "array", "items": 3})",
        R"({"type": "array", "uniqueItems": true})", R"({"required": ["a"]})",
        R"({"type": "number", "minimum": 0.5})", R"j({"type": "string", "pattern": "(?=a)"})j",
        R"({"type": "string", "pattern": "a\\1"})", R"j({"type": "string", "pattern": "("})j",
        R"({"type": "string", "format": "color"})", R"({"allOf": [{"type": "string"}, {"type": "null"}]})",
        R"({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a", "type": "object"}}})"}) {
    EXPECT_NE(schema_error(bad), "") << bad;
  }
}

/// 256 single bytes and some longer tokens that cross the borders of JSON's parts, one end token.
std::unique_ptr<Tokenizer> small_tokenizer() {
  std::vector<std::string> tokens = test::byte_level_tokens();
  const size_t bytes = tokens.size();
  std::vector<std::string> merges;
  const auto add = [&](const std::string& left, const std::string& right) {
    tokens.push_back(left + right);
    merges.push_back(left + " " + right);
  };
  add("\"", ":");
  add("\"", ",");
  add("{", "\"");
  add("\"", "}");
  add("a", "b");
  add("ab", "\",");
  add("\",", "{\"");
  add("1", "2");
  add("12", "}");
  add("[", "[");
  add("]", "]");
  add("]]", "]]");
  add("t", "r");
  add("tr", "u");
  tokens.push_back("<end>");
  std::vector<int32_t> types(tokens.size(), 1);
  types.back() = 3;
  EXPECT_GT(tokens.size(), bytes);
  test::MetadataBuilder b;
  b.text("tokenizer.ggml.model", "gpt2")
      .text("tokenizer.ggml.pre", "gpt-2")
      .texts("tokenizer.ggml.tokens", tokens);
  b.texts("tokenizer.ggml.merges", merges).integers("tokenizer.ggml.token_type", types);
  b.integer("tokenizer.ggml.eos_token_id", static_cast<int32_t>(tokens.size()) - 1);
  return b.create().value();
}

/// Walks at random under the mask; every bit of every mask must say whether the token's bytes can follow.
/// Returns the text of a walk that ended.
std::string random_walk(const Tokenizer& t, const std::string& gbnf, uint64_t seed, size_t max_tokens) {
  GrammarAutomaton plain(parse_gbnf(gbnf).value());  // knows nothing of tokens
  GrammarCompiler compiler(t);
  const auto grammar = compiler.gbnf(gbnf).value();
  const auto state = grammar->make_state();
  GrammarAutomaton::State at = plain.start();
  std::string text;
  for (size_t n = 0; n < max_tokens; ++n) {
    const std::vector<uint64_t> mask(state->mask().begin(), state->mask().end());
    std::vector<int32_t> allowed;
    for (int32_t id = 0; id < t.vocab_size(); ++id) {
      bool expected = false;
      if (t.is_end_of_generation(id)) {
        expected = plain.complete(at);
      } else if (!t.is_special(id) && !t.piece(id).empty()) {
        GrammarAutomaton::State next = at;
        for (const char c : t.piece(id)) next = plain.step(next, static_cast<uint8_t>(c));
        expected = next != GrammarAutomaton::kDead;
      }
      EXPECT_EQ(mask_allows(mask, id), expected) << text << " + token " << id << " " << t.piece(id);
      if (expected) allowed.push_back(id);
    }
    EXPECT_EQ(state->is_done(), plain.complete(at) && plain.stacks(at).empty());
    if (allowed.empty() || ::testing::Test::HasFailure()) return "";
    const int32_t id = allowed[random_bits(seed, n, Purpose::kTest) % allowed.size()];
    if (t.is_end_of_generation(id)) {
      EXPECT_FALSE(state->accept(id));
      return text;
    }
    EXPECT_TRUE(state->accept(id));
    text += t.piece(id);
    for (const char c : t.piece(id)) at = plain.step(at, static_cast<uint8_t>(c));
  }
  return "";
}

TEST(GrammarMask, EveryBitIsTheParsersAnswer) {
  const std::unique_ptr<Tokenizer> t = small_tokenizer();
  const std::string json = json_schema_to_gbnf("true").value();
  const std::string shaped =
      json_schema_to_gbnf(
          R"({"type": "object", "properties": {"ab": {"type": "string"}, "n": {"type": "integer"},
        "l": {"type": "array", "items": {"enum": ["ab", true]}}}, "required": ["n"]})")
          .value();
  for (uint64_t seed = 0; seed < 12; ++seed) {
    for (const std::string& gbnf :
         {json, shaped, std::string("root ::= (\"ab\" | \"12\" root? \"}\")* [^a]")}) {
      const std::string text = random_walk(*t, gbnf, seed, 60);
      if (HasFailure()) return;
      if (!text.empty() && gbnf != std::string("root ::= (\"ab\" | \"12\" root? \"}\")* [^a]")) {
        EXPECT_TRUE(nlohmann::json::accept(text)) << text;
      }
    }
  }
}

TEST(GrammarMask, RealVocabulary) {
  const std::string path = testing::model_path("SmolLM2-135M-Instruct.Q4_1.gguf");
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "no " << path;
  const auto t = Tokenizer::create(GgufFile::open(path).value().metadata()).value();
  const std::string gbnf =
      json_schema_to_gbnf(R"({"type": "object", "properties": {"name": {"type": "string"},
    "tags": {"type": "array", "items": {"type": "string", "pattern": "^\\w+$"}}}, "required": ["name", "tags"]})")
          .value();
  for (uint64_t seed = 0; seed < 3; ++seed) random_walk(*t, gbnf, seed, 24);
}

TEST(GrammarCompiler, EqualTextsAreCompiledOnce) {
  const std::unique_ptr<Tokenizer> t = small_tokenizer();
  GrammarCompiler compiler(*t);
  const auto a = compiler.gbnf("root ::= \"a\"").value();
  EXPECT_EQ(a, compiler.gbnf("root ::= \"a\"").value());
  EXPECT_NE(a, compiler.gbnf("root ::= \"b\"").value());
}

int32_t one_token(const Tokenizer& t, std::string_view text) {
  std::vector<int32_t> ids;
  t.encode(text, false, ids);
  return ids.at(0);
}

TEST(GrammarCompiler, MasksOfStatesOutliveEachOther) {
  const std::unique_ptr<Tokenizer> t = small_tokenizer();
  GrammarCompiler compiler(*t);
  const auto grammar = compiler.gbnf("root ::= \"a\" root \"b\" | \"c\"").value();
  const auto first = grammar->make_state(), second = grammar->make_state();
  ASSERT_TRUE(first->accept(one_token(*t, "a")));
  ASSERT_TRUE(first->accept(one_token(*t, "c")));
  const std::span<const uint64_t> mask = first->mask();
  const std::vector<uint64_t> expected(mask.begin(), mask.end());
  for (int i = 0; i < 400; ++i) {  // each place has a mask of its own: more than are kept
    second->mask();
    ASSERT_TRUE(second->accept(one_token(*t, "a")));
  }
  EXPECT_EQ(std::vector<uint64_t>(mask.begin(), mask.end()), expected);
}

TEST(GrammarCompiler, AGrammarThatHasGrownIsCompiledAnew) {
  const std::unique_ptr<Tokenizer> t = small_tokenizer();
  GrammarCompiler compiler(*t);
  const std::string text = "root ::= \"a\" root \"b\" | \"c\"";
  const auto grammar = compiler.gbnf(text).value();
  const auto state = grammar->make_state();
  const int32_t token = one_token(*t, "a");
  int accepted = 0;
  for (; accepted < 1000; ++accepted) ASSERT_TRUE(state->accept(token));
  EXPECT_EQ(grammar, compiler.gbnf(text).value());
  for (; accepted < 1 << 20 && state->accept(token); ++accepted) {
  }
  EXPECT_LT(accepted, 1 << 20);  // it takes a bounded memory
  EXPECT_NE(grammar, compiler.gbnf(text).value());
  EXPECT_TRUE(compiler.gbnf(text).value()->make_state()->accept(token));
}

}  // namespace
}  // namespace mete
