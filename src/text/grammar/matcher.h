// Which tokens may follow, for every state of a grammar automaton. What a token does within the top frames of
// a stack does not depend on what lies below; that part is worked out once for each such top and kept. Only
// tokens that run past the top are followed with the real stack below it.
#pragma once

#include <atomic>
#include <memory>
#include <span>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "text/grammar/automaton.h"
#include "text/grammar/vocab_tree.h"

namespace mete {

class GrammarMatcher {
 public:
  GrammarMatcher(GrammarProgram program, std::shared_ptr<const VocabTree> tree,
                 std::vector<int32_t> end_tokens);

  GrammarAutomaton& automaton() { return automaton_; }
  using Mask = std::vector<uint64_t>;
  /// [(vocab + 63) / 64] words.
  std::shared_ptr<const Mask> mask(GrammarAutomaton::State state);
  /// State after these bytes; kDead if they cannot follow.
  GrammarAutomaton::State advance(GrammarAutomaton::State state, std::string_view bytes);
  /// Memory of what has been worked out, without the vocabulary's tree; from any thread.
  size_t bytes() const { return automaton_.bytes() + tops_bytes_ + masks_bytes_; }

 private:
  /// What the vocabulary does within the top of a stack.
  struct Top {
    std::vector<int32_t> few;      ///< allowed tokens, if there are few
    Mask many;                     ///< allowed tokens, otherwise
    std::vector<int32_t> escapes;  ///< tree nodes where the top has been read to its end and tokens go on
  };

  const Top& top_below(GrammarAutomaton::Stack stack, GrammarAutomaton::Stack* below);
  bool classify(GrammarAutomaton::Stack key, int64_t limit, Top& top);
  void add_escapes(const Top& top, GrammarAutomaton::Stack below, Mask& mask);

  GrammarAutomaton automaton_;
  std::shared_ptr<const VocabTree> tree_;
  std::vector<int32_t> end_tokens_;
  size_t words_;
  std::unordered_map<GrammarAutomaton::Stack, Top> tops_;    // by top alone
  std::unordered_map<GrammarAutomaton::Stack, int> frames_;  // by top-most frame: frames that were enough
  std::unordered_map<GrammarAutomaton::State, std::shared_ptr<const Mask>> masks_;
  std::atomic<size_t> tops_bytes_ = 0, masks_bytes_ = 0;
  std::vector<int32_t> path_, outer_path_;
};

}  // namespace mete
