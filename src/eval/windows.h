// The scored windows of a text: llama-perplexity's rule. Windows of `size` tokens without overlap, each
// starting with BOS where the model uses one; positions size/2 .. size - 2 of a window predict the token
// after them.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "text/tokenizer.h"

namespace mete {

struct Windows {
  int64_t size = 0;             ///< tokens per window, at least 4
  std::vector<int32_t> tokens;  ///< [count][size], as they are fed

  int64_t count() const { return static_cast<int64_t>(tokens.size()) / size; }
  int64_t first_scored() const { return size / 2; }
  int64_t scored() const { return size - 1 - size / 2; }  ///< rows per window
  int64_t rows() const { return count() * scored(); }
  std::span<const int32_t> window(int64_t i) const {
    return {tokens.data() + i * size, static_cast<size_t>(size)};
  }
  /// The token that scored row `row` (0 .. rows() - 1, over all windows) predicts.
  int32_t target(int64_t row) const {
    return tokens[static_cast<size_t>(row / scored() * size + position(row) + 1)];
  }
  int64_t position(int64_t row) const { return first_scored() + row % scored(); }
};

/// The first `count` windows of `text` (-1: all). `name` is what messages call the text. Throws Error(kUsage)
/// for an empty text, one shorter than a window, and more windows than there are.
Windows cut_windows(const Tokenizer& tokenizer, const std::string& text, const std::string& name,
                    int64_t size, int64_t count);

/// Throws Error(kUsage) naming the first difference if `other` (of the file `name`) does not number the same
/// tokens in the same way, or reads `text` differently.
void require_same_tokenizer(const Tokenizer& tokenizer, const Tokenizer& other, const std::string& name,
                            const std::string& text);

}  // namespace mete
