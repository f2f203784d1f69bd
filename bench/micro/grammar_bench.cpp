// What a token mask costs: one per generated token. GRAMMAR_MODEL names the file whose vocabulary is used.
#include <benchmark/benchmark.h>

#include <cstdlib>

#include "format/gguf.h"
#include "text/grammar/compiler.h"
#include "text/grammar/free_text.h"
#include "text/grammar/json_schema.h"

namespace mete {
namespace {

const char* const kSchema = R"({"type": "object", "properties": {
  "name": {"type": "string"}, "email": {"type": "string", "format": "email"}, "age": {"type": "integer", "minimum": 0},
  "tags": {"type": "array", "items": {"type": "string"}}, "address": {"type": "object", "properties": {
    "street": {"type": "string"}, "city": {"type": "string"}, "zip": {"type": "string", "pattern": "^\\d{5}$"}},
    "required": ["street", "city"]}, "notes": {}}, "required": ["name", "tags", "address", "notes"]})";
const char* const kText =
    R"({"name": "Ada Lovelace, Countess", "email": "ada@example.org", "age": 36, "tags": ["mathematics", "the first program", "poetry \"and\" science"],)"
    R"( "address": {"street": "12 St James's Square", "city": "London", "zip": "10115"}, "notes": {"long": [1, 2.5, true, null, "text with words and words"], "more": {"deep": [["x"]]}}})";

const char* const kCallText =
    "Let me see what the weather is like over there before we decide what to pack for the trip, one moment "
    "please.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"London\", \"days\": "
    "3}}\n</tool_call>";

std::shared_ptr<const Grammar> call_grammar(GrammarCompiler& compiler) {
  const std::string call =
      json_schema_to_gbnf(R"({"type": "object", "properties": {"name": {"const": "weather"},
    "arguments": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city", "days"]}}, "required": ["name", "arguments"]})")
          .value();
  const FreeTextMarks marks = {"<tool_call>", "</tool_call>", "<think>", "</think>"};
  return compiler.open_gbnf(free_text_gbnf(call, marks, FreeTextStart::kAnything), {}).value();
}

/// Masks along a text, a new compiler each time (`first`) or with what earlier texts have taught the grammar.
/// `calls`: free text with a strict tool call in it instead of JSON.
void masks(benchmark::State& state, bool first, bool calls) {
  const char* path = std::getenv("GRAMMAR_MODEL");
  if (path == nullptr) return state.SkipWithError("set GRAMMAR_MODEL");
  const auto tokenizer = Tokenizer::create(GgufFile::open(path).value().metadata()).value();
  const std::vector<int32_t> tokens = tokenizer->encode(calls ? kCallText : kText, false);
  auto compiler = std::make_unique<GrammarCompiler>(*tokenizer);
  (void)compiler->gbnf("root ::= \"a\"").value();  // makes the tree of the vocabulary
  std::shared_ptr<const Grammar> grammar;
  int64_t count = 0;
  for (auto _ : state) {
    if (first) {
      state.PauseTiming();
      grammar.reset();
      compiler = std::make_unique<GrammarCompiler>(*tokenizer);
      (void)compiler->gbnf("root ::= \"a\"").value();
      state.ResumeTiming();
    }
    if (!grammar) grammar = calls ? call_grammar(*compiler) : compiler->json_schema(kSchema).value();
    const auto place = grammar->make_state();
    for (const int32_t token : tokens) {
      benchmark::DoNotOptimize(place->mask().data());
      if (!place->accept(token)) return state.SkipWithError("the text does not fit the schema");
      ++count;
    }
  }
  state.counters["us_per_token"] = benchmark::Counter(
      static_cast<double>(count) * 1e-6, benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
  state.counters["tokens"] = static_cast<double>(tokens.size());
}
BENCHMARK_CAPTURE(masks, first_text, true, false)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(masks, later_texts, false, false)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(masks, first_call, true, true)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(masks, later_calls, false, true)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace mete
