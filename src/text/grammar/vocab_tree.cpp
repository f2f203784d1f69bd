#include "text/grammar/vocab_tree.h"

#include <algorithm>
#include <limits>
#include <numeric>

namespace mete {

VocabTree::VocabTree(const Tokenizer& tokenizer) : vocab_(tokenizer.vocab_size()) {
  for (int32_t id = 0; id < vocab_; ++id) {
    const size_t size = tokenizer.piece(id).size();
    if (size == 0 || size > std::numeric_limits<uint16_t>::max()) continue;
    if (tokenizer.is_special(id) || tokenizer.is_end_of_generation(id)) continue;
    ids_.push_back(id);
  }
  std::sort(ids_.begin(), ids_.end(), [&](int32_t a, int32_t b) {
    const std::string_view x = tokenizer.piece(a), y = tokenizer.piece(b);
    return x != y ? x < y : a < b;
  });
  std::vector<size_t> open;  // nodes on the path of the token before
  std::string_view before;
  for (size_t t = 0; t < ids_.size(); ++t) {
    const std::string_view piece = tokenizer.piece(ids_[t]);
    size_t common = 0;
    while (common < std::min(before.size(), piece.size()) && before[common] == piece[common]) ++common;
    while (open.size() > common) {
      nodes_[open.back()].end = static_cast<int32_t>(nodes_.size());
      open.pop_back();
    }
    for (size_t d = common; d < piece.size(); ++d) {
      open.push_back(nodes_.size());
      nodes_.push_back(
          {0, static_cast<int32_t>(t), static_cast<uint16_t>(d + 1), static_cast<uint8_t>(piece[d])});
    }
    max_depth_ = std::max(max_depth_, static_cast<int>(piece.size()));
    before = piece;
  }
  for (const size_t node : open) nodes_[node].end = static_cast<int32_t>(nodes_.size());
}

int64_t VocabTree::tokens_below(size_t node) const {
  const auto end = static_cast<size_t>(nodes_[node].end);
  const auto last = end < nodes_.size() ? static_cast<size_t>(nodes_[end].tokens) : ids_.size();
  return static_cast<int64_t>(last - static_cast<size_t>(nodes_[node].tokens) - tokens_at(node).size());
}

}  // namespace mete
