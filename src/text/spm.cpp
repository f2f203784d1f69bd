#include "text/spm.h"

#include <bit>
#include <cmath>

#include "text/utf8.h"

namespace mete {
namespace {

constexpr std::string_view kScores = "tokenizer.ggml.scores";

bool from_text(TokenKind kind) {
  return kind == TokenKind::kNormal || kind == TokenKind::kUserDefined || kind == TokenKind::kUnused;
}

/// Descending order of finite floats as ascending order of integers; -0 equals 0.
uint32_t rank_of(float score) {
  const auto bits = std::bit_cast<uint32_t>(score + 0.0f);
  return (bits & 0x80000000u) != 0 ? bits : 0x7fffffffu - bits;
}

}  // namespace

size_t Spm::class_of(std::string_view symbol) {
  const auto lead = static_cast<uint8_t>(symbol[0]);
  if (lead < 0x80) return lead;
  return symbol == kMetaspace ? kSpaceClass : kOtherClass;
}

Result<Spm> Spm::load(const GgufMetadata& metadata, const Vocab& vocab) {
  const auto scores = metadata.floats(kScores);
  if (!scores) return scores.error();
  if (scores->size() != static_cast<size_t>(vocab.size())) {
    return bad_model("{} has {} entries, expected {}, the size of the vocabulary", kScores, scores->size(),
                     vocab.size());
  }
  for (size_t byte = 0; byte < 256 && vocab.unk < 0; ++byte) {
    if (vocab.byte_tokens()[byte] < 0) {
      return bad_model("the vocabulary has no token <0x{:02X}> and no unknown token, expected one of them",
                       byte);
    }
  }
  Spm spm;
  spm.rank_.assign(scores->size(), kNoMerge);
  for (int32_t id = 0; id < vocab.size(); ++id) {
    const float score = (*scores)[static_cast<size_t>(id)];
    if (!std::isfinite(score)) return bad_model("{}[{}] is {}, expected a finite number", kScores, id, score);
    if (!from_text(vocab.kind(id))) continue;
    std::string_view text = vocab.text(id);
    spm.rank_[static_cast<size_t>(id)] = rank_of(score);
    spm.longest_ = std::max(spm.longest_, text.size());
    for (size_t previous = kOtherClass; !text.empty();) {
      const std::string_view symbol = utf8_symbol(text);
      const size_t now = class_of(symbol);
      if (previous != kOtherClass && now != kOtherClass) spm.adjacent_[previous][now] = true;
      previous = now;
      text.remove_prefix(symbol.size());
    }
  }
  return spm;
}

int32_t Spm::token_of(const Vocab& vocab, std::string_view text) const {
  if (text.size() > longest_) return -1;
  const auto id = vocab.find(text);
  return id && rank_[static_cast<size_t>(*id)] != kNoMerge ? *id : -1;
}

void Spm::encode(const Vocab& vocab, std::string_view text, Scratch& scratch,
                 std::vector<int32_t>& ids) const {
  size_t begin = 0;
  size_t previous = kOtherClass;
  for (size_t at = 0; at < text.size();) {
    const std::string_view symbol = utf8_symbol(text.substr(at));
    const size_t now = class_of(symbol);
    if (previous != kOtherClass && now != kOtherClass && !adjacent_[previous][now]) {
      encode_chunk(vocab, text.substr(begin, at - begin), scratch, ids);
      begin = at;
    }
    previous = now;
    at += symbol.size();
  }
  if (begin < text.size()) encode_chunk(vocab, text.substr(begin), scratch, ids);
}

void Spm::encode_chunk(const Vocab& vocab, std::string_view chunk, Scratch& scratch,
                       std::vector<int32_t>& ids) const {
  if (scratch.cache.find(chunk, ids)) return;
  const size_t before = ids.size();
  auto& symbols = scratch.symbols;
  symbols.clear();
  for (size_t at = 0; at < chunk.size();) {
    const auto size = static_cast<uint32_t>(utf8_symbol(chunk.substr(at)).size());
    symbols.push_back({static_cast<uint32_t>(at), size});
    at += size;
  }
  const auto pair = [&](const Symbol& left, const Symbol& right, Symbol& joined) {
    joined = {left.begin, left.size + right.size};
    const int32_t id = token_of(vocab, chunk.substr(joined.begin, joined.size));
    return id < 0 ? kNoMerge : rank_[static_cast<size_t>(id)];
  };
  const size_t count = merge_pairs(symbols.data(), symbols.size(), scratch.merge, pair);
  for (size_t i = 0; i < count; ++i) {
    const std::string_view text = chunk.substr(symbols[i].begin, symbols[i].size);
    if (const int32_t id = token_of(vocab, text); id >= 0) {
      ids.push_back(id);
      continue;
    }
    for (const char c : text) {
      const int32_t byte = vocab.byte_tokens()[static_cast<uint8_t>(c)];
      ids.push_back(byte >= 0 ? byte : vocab.unk);
    }
  }
  scratch.cache.put(chunk, ids.data() + before, ids.size() - before);
}

}  // namespace mete
