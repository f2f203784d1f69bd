#include "text/tokenizer.h"

#include <algorithm>
#include <limits>
#include <variant>

#include "text/bpe.h"
#include "text/pretokenizer.h"
#include "text/spm.h"
#include "text/tokenizer_trie.h"
#include "text/tokenizer_vocab.h"
#include "text/utf8.h"

namespace mete {
namespace {

/// A pre-tokenizer and the merges inside its words.
struct BpeModel {
  PreTokenizer words;
  Bpe merges;
};

bool is_ascii_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

void append_metaspaced(std::string_view text, std::string& out) {
  for (const char c : text) {
    if (c == ' ') {
      out.append(kMetaspace);
    } else {
      out.push_back(c);
    }
  }
}

}  // namespace

struct Tokenizer::Impl {
  Vocab vocab;
  std::variant<std::monostate, BpeModel, Spm> model;
  Spelling spelling = Spelling::kByteLevel;
  std::string kind;
  TokenTrie trie;
  std::vector<bool> strips_right;  ///< per token: eats the white space after it; empty if none does
  bool add_bos = false, add_eos = false, add_space_prefix = false;

  Status load_bpe(const GgufMetadata& metadata, std::string_view pre);
  Status load_spm(const GgufMetadata& metadata);
  Status load_flags(const GgufMetadata& metadata, bool add_bos_default);
  Status mark_strips(const GgufMetadata& metadata);
  void build_trie();

  /// Calls text(piece, after_special) and token(id) in order.
  template <typename Text, typename Token>
  void partition(std::string_view input, std::span<const ByteRange> special, Text text, Token token) const;
  void encode_bpe(const BpeModel& bpe, std::string_view input, std::span<const ByteRange> special,
                  std::vector<int32_t>& ids) const;
  void encode_spm(const Spm& spm, std::string_view input, std::span<const ByteRange> special,
                  std::vector<int32_t>& ids) const;
  /// `special`: where special tokens are recognised.
  void encode(std::string_view input, std::span<const ByteRange> special, std::vector<int32_t>& ids) const;
};

Status Tokenizer::Impl::load_bpe(const GgufMetadata& metadata, std::string_view pre) {
  const PreTokenizerKind* found = find_pre_tokenizer(pre);
  if (found == nullptr) {
    return bad_model("tokenizer.ggml.pre is \"{}\", expected one of {}", utf8_repair(pre),
                     pre_tokenizer_names());
  }
  auto loaded = Vocab::load(metadata, spelling);
  if (!loaded) return loaded.error();
  vocab = *std::move(loaded);
  auto merges = Bpe::load(metadata, vocab, spelling, found->ignore_merges);
  if (!merges) return merges.error();
  model.emplace<BpeModel>(BpeModel{PreTokenizer(*found), *std::move(merges)});
  kind = fmt::format("bpe/{}", pre);
  return load_flags(metadata, found->add_bos);
}

Status Tokenizer::Impl::load_spm(const GgufMetadata& metadata) {
  auto loaded = Vocab::load(metadata, spelling);
  if (!loaded) return loaded.error();
  vocab = *std::move(loaded);
  auto spm = Spm::load(metadata, vocab);
  if (!spm) return spm.error();
  model.emplace<Spm>(*std::move(spm));
  kind = "spm";
  const auto prefix = metadata.boolean_or("tokenizer.ggml.add_space_prefix", true);
  if (!prefix) return prefix.error();
  add_space_prefix = *prefix;
  return load_flags(metadata, true);
}

Status Tokenizer::Impl::load_flags(const GgufMetadata& metadata, bool add_bos_default) {
  const auto bos = metadata.boolean_or("tokenizer.ggml.add_bos_token", add_bos_default);
  if (!bos) return bos.error();
  const auto eos = metadata.boolean_or("tokenizer.ggml.add_eos_token", false);
  if (!eos) return eos.error();
  if (*bos && vocab.bos < 0 && metadata.has("tokenizer.ggml.add_bos_token")) {
    return bad_model("tokenizer.ggml.add_bos_token is true, expected tokenizer.ggml.bos_token_id too");
  }
  if (*eos && vocab.eos < 0) {
    return bad_model("tokenizer.ggml.add_eos_token is true, expected tokenizer.ggml.eos_token_id too");
  }
  add_bos = *bos && vocab.bos >= 0;
  add_eos = *eos;
  return {};
}

// Files do not say which added tokens eat the white space after them; of the models here only Phi-3's do.
Status Tokenizer::Impl::mark_strips(const GgufMetadata& metadata) {
  const auto name = metadata.string_or("general.name", "");
  if (!name) return name.error();
  std::string lower(*name);
  for (char& c : lower) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  if (lower.find("phi-3") == std::string::npos && lower.find("phi3") == std::string::npos) return {};
  strips_right.assign(static_cast<size_t>(vocab.size()), true);
  for (const std::string_view text : {"<unk>", "<s>", "<|endoftext|>"}) {
    if (const auto id = vocab.find(text)) strips_right[static_cast<size_t>(*id)] = false;
  }
  return {};
}

void Tokenizer::Impl::build_trie() {
  for (int32_t id = 0; id < vocab.size(); ++id) {
    const bool special = vocab.is_special(id);
    if (vocab.text(id).empty() || (!special && vocab.kind(id) != TokenKind::kUserDefined)) continue;
    trie.add(vocab.text(id), id, special);
  }
}

Result<std::unique_ptr<Tokenizer>> Tokenizer::create(const GgufMetadata& metadata) {
  const auto name = metadata.string("tokenizer.ggml.model");
  if (!name) return name.error();
  auto impl = std::make_unique<Impl>();
  Status status;
  if (*name == "gpt2") {
    const auto pre = metadata.string("tokenizer.ggml.pre");
    if (!pre) return pre.error();
    status = impl->load_bpe(metadata, *pre);
  } else if (*name == "gemma4") {
    impl->spelling = Spelling::kMetaspace;
    status = impl->load_bpe(metadata, "gemma4");
  } else if (*name == "llama") {
    impl->spelling = Spelling::kMetaspace;
    status = impl->load_spm(metadata);
  } else {
    return bad_model("tokenizer.ggml.model is \"{}\", expected gpt2, llama or gemma4", utf8_repair(*name));
  }
  if (!status) return status.error();
  if (Status s = impl->mark_strips(metadata); !s) return s.error();
  impl->build_trie();
  return std::unique_ptr<Tokenizer>(new Tokenizer(std::move(impl)));
}

template <typename Text, typename Token>
void Tokenizer::Impl::partition(std::string_view input, std::span<const ByteRange> special, Text text,
                                Token token) const {
  bool after_special = true;
  for (size_t at = 0; at < input.size();) {
    const TokenTrie::Match match = trie.find(input, at, special);
    if (match.begin > at) {
      text(input.substr(at, match.begin - at), after_special);
      after_special = false;
    }
    at = match.begin + match.size;
    if (match.size == 0) break;
    token(match.id);
    after_special = true;
    if (!strips_right.empty() && strips_right[static_cast<size_t>(match.id)]) {
      while (at < input.size() && is_ascii_space(input[at])) ++at;
    }
  }
}

void Tokenizer::Impl::encode_bpe(const BpeModel& bpe, std::string_view input,
                                 std::span<const ByteRange> special, std::vector<int32_t>& ids) const {
  PreTokenizer::Scratch words(bpe.words);
  Bpe::Scratch merges(input.size());
  std::string metaspaced;
  const auto word = [&](std::string_view piece) { bpe.merges.encode(vocab, piece, merges, ids); };
  const auto text = [&](std::string_view piece, bool) {
    if (spelling == Spelling::kMetaspace) {
      metaspaced.clear();
      append_metaspaced(piece, metaspaced);
      piece = metaspaced;
    }
    // A run of invalid bytes is a word of its own, and ends the text for the expressions.
    while (!piece.empty()) {
      const size_t valid = utf8_valid_prefix(piece);
      bpe.words.split(piece.substr(0, valid), words, word);
      piece.remove_prefix(valid);
      size_t broken = 0;
      for (Utf8Step step = utf8_step(piece); broken < piece.size() && !step.valid;) {
        broken += step.bytes;
        step = utf8_step(piece.substr(broken));
      }
      if (broken > 0) word(piece.substr(0, broken));
      piece.remove_prefix(broken);
    }
  };
  partition(input, special, text, [&](int32_t id) { ids.push_back(id); });
}

void Tokenizer::Impl::encode_spm(const Spm& spm, std::string_view input, std::span<const ByteRange> special,
                                 std::vector<int32_t>& ids) const {
  Spm::Scratch scratch(input.size());
  std::string metaspaced;
  const auto text = [&](std::string_view piece, bool after_special) {
    metaspaced.clear();
    if (add_space_prefix && after_special) metaspaced.append(kMetaspace);
    append_metaspaced(piece, metaspaced);
    spm.encode(vocab, metaspaced, scratch, ids);
  };
  partition(input, special, text, [&](int32_t id) { ids.push_back(id); });
}

void Tokenizer::Impl::encode(std::string_view input, std::span<const ByteRange> special,
                             std::vector<int32_t>& ids) const {
  if (input.size() > std::numeric_limits<uint32_t>::max() / 4) {
    throw bad_usage("text of {} bytes, expected less than 1 GiB", input.size());
  }
  if (const auto* bpe = std::get_if<BpeModel>(&model)) {
    encode_bpe(*bpe, input, special, ids);
  } else {
    encode_spm(std::get<Spm>(model), input, special, ids);
  }
}

void Tokenizer::encode(std::string_view text, bool special, std::vector<int32_t>& ids) const {
  const ByteRange whole{0, text.size()};
  impl_->encode(text, std::span(&whole, special ? 1 : 0), ids);
}

void Tokenizer::encode(std::span<const TextRun> runs, std::vector<int32_t>& ids) const {
  std::string text;
  std::vector<ByteRange> special;
  for (const TextRun& run : runs) {
    const size_t begin = text.size();
    text += run.text;
    if (!run.special || run.text.empty()) continue;
    if (!special.empty() && special.back().end == begin) {
      special.back().end = text.size();
    } else {
      special.push_back({begin, text.size()});
    }
  }
  impl_->encode(text, special, ids);
}

int64_t tokenizer_bytes(const GgufMetadata& metadata) {
  const auto tokens = metadata.strings("tokenizer.ggml.tokens");
  if (!tokens) return 0;
  int64_t bytes = 1 << 20;  // pre-tokenizer, special tokens, the words of a text
  for (const std::string_view text : *tokens) bytes += static_cast<int64_t>(2 * text.size());
  const auto merges = metadata.strings("tokenizer.ggml.merges");
  return bytes + Vocab::table_bytes(tokens->size()) +
         (merges ? Bpe::table_bytes(merges->size()) : Spm::table_bytes(tokens->size()));
}

Tokenizer::Tokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::~Tokenizer() = default;

std::string_view Tokenizer::piece(int32_t id) const { return impl_->vocab.piece(id); }
std::string_view Tokenizer::text(int32_t id) const { return impl_->vocab.text(id); }
std::optional<int32_t> Tokenizer::find(std::string_view text) const { return impl_->vocab.find(text); }
int32_t Tokenizer::vocab_size() const { return impl_->vocab.size(); }
int32_t Tokenizer::bos() const { return impl_->vocab.bos; }
int32_t Tokenizer::eos() const { return impl_->vocab.eos; }
int32_t Tokenizer::eot() const { return impl_->vocab.eot; }
int32_t Tokenizer::eom() const { return impl_->vocab.eom; }
int32_t Tokenizer::unk() const { return impl_->vocab.unk; }
int32_t Tokenizer::pad() const { return impl_->vocab.pad; }
bool Tokenizer::add_bos() const { return impl_->add_bos; }
bool Tokenizer::add_eos() const { return impl_->add_eos; }
bool Tokenizer::add_space_prefix() const { return impl_->add_space_prefix; }
bool Tokenizer::is_end_of_generation(int32_t id) const { return impl_->vocab.ends_generation(id); }
std::vector<int32_t> Tokenizer::end_tokens() const {
  std::vector<int32_t> out;
  for (int32_t id = 0; id < vocab_size(); ++id) {
    if (is_end_of_generation(id)) out.push_back(id);
  }
  return out;
}
bool Tokenizer::is_special(int32_t id) const { return impl_->vocab.is_special(id); }
std::string_view Tokenizer::kind() const { return impl_->kind; }

}  // namespace mete
