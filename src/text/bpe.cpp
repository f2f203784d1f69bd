#include "text/bpe.h"

#include <bit>

#include "text/utf8.h"

namespace mete {
namespace {

constexpr std::string_view kMerges = "tokenizer.ggml.merges";

bool can_merge(TokenKind kind) {
  return kind == TokenKind::kNormal || kind == TokenKind::kUserDefined || kind == TokenKind::kUnused;
}

}  // namespace

Result<Bpe> Bpe::load(const GgufMetadata& metadata, const Vocab& vocab, Spelling spelling,
                      bool ignore_merges) {
  const auto merges = metadata.strings(kMerges);
  if (!merges) return merges.error();
  constexpr size_t kMaxMerges = size_t{1} << 28;
  if (merges->size() > kMaxMerges) {
    return bad_model("{} has {} entries, expected at most {}", kMerges, merges->size(), kMaxMerges);
  }
  Bpe bpe;
  bpe.spelling_ = spelling;
  bpe.ignore_merges_ = ignore_merges;
  for (int32_t id = 0; id < vocab.size(); ++id) {
    bpe.longest_piece_ = std::max(bpe.longest_piece_, vocab.piece(id).size());
  }
  const size_t slots = slot_count(merges->size());
  bpe.pairs_.assign(slots, Pair{0, 0, -1});
  bpe.shift_ = 64 - std::countr_zero(slots);
  constexpr size_t kAhead = 16;
  std::array<Merge, kAhead> ring;
  for (size_t i = 0; i < merges->size() + kAhead; ++i) {
    Merge& merge = ring[i % kAhead];
    if (i >= kAhead) {
      if (Status s = bpe.add_merge(vocab, (*merges)[i - kAhead], merge, i - kAhead); !s) return s.error();
    }
    if (i < merges->size()) prepare(vocab, (*merges)[i], merge);
  }
  return bpe;
}

void Bpe::prepare(const Vocab& vocab, std::string_view line, Merge& merge) {
  merge.space = line.find(' ', 1);
  if (merge.space == std::string_view::npos) return;
  merge.whole.assign(line.substr(0, merge.space)).append(line.substr(merge.space + 1));
  merge.hash[0] = Vocab::hash_of(line.substr(0, merge.space));
  merge.hash[1] = Vocab::hash_of(line.substr(merge.space + 1));
  merge.hash[2] = Vocab::hash_of(merge.whole);
  for (const uint32_t hash : merge.hash) vocab.prefetch(hash);
}

Status Bpe::add_merge(const Vocab& vocab, std::string_view line, const Merge& merge, size_t number) {
  if (merge.space == std::string_view::npos) {
    return bad_model("{}[{}] is \"{}\", expected two tokens and a space between", kMerges, number,
                     utf8_repair(line));
  }
  const std::string_view texts[] = {line.substr(0, merge.space), line.substr(merge.space + 1), merge.whole};
  int32_t ids[3];
  for (int i = 0; i < 3; ++i) {
    const auto id = vocab.find(texts[i], merge.hash[i]);
    if (!id || !can_merge(vocab.kind(*id))) {
      return bad_model("{}[{}] is \"{}\": \"{}\" is {}", kMerges, number, utf8_repair(line),
                       utf8_repair(texts[i]), id ? "a special token" : "not in the vocabulary");
    }
    ids[i] = *id;
  }
  const uint64_t key =
      (static_cast<uint64_t>(static_cast<uint32_t>(ids[0])) << 32) | static_cast<uint32_t>(ids[1]);
  size_t slot = slot_of(key);
  for (; pairs_[slot].joined >= 0; slot = (slot + 1) & (pairs_.size() - 1)) {
    if (pairs_[slot].key == key) return {};  // the first rank counts
  }
  pairs_[slot] = {key, static_cast<uint32_t>(number), ids[2]};
  return {};
}

uint32_t Bpe::find(int32_t left, int32_t right, int32_t& joined) const {
  // A missing token (-1) gives a key that no merge has.
  const uint64_t key =
      (static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32) | static_cast<uint32_t>(right);
  for (size_t slot = slot_of(key); pairs_[slot].joined >= 0; slot = (slot + 1) & (pairs_.size() - 1)) {
    if (pairs_[slot].key != key) continue;
    joined = pairs_[slot].joined;
    return pairs_[slot].rank;
  }
  return kNoMerge;
}

void Bpe::symbols_of(const Vocab& vocab, std::string_view word, std::vector<int32_t>& symbols) const {
  symbols.clear();
  const auto& bytes = vocab.byte_tokens();
  if (spelling_ == Spelling::kByteLevel) {
    for (const char c : word) symbols.push_back(bytes[static_cast<uint8_t>(c)]);
    return;
  }
  while (!word.empty()) {
    const std::string_view symbol = utf8_symbol(word);
    word.remove_prefix(symbol.size());
    const auto id = vocab.find(symbol);
    if (id && can_merge(vocab.kind(*id))) {
      symbols.push_back(*id);
      continue;
    }
    for (const char c : symbol) {
      const int32_t byte = bytes[static_cast<uint8_t>(c)];
      symbols.push_back(byte >= 0 ? byte : vocab.unk);
    }
  }
}

int32_t Bpe::whole_word(const Vocab& vocab, std::string_view word, std::string& spelled) const {
  if (word.size() > longest_piece_) return -1;
  if (spelling_ == Spelling::kMetaspace) {
    // Gemma 4's runs of newlines are tokens that no merge makes.
    if (word.find_first_not_of('\n') != std::string_view::npos) return -1;
    spelled.assign(word);
  } else {
    if (!ignore_merges_) return -1;
    spelled.clear();
    for (const char c : word) utf8_append(spelled, byte_level_map()[static_cast<uint8_t>(c)]);
  }
  const auto id = vocab.find(spelled);
  return id && can_merge(vocab.kind(*id)) ? *id : -1;
}

void Bpe::encode(const Vocab& vocab, std::string_view word, Scratch& scratch,
                 std::vector<int32_t>& ids) const {
  if (scratch.cache.find(word, ids)) return;
  const size_t before = ids.size();
  if (const int32_t id = whole_word(vocab, word, scratch.spelled); id >= 0) {
    ids.push_back(id);
  } else {
    symbols_of(vocab, word, scratch.symbols);
    const auto pair = [&](int32_t left, int32_t right, int32_t& joined) { return find(left, right, joined); };
    const size_t count = merge_pairs(scratch.symbols.data(), scratch.symbols.size(), scratch.merge, pair);
    for (size_t i = 0; i < count; ++i) {
      if (scratch.symbols[i] >= 0) ids.push_back(scratch.symbols[i]);
    }
  }
  scratch.cache.put(word, ids.data() + before, ids.size() - before);
}

}  // namespace mete
