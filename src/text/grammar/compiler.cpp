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

/// Special tokens in free text.
struct SpecialTokens {
  std::vector<uint64_t> hidden;                        // mask of those that count as nothing
  std::vector<std::pair<int32_t, std::string>> shown;  // with their spellings
};

class OpenState final : public GrammarState {
 public:
  OpenState(std::shared_ptr<GrammarMatcher> matcher, const Tokenizer& tokenizer,
            std::shared_ptr<const SpecialTokens> special)
      : matcher_(std::move(matcher)),
        tokenizer_(tokenizer),
        special_(std::move(special)),
        state_(matcher_->automaton().start()) {}

  std::span<const uint64_t> mask() override {
    mask_ = *matcher_->mask(state_);
    if (matcher_->automaton().complete(state_)) {
      for (size_t w = 0; w < mask_.size(); ++w) mask_[w] |= special_->hidden[w];
    }
    for (const auto& [token, text] : special_->shown) {
      if (matcher_->advance(state_, text) == GrammarAutomaton::kDead) continue;
      mask_[static_cast<size_t>(token) / 64] |= uint64_t{1} << (static_cast<size_t>(token) % 64);
    }
    return mask_;
  }
  bool accept(int32_t token) override {
    if (mask_allows(special_->hidden, token)) return matcher_->automaton().complete(state_);
    std::string_view piece = tokenizer_.piece(token);
    for (const auto& [id, text] : special_->shown) {
      if (id == token) piece = text;
    }
    const GrammarAutomaton::State next = matcher_->advance(state_, piece);
    if (piece.empty() || next == GrammarAutomaton::kDead) return false;
    state_ = next;
    return true;
  }
  bool is_done() const override { return false; }

 private:
  std::shared_ptr<GrammarMatcher> matcher_;
  const Tokenizer& tokenizer_;
  std::shared_ptr<const SpecialTokens> special_;
  GrammarAutomaton::State state_;
  GrammarMatcher::Mask mask_;
};

class OpenGrammar final : public Grammar {
 public:
  OpenGrammar(std::shared_ptr<GrammarMatcher> matcher, const Tokenizer& tokenizer,
              std::span<const int32_t> shown)
      : matcher_(std::move(matcher)), tokenizer_(tokenizer) {
    SpecialTokens special;
    special.hidden.assign((static_cast<size_t>(tokenizer.vocab_size()) + 63) / 64, 0);
    for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
      if (tokenizer.is_end_of_generation(id)) continue;
      if (!tokenizer.is_special(id) && !tokenizer.piece(id).empty()) continue;
      if (std::find(shown.begin(), shown.end(), id) != shown.end()) {
        special.shown.emplace_back(id, tokenizer.text(id));
      } else {
        special.hidden[static_cast<size_t>(id) / 64] |= uint64_t{1} << (static_cast<size_t>(id) % 64);
      }
    }
    special_ = std::make_shared<const SpecialTokens>(std::move(special));
  }
  std::unique_ptr<GrammarState> make_state() const override {
    return std::make_unique<OpenState>(matcher_, tokenizer_, special_);
  }

 private:
  std::shared_ptr<GrammarMatcher> matcher_;
  const Tokenizer& tokenizer_;
  std::shared_ptr<const SpecialTokens> special_;
};

}  // namespace

GrammarCompiler::GrammarCompiler(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}
GrammarCompiler::~GrammarCompiler() = default;

Result<std::shared_ptr<const Grammar>> GrammarCompiler::gbnf(std::string_view text) {
  const std::lock_guard lock(mutex_);
  const Result<Entry*> entry = find(text);
  if (!entry) return entry.error();
  return (*entry)->grammar;
}

Result<std::shared_ptr<const Grammar>> GrammarCompiler::open_gbnf(std::string_view text,
                                                                  std::span<const int32_t> shown) {
  const std::lock_guard lock(mutex_);
  const Result<Entry*> found = find(text);
  if (!found) return found.error();
  Entry& entry = **found;
  if (!entry.open || !std::equal(shown.begin(), shown.end(), entry.shown.begin(), entry.shown.end())) {
    entry.open = std::make_shared<OpenGrammar>(entry.matcher, tokenizer_, shown);
    entry.shown.assign(shown.begin(), shown.end());
  }
  return entry.open;
}

/// The entry of a text, made if there is none; valid until the next call.
Result<GrammarCompiler::Entry*> GrammarCompiler::find(std::string_view text) {
  drop_large();
  const auto known = std::find_if(kept_.begin(), kept_.end(), [&](const Entry& e) { return e.text == text; });
  if (known != kept_.end()) {
    kept_.splice(kept_.begin(), kept_, known);
    return &kept_.front();
  }
  Result<GrammarProgram> program = parse_gbnf(text);
  if (!program) return program.error();
  if (!tree_) tree_ = std::make_shared<VocabTree>(tokenizer_);
  auto matcher = std::make_shared<GrammarMatcher>(std::move(*program), tree_, tokenizer_.end_tokens());
  if (matcher->automaton().start() == GrammarAutomaton::kDead) {
    return bad_usage("no text fits the grammar, or it is too ambiguous to follow");
  }
  kept_.push_front(
      {std::string(text), std::make_shared<CompiledGrammar>(matcher, tokenizer_), matcher, nullptr, {}});
  if (kept_.size() > kKept) kept_.pop_back();
  return &kept_.front();
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
