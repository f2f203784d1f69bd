// Finds the spellings of special and user-defined tokens in text: leftmost, then longest.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace mete {

/// Bytes [begin, end) of a text.
struct ByteRange {
  size_t begin, end;
};

class TokenTrie {
 public:
  TokenTrie() { root_.fill(-1); }
  /// `text` not empty. `special`: matched only where find() allows special tokens.
  void add(std::string_view text, int32_t id, bool special);

  struct Match {
    size_t begin, size;  ///< in bytes; size 0 if there is none
    int32_t id;
  };
  /// The first match at or after `from`. A special token counts only inside one of `ranges`, which are
  /// ascending and do not overlap.
  Match find(std::string_view text, size_t from, std::span<const ByteRange> ranges) const;

 private:
  struct Node {
    int32_t child = -1, sibling = -1;  ///< node numbers
    int32_t id = -1;                   ///< token that ends here
    char byte = 0;
    bool special = false;
  };
  std::array<int32_t, 256> root_;
  std::array<bool, 256> starts_ordinary_{};  ///< first bytes of tokens that are not special
  std::vector<Node> nodes_;
};

}  // namespace mete
