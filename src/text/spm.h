// SentencePiece-style encoding: neighbouring symbols join where the vocabulary holds the result, best score
// first.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "text/bpe_cache.h"
#include "text/bpe_merge.h"
#include "text/tokenizer_vocab.h"

namespace mete {

class Spm {
 public:
  /// Reads and checks `tokenizer.ggml.scores`.
  static Result<Spm> load(const GgufMetadata& metadata, const Vocab& vocab);

  static int64_t table_bytes(size_t tokens) { return static_cast<int64_t>(4 * tokens); }

  struct Symbol {
    uint32_t begin, size;  ///< bytes of the text
  };
  struct Scratch {
    explicit Scratch(size_t text_bytes) : cache(text_bytes) {}
    WordCache cache;
    MergeScratch<Symbol> merge;
    std::vector<Symbol> symbols;
  };
  /// Appends the ids of `text`, whose spaces are U+2581 already. Less than 4 GiB. Linear but for the heap.
  void encode(const Vocab& vocab, std::string_view text, Scratch& scratch, std::vector<int32_t>& ids) const;

 private:
  // Classes of symbols: ASCII characters, U+2581, anything else.
  static constexpr size_t kSpaceClass = 128, kOtherClass = 129;
  static size_t class_of(std::string_view symbol);
  void encode_chunk(const Vocab& vocab, std::string_view chunk, Scratch& scratch,
                    std::vector<int32_t>& ids) const;
  /// A token that text may become, -1 if there is none.
  int32_t token_of(const Vocab& vocab, std::string_view text) const;

  std::vector<uint32_t> rank_;  ///< per token: ascending where scores descend; kNoMerge: never made from text
  size_t longest_ = 0;          ///< bytes of the longest spelling that text may become
  /// Whether some token holds two symbols of these classes side by side. Where none does, no merge can cross,
  /// and the text falls apart into chunks that can be merged (and remembered) on their own.
  std::array<std::array<bool, 129>, 129> adjacent_{};
};

}  // namespace mete
