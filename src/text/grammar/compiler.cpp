#include "text/grammar/compiler.h"

#include <algorithm>

#include "text/grammar/gbnf.h"
#include "text/grammar/json_schema.h"
#include "text/grammar/matcher.h"

namespace mete {
namespace {

constexpr size_t kKept = 64;                        // grammars
constexpr size_t kKeptBytes = size_t{64} << 20;     // of all kept grammars
constexpr size_t kGrammarBytes = size_t{16} << 20;  // of one; then it is compiled anew for the next request

class CompiledState final : public GrammarState {
 public:
  CompiledState(std::shared_ptr<GrammarMatcher> matcher, const Tokenizer& tokenizer)
      : matcher_(std::move(matcher)), tokenizer_(tokenizer), state_(matcher_->automaton().start()) {}

  std::span<const uint64_t> mask() override {
    mask_ = matcher_->mask(state_);
    return *mask_;
  }
  bool accept(int32_t token) override {
    if (tokenizer_.is_special(token) || tokenizer_.is_end_of_generation(token)) return false;
    const std::string_view piece = tokenizer_.piece(token);
    if (piece.empty()) return false;
    const GrammarAutomaton::State next = matcher_->advance(state_, piece);
    if (next == GrammarAutomaton::kDead) return false;
    state_ = next;
    return true;
  }
  bool is_done() const override {
    return matcher_->automaton().complete(state_) && matcher_->automaton().stacks(state_).empty();
  }

 private:
  std::shared_ptr<GrammarMatcher> matcher_;
  const Tokenizer& tokenizer_;
  GrammarAutomaton::State state_;
  std::shared_ptr<const GrammarMatcher::Mask> mask_;  // the last one asked for
};

class CompiledGrammar final : public Grammar {
 public:
  CompiledGrammar(std::shared_ptr<GrammarMatcher> matcher, const Tokenizer& tokenizer)
      : matcher_(std::move(matcher)), tokenizer_(tokenizer) {}
  std::unique_ptr<GrammarState> make_state() const override {
    return std::make_unique<CompiledState>(matcher_, tokenizer_);
  }

 private:
  std::shared_ptr<GrammarMatcher> matcher_;  // what it has worked out so far serves all states
  const Tokenizer& tokenizer_;
};

std::vector<int32_t> end_tokens(const Tokenizer& tokenizer) {
  std::vector<int32_t> out;
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    if (tokenizer.is_end_of_generation(id)) out.push_back(id);
  }
  return out;
}

}  // namespace

GrammarCompiler::GrammarCompiler(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}
GrammarCompiler::~GrammarCompiler() = default;

Result<std::shared_ptr<const Grammar>> GrammarCompiler::gbnf(std::string_view text) {
  const std::lock_guard lock(mutex_);
  drop_large();
  const auto known = std::find_if(kept_.begin(), kept_.end(), [&](const Entry& e) { return e.text == text; });
  if (known != kept_.end()) {
    kept_.splice(kept_.begin(), kept_, known);
    return kept_.front().grammar;
  }
  Result<GrammarProgram> program = parse_gbnf(text);
  if (!program) return program.error();
  if (!tree_) tree_ = std::make_shared<VocabTree>(tokenizer_);
  auto matcher = std::make_shared<GrammarMatcher>(std::move(*program), tree_, end_tokens(tokenizer_));
  if (matcher->automaton().start() == GrammarAutomaton::kDead) {
    return bad_usage("no text fits the grammar, or it is too ambiguous to follow");
  }
  kept_.push_front({std::string(text), std::make_shared<CompiledGrammar>(matcher, tokenizer_), matcher});
  if (kept_.size() > kKept) kept_.pop_back();
  return kept_.front().grammar;
}

/// Grammars grow while they are used. States of a dropped one go on with it and then free it.
void GrammarCompiler::drop_large() {
  kept_.remove_if([](const Entry& e) {
    return e.matcher->automaton().exhausted() || e.matcher->bytes() > kGrammarBytes;
  });
  size_t bytes = 0;
  const auto first = std::find_if(kept_.begin(), kept_.end(), [&](const Entry& e) {
    bytes += e.matcher->bytes();
    return bytes > kKeptBytes;
  });
  kept_.erase(first, kept_.end());
}

Result<std::shared_ptr<const Grammar>> GrammarCompiler::json_schema(std::string_view schema) {
  const Result<std::string> text = json_schema_to_gbnf(schema);
  if (!text) return text.error();
  return gbnf(*text);
}

Result<std::shared_ptr<const Grammar>> GrammarCompiler::json_object() {
  return json_schema(R"({"type": "object", "additionalProperties": true})");
}

}  // namespace mete
