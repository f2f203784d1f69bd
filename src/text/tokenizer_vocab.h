// The vocabulary of a GGUF file: spellings, kinds, raw bytes and look-up, checked and owned.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "format/gguf.h"

namespace mete {

/// Values of `tokenizer.ggml.token_type`.
enum class TokenKind : uint8_t { kNormal = 1, kUnknown, kControl, kUserDefined, kUnused, kByte };

/// How spellings stand for bytes.
enum class Spelling {
  kByteLevel,  ///< GPT-2's map of bytes to printable code points
  kMetaspace   ///< UTF-8 with U+2581 for a space, and <0xHH> for bytes
};

class Vocab {
 public:
  /// Bytes of the tables for so many tokens, without their spellings.
  static int64_t table_bytes(size_t tokens) {
    return static_cast<int64_t>(tokens * (sizeof(Token) + 4) + slot_count(tokens) * sizeof(Slot));
  }
  static Result<Vocab> load(const GgufMetadata& metadata, Spelling spelling);

  int32_t size() const { return static_cast<int32_t>(tokens_.size()); }
  std::string_view text(int32_t id) const { return view(at(id).text); }
  std::string_view piece(int32_t id) const { return view(at(id).piece); }
  TokenKind kind(int32_t id) const { return at(id).kind; }
  bool is_special(int32_t id) const {
    return kind(id) == TokenKind::kControl || kind(id) == TokenKind::kUnknown;
  }
  bool ends_generation(int32_t id) const { return at(id).ends_generation; }
  std::optional<int32_t> find(std::string_view text) const { return find(text, hash_of(text)); }
  /// For many look-ups in a row: prefetch() some calls ahead hides the memory's latency.
  static uint32_t hash_of(std::string_view text);
  void prefetch(uint32_t hash) const { __builtin_prefetch(&slots_[hash & (slots_.size() - 1)]); }
  std::optional<int32_t> find(std::string_view text, uint32_t hash) const;

  /// Token of each single byte, -1 if there is none.
  const std::array<int32_t, 256>& byte_tokens() const { return byte_tokens_; }

  /// Single tokens, -1 if none; all checked to be in range.
  int32_t bos = -1, eos = -1, eot = -1, eom = -1, unk = -1, pad = -1;

 private:
  struct Range {
    uint32_t begin, size;
  };
  struct Token {
    Range text, piece;
    TokenKind kind;
    bool ends_generation;
  };
  struct Slot {
    uint32_t hash;
    int32_t id;  ///< -1 if free
    Range text;
  };

  static size_t slot_count(size_t tokens) { return std::bit_ceil(tokens + tokens / 3 + 1); }
  const Token& at(int32_t id) const { return tokens_[static_cast<size_t>(id)]; }
  std::string_view view(Range range) const {
    return std::string_view(bytes_).substr(range.begin, range.size);
  }
  Status load_texts(const GgufMetadata& metadata);
  Status load_kinds(const GgufMetadata& metadata);
  Status load_single_tokens(const GgufMetadata& metadata, Spelling spelling);
  Status make_pieces(Spelling spelling);
  void mark_specials();
  void mark_ends();
  int32_t first_of(std::initializer_list<std::string_view> texts) const;
  void end_generation(int32_t id);

  std::string bytes_;  ///< all spellings and pieces
  std::vector<Token> tokens_;
  std::vector<Slot> slots_;  ///< open addressing, a power of two, at most three quarters full
  std::array<int32_t, 256> byte_tokens_;
};

/// The raw bytes of a byte-level spelling; nothing if it holds a code point outside the map.
std::optional<std::string> decode_byte_level(std::string_view text);
/// Code point that stands for each byte.
const std::array<uint16_t, 256>& byte_level_map();

inline constexpr std::string_view kMetaspace = "\xe2\x96\x81";  // U+2581

}  // namespace mete
