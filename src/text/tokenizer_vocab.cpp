#include "text/tokenizer_vocab.h"

#include <xxhash.h>

#include <algorithm>
#include <limits>

#include "text/utf8.h"

namespace mete {
namespace {

constexpr std::string_view kTokens = "tokenizer.ggml.tokens";
constexpr std::string_view kTypes = "tokenizer.ggml.token_type";
constexpr int64_t kMaxTokens = int64_t{1} << 26;
constexpr uint16_t kNotMapped = 256;
constexpr size_t kMapSize = 324;  // the map's code points are below U+0144

/// The byte that each code point below kMapSize stands for, kNotMapped if none.
const std::array<uint16_t, kMapSize>& byte_level_inverse() {
  static const auto inverse = [] {
    std::array<uint16_t, kMapSize> out;
    out.fill(kNotMapped);
    for (uint16_t byte = 0; byte < 256; ++byte) out[byte_level_map()[byte]] = byte;
    return out;
  }();
  return inverse;
}

/// The byte of a spelling <0xHH> with upper-case digits; nothing for any other text.
std::optional<uint8_t> parse_byte_token(std::string_view text) {
  if (text.size() != 6 || text.substr(0, 3) != "<0x" || text[5] != '>') return std::nullopt;
  const auto digit = [](char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
  };
  const int high = digit(text[3]), low = digit(text[4]);
  if (high < 0 || low < 0) return std::nullopt;
  return static_cast<uint8_t>(high * 16 + low);
}

std::string metaspace_to_space(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const size_t found = std::min(text.find(kMetaspace, at), text.size());
    out.append(text.substr(at, found - at));
    if (found < text.size()) out.push_back(' ');
    at = found + kMetaspace.size();
  }
  return out;
}

bool wrapped_in(std::string_view text, std::string_view before, std::string_view after) {
  return text.size() > before.size() + after.size() && text.substr(0, before.size()) == before &&
         text.substr(text.size() - after.size()) == after;
}

}  // namespace

const std::array<uint16_t, 256>& byte_level_map() {
  static const auto map = [] {
    std::array<uint16_t, 256> out;
    uint16_t next = 256;
    for (uint16_t byte = 0; byte < 256; ++byte) {
      const bool printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte != 0xad);
      out[byte] = printable ? byte : next++;
    }
    return out;
  }();
  return map;
}

std::optional<std::string> decode_byte_level(std::string_view text) {
  const auto& inverse = byte_level_inverse();
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const auto lead = static_cast<uint8_t>(text[at++]);
    size_t point = lead;
    if (lead >= 0x80) {  // the map's other code points take two bytes
      if (lead < 0xc2 || lead > 0xc5 || at == text.size() ||
          (static_cast<uint8_t>(text[at]) & 0xc0) != 0x80) {
        return std::nullopt;
      }
      point = (size_t{lead} & 0x1f) << 6 | (static_cast<uint8_t>(text[at++]) & 0x3f);
    }
    if (point >= kMapSize || inverse[point] == kNotMapped) return std::nullopt;
    out.push_back(static_cast<char>(inverse[point]));
  }
  return out;
}

uint32_t Vocab::hash_of(std::string_view text) {
  return static_cast<uint32_t>(XXH3_64bits(text.data(), text.size()));
}

Result<Vocab> Vocab::load(const GgufMetadata& metadata, Spelling spelling) {
  Vocab vocab;
  vocab.byte_tokens_.fill(-1);
  if (Status s = vocab.load_texts(metadata); !s) return s.error();
  if (Status s = vocab.load_kinds(metadata); !s) return s.error();
  if (Status s = vocab.load_single_tokens(metadata, spelling); !s) return s.error();
  vocab.mark_specials();
  vocab.mark_ends();
  if (Status s = vocab.make_pieces(spelling); !s) return s.error();
  return vocab;
}

Status Vocab::load_texts(const GgufMetadata& metadata) {
  const auto texts = metadata.strings(kTokens);
  if (!texts) return texts.error();
  if (texts->empty() || texts->size() > static_cast<size_t>(kMaxTokens)) {
    return bad_model("{} has {} tokens, expected 1 to {}", kTokens, texts->size(), kMaxTokens);
  }
  size_t total = 0;
  for (const std::string_view text : *texts) total += text.size();
  // Pieces are never longer than spellings, and both live in one string with 32-bit offsets.
  if (total > std::numeric_limits<uint32_t>::max() / 2) {
    return bad_model("{} holds {} bytes, expected less than 2 GiB", kTokens, total);
  }
  bytes_.reserve(2 * total);
  tokens_.reserve(texts->size());
  slots_.assign(slot_count(texts->size()), Slot{0, -1, {0, 0}});
  std::vector<uint32_t> hashes;
  hashes.reserve(texts->size());
  for (const std::string_view text : *texts) hashes.push_back(hash_of(text));
  constexpr size_t kAhead = 16;
  for (size_t i = 0; i < texts->size(); ++i) {
    if (i + kAhead < texts->size()) prefetch(hashes[i + kAhead]);
    const std::string_view text = (*texts)[i];
    const Range range{static_cast<uint32_t>(bytes_.size()), static_cast<uint32_t>(text.size())};
    tokens_.push_back({range, range, TokenKind::kNormal, false});
    bytes_.append(text);
    if (text.empty()) continue;  // a hole in the vocabulary: never matched
    if (const auto other = find(text, hashes[i])) {
      return bad_model("{}: tokens {} and {} are both \"{}\"", kTokens, *other, i, utf8_repair(text));
    }
    size_t slot = hashes[i] & (slots_.size() - 1);
    while (slots_[slot].id >= 0) slot = (slot + 1) & (slots_.size() - 1);
    slots_[slot] = {hashes[i], static_cast<int32_t>(i), range};
  }
  return {};
}

std::optional<int32_t> Vocab::find(std::string_view text, uint32_t hash) const {
  if (text.empty()) return std::nullopt;
  for (size_t slot = hash & (slots_.size() - 1); slots_[slot].id >= 0;
       slot = (slot + 1) & (slots_.size() - 1)) {
    if (slots_[slot].hash == hash && view(slots_[slot].text) == text) return slots_[slot].id;
  }
  return std::nullopt;
}

Status Vocab::load_kinds(const GgufMetadata& metadata) {
  if (!metadata.has(kTypes)) return {};
  const auto types = metadata.integers(kTypes);
  if (!types) return types.error();
  if (types->size() != tokens_.size()) {
    return bad_model("{} has {} entries, expected {} as in {}", kTypes, types->size(), tokens_.size(),
                     kTokens);
  }
  for (size_t i = 0; i < types->size(); ++i) {
    if ((*types)[i] < 1 || (*types)[i] > 6) {
      return bad_model("{}[{}] is {}, expected 1 to 6", kTypes, i, (*types)[i]);
    }
    tokens_[i].kind = static_cast<TokenKind>((*types)[i]);
  }
  return {};
}

Status Vocab::load_single_tokens(const GgufMetadata& metadata, Spelling spelling) {
  struct Field {
    std::string_view key;
    int32_t* id;
  };
  const Field fields[] = {
      {"tokenizer.ggml.bos_token_id", &bos},     {"tokenizer.ggml.eos_token_id", &eos},
      {"tokenizer.ggml.eot_token_id", &eot},     {"tokenizer.ggml.eom_token_id", &eom},
      {"tokenizer.ggml.unknown_token_id", &unk}, {"tokenizer.ggml.padding_token_id", &pad}};
  for (const Field& field : fields) {
    if (!metadata.has(field.key)) continue;
    const auto id = metadata.integer(field.key, 0, size() - 1);
    if (!id) return id.error();
    *field.id = static_cast<int32_t>(*id);
  }
  // SentencePiece's own numbering, where old files name no ids.
  if (spelling == Spelling::kMetaspace) {
    const auto usual = [&](int32_t& id, int32_t number, TokenKind wanted) {
      if (id < 0 && number < size() && kind(number) == wanted) id = number;
    };
    usual(unk, 0, TokenKind::kUnknown);
    usual(bos, 1, TokenKind::kControl);
    usual(eos, 2, TokenKind::kControl);
  }
  return {};
}

// Writers mark some turn markers as user-defined, which would let user text forge a turn.
void Vocab::mark_specials() {
  for (int32_t id = 0; id < size(); ++id) {
    Token& token = tokens_[static_cast<size_t>(id)];
    if (token.kind != TokenKind::kUserDefined) continue;
    const std::string_view spelled = text(id);
    // The second pair is DeepSeek's: full-width bars, U+FF5C.
    if (wrapped_in(spelled, "<|", "|>") || wrapped_in(spelled, "<\xef\xbd\x9c", "\xef\xbd\x9c>")) {
      token.kind = TokenKind::kControl;
    }
  }
}

int32_t Vocab::first_of(std::initializer_list<std::string_view> texts) const {
  for (const std::string_view text : texts) {
    if (const auto id = find(text)) return *id;
  }
  return -1;
}

void Vocab::end_generation(int32_t id) {
  if (id < 0) return;
  Token& token = tokens_[static_cast<size_t>(id)];
  token.ends_generation = true;
  token.kind = TokenKind::kControl;
}

// The spellings that llama.cpp takes as the end of a turn, of a message or of what an infilling model fills
// in.
void Vocab::mark_ends() {
  constexpr std::string_view kDeepseekEnd =
      "<\xef\xbd\x9c"
      "end\xe2\x96\x81of\xe2\x96\x81sentence\xef\xbd\x9c>";
  if (eot < 0) {
    eot = first_of({"<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>",
                    "<|end_of_text|>", "<EOT>", "_<EOT>", "[EOT]", kDeepseekEnd, "<end_of_utterance>"});
  }
  if (eom < 0) eom = first_of({"<|eom_id|>"});
  constexpr std::string_view kEnds[] = {"<|eot_id|>",
                                        "<|im_end|>",
                                        "<|return|>",
                                        "<|call|>",
                                        "<|flush|>",
                                        "<|calls|>",
                                        "<|eom_id|>",
                                        "<end_of_turn>",
                                        "<|endoftext|>",
                                        "<|end_of_text|>",
                                        "<end_of_utterance>",
                                        "<EOT>",
                                        "_<EOT>",
                                        "[EOT]",
                                        "[EOS]",
                                        "<eos>",
                                        "<turn|>",
                                        "<|tool_response>",
                                        "[e~[",
                                        kDeepseekEnd};
  for (const std::string_view text : kEnds) {
    end_generation(first_of({text}));
  }
  end_generation(first_of({"<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"}));
  end_generation(first_of({"<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"}));
  end_generation(first_of({"<|file_sep|>"}));
  for (const int32_t id : {eos, eot, eom}) {
    if (id >= 0) tokens_[static_cast<size_t>(id)].ends_generation = true;
  }
  // In the harmony format (which has <|return|> and <|call|>, or <|calls|> and <|flush|>) <|end|> closes one
  // message of several.
  const bool harmony = (find("<|return|>") && (find("<|call|>") || find("<|calls|>"))) ||
                       (find("<|flush|>") && (find("<|call|>") || find("<|calls|>")));
  const int32_t end = first_of({"<|end|>"});
  if (!harmony) end_generation(end);
  if (harmony && end >= 0 && end != eos) tokens_[static_cast<size_t>(end)].ends_generation = false;
  // The Gemma family holds </s> as an HTML tag, which must not end anything.
  const int32_t close = first_of({"</s>"});
  if (close >= 0 && kind(close) == TokenKind::kControl) end_generation(close);
}

Status Vocab::make_pieces(Spelling spelling) {
  for (int32_t id = 0; id < size(); ++id) {
    Token& token = tokens_[static_cast<size_t>(id)];
    std::optional<std::string> piece;
    if (token.kind == TokenKind::kByte) {
      const auto byte = parse_byte_token(text(id));
      if (!byte) {
        return bad_model("{}[{}] is \"{}\", expected a byte token <0xHH>", kTokens, id,
                         utf8_repair(text(id)));
      }
      piece = std::string(1, static_cast<char>(*byte));
      byte_tokens_[*byte] = id;
    } else if (token.kind == TokenKind::kNormal || token.kind == TokenKind::kUnused) {
      piece = spelling == Spelling::kMetaspace ? metaspace_to_space(text(id)) : decode_byte_level(text(id));
      if (spelling == Spelling::kByteLevel && token.kind == TokenKind::kNormal && piece &&
          piece->size() == 1) {
        byte_tokens_[static_cast<uint8_t>(piece->front())] = id;
      }
    }
    if (!piece || *piece == text(id)) continue;  // the spelling itself
    token.piece = {static_cast<uint32_t>(bytes_.size()), static_cast<uint32_t>(piece->size())};
    bytes_.append(*piece);
  }
  return {};
}

}  // namespace mete
