// Text to token ids and back, from the metadata of a GGUF file. See docs/tokenizers.md.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "format/gguf.h"

namespace mete {

/// A stretch of a prompt, and whether the spelling of a special token in it becomes that token.
struct TextRun {
  std::string_view text;
  bool special;
};

/// Bytes that a tokenizer of this metadata takes, what building and using it needs for a while included;
/// counted from above, but for text of many megabytes. 0 if there are no tokens.
int64_t tokenizer_bytes(const GgufMetadata& metadata);

/// Immutable after create(); every function may be called from several threads at once.
class Tokenizer {
 public:
  /// Validates everything it will use. Error(kBadModel) for an unknown `tokenizer.ggml.model` or
  /// `tokenizer.ggml.pre`, an id outside the vocabulary, arrays of unequal length, a duplicate token, a merge
  /// of unknown tokens, a malformed byte token. Owns what it needs: the metadata may go away.
  static Result<std::unique_ptr<Tokenizer>> create(const GgufMetadata& metadata);
  ~Tokenizer();

  /// Appends the ids of `text`; adds no begin or end token by itself. `special`: the spelling of a special
  /// token in `text` becomes its id (template output only). Otherwise (user text) only user-defined tokens
  /// that are not special are recognised, and no special token can result (but for unk(), where a
  /// SentencePiece vocabulary has no token for a byte). Bytes that are not valid UTF-8 are encoded one by
  /// one. Bytes for which the vocabulary has no token at all are left out, as the reference tokenizers do.
  /// Throws Error(kUsage) for 1 GiB of text or more.
  void encode(std::string_view text, bool special, std::vector<int32_t>& ids) const;
  /// As encode() of the concatenated text, but a special token is recognised only where its whole spelling
  /// lies in consecutive runs with `special`. Borders of runs are not borders of words.
  void encode(std::span<const TextRun> runs, std::vector<int32_t>& ids) const;
  std::vector<int32_t> encode(std::string_view text, bool special) const {
    std::vector<int32_t> ids;
    encode(text, special, ids);
    return ids;
  }

  /// The raw bytes that a token stands for; may be part of a code point. `id` in [0, vocab_size()).
  std::string_view piece(int32_t id) const;
  /// The vocabulary's own spelling of a token.
  std::string_view text(int32_t id) const;
  std::optional<int32_t> find(std::string_view text) const;

  int32_t vocab_size() const;
  int32_t bos() const;  ///< -1 if none, as for all single tokens
  int32_t eos() const;
  int32_t eot() const;
  int32_t eom() const;
  int32_t unk() const;
  int32_t pad() const;
  bool add_bos() const;  ///< a prompt begins with bos(); never true if bos() is -1
  bool add_eos() const;  ///< a prompt ends with eos(); never true if eos() is -1
  bool add_space_prefix()
      const;  ///< encode() puts a space before text at the start and after a special token

  /// End of sequence, turn or message: eos, eot, eom and the end-of-turn spellings that are in common use.
  bool is_end_of_generation(int32_t id) const;
  std::vector<int32_t> end_tokens() const;  ///< all of these, ascending
  /// Control and unknown tokens: not shown when printing, never made from user text.
  bool is_special(int32_t id) const;

  /// "spm", or "bpe/" and the pre-tokenizer's name.
  std::string_view kind() const;

 private:
  struct Impl;
  explicit Tokenizer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace mete
