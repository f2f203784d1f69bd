// What constrains a sequence's tokens: a compiled grammar, shared, and the place of one sequence in it.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

namespace mete {

/// Bit t of word t / 64 is set if token t is allowed.
inline bool mask_allows(std::span<const uint64_t> mask, int32_t token) {
  return ((mask[static_cast<size_t>(token) / 64] >> (static_cast<size_t>(token) % 64)) & 1u) != 0;
}

/// The place of one sequence. All calls come from one thread.
class GrammarState {
 public:
  virtual ~GrammarState() = default;
  /// Tokens that may come next, end-of-generation tokens among them where the text may end:
  /// [(vocab + 63) / 64] words, bits beyond the vocabulary 0. Valid until the next call on this state.
  virtual std::span<const uint64_t> mask() = 0;
  /// Goes on by one token; false, and nothing changed, if it is not allowed, or if the grammar cannot be
  /// followed any further in the memory that it may take.
  virtual bool accept(int32_t token) = 0;
  /// The text is complete and nothing but its end may follow.
  virtual bool is_done() const = 0;
};

/// Compiled once for a tokenizer; any number of sequences of one thread share it.
class Grammar {
 public:
  virtual ~Grammar() = default;
  /// The place before the first generated token.
  virtual std::unique_ptr<GrammarState> make_state() const = 0;
};

}  // namespace mete
