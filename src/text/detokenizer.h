// Token ids to text, as they come.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "text/tokenizer.h"

namespace mete {

/// The text of all `ids`; bytes that are not valid UTF-8 become U+FFFD. Special tokens only if asked.
std::string decode(const Tokenizer& tokenizer, std::span<const int32_t> ids, bool show_special = false);

/// Gives out whole code points only: bytes of an unfinished one wait for the next token. The concatenation of
/// all returned strings is decode() of all ids. Refers to the tokenizer, which must live longer.
class StreamDetokenizer {
 public:
  /// `shown`: special tokens that are shown although others are not.
  explicit StreamDetokenizer(const Tokenizer& tokenizer, bool show_special = false,
                             std::vector<int32_t> shown = {})
      : tokenizer_(tokenizer), show_special_(show_special), shown_(std::move(shown)) {}
  /// The text that `id` completes; "" if it is special and hidden, or ends inside a code point.
  std::string put(int32_t id);
  /// What is left at the end: "" or U+FFFD for an unfinished code point. Ready for new text afterwards.
  std::string finish();

 private:
  const Tokenizer& tokenizer_;
  bool show_special_;
  std::vector<int32_t> shown_;
  std::string pending_;  ///< at most 3 bytes
};

}  // namespace mete
