// Byte-pair encoding with ranked merges: byte-level (GPT-2 and its descendants) or over UTF-8 (Gemma 4).
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <string_view>
#include <vector>

#include "text/bpe_cache.h"
#include "text/bpe_merge.h"
#include "text/tokenizer_vocab.h"

namespace mete {

class Bpe {
 public:
  /// Reads and checks `tokenizer.ggml.merges`. Both parts and the result of every merge must be tokens, none
  /// of them special.
  static Result<Bpe> load(const GgufMetadata& metadata, const Vocab& vocab, Spelling spelling,
                          bool ignore_merges);

  /// Bytes of the table for so many merges.
  static int64_t table_bytes(size_t merges) {
    return static_cast<int64_t>(slot_count(merges) * sizeof(Pair));
  }

  struct Scratch {
    explicit Scratch(size_t text_bytes) : cache(text_bytes) {}
    WordCache cache;
    MergeScratch<int32_t> merge;
    std::vector<int32_t> symbols;
    std::string spelled;
  };
  /// Appends the ids of one word, not empty.
  void encode(const Vocab& vocab, std::string_view word, Scratch& scratch, std::vector<int32_t>& ids) const;

 private:
  struct Pair {
    uint64_t key;  ///< left << 32 | right
    uint32_t rank;
    int32_t joined;  ///< -1: free slot
  };
  /// Left part, right part and result of a line of merges, and their hashes.
  struct Merge {
    size_t space;  ///< npos if the line is malformed
    std::string whole;
    uint32_t hash[3];
  };
  static size_t slot_count(size_t merges) { return std::bit_ceil(std::max<size_t>(2, merges + merges / 2)); }
  static void prepare(const Vocab& vocab, std::string_view line, Merge& merge);
  Status add_merge(const Vocab& vocab, std::string_view line, const Merge& merge, size_t number);
  size_t slot_of(uint64_t key) const { return static_cast<size_t>((key * 0x9e3779b97f4a7c15ULL) >> shift_); }
  uint32_t find(int32_t left, int32_t right, int32_t& joined) const;
  void symbols_of(const Vocab& vocab, std::string_view word, std::vector<int32_t>& symbols) const;
  /// The token that a whole word is, without merges; -1 if there is none or merges decide.
  int32_t whole_word(const Vocab& vocab, std::string_view word, std::string& spelled) const;

  std::vector<Pair> pairs_;  ///< open addressing, a power of two
  int shift_ = 0;            ///< 64 - log2 of the size
  Spelling spelling_ = Spelling::kByteLevel;
  bool ignore_merges_ = false;
  size_t longest_piece_ = 0;  ///< bytes
};

}  // namespace mete
