#include "text/tokenizer_trie.h"

#include <algorithm>

namespace mete {

void TokenTrie::add(std::string_view text, int32_t id, bool special) {
  const auto first = static_cast<uint8_t>(text[0]);
  if (!special) starts_ordinary_[first] = true;
  const auto append = [&](char byte) {
    nodes_.emplace_back().byte = byte;
    return static_cast<int32_t>(nodes_.size() - 1);
  };
  if (root_[first] < 0) root_[first] = append(text[0]);
  int32_t at = root_[first];
  for (const char byte : text.substr(1)) {
    int32_t next = nodes_[static_cast<size_t>(at)].child;
    while (next >= 0 && nodes_[static_cast<size_t>(next)].byte != byte) {
      next = nodes_[static_cast<size_t>(next)].sibling;
    }
    if (next < 0) {
      next = append(byte);
      Node& parent = nodes_[static_cast<size_t>(at)];
      nodes_[static_cast<size_t>(next)].sibling = parent.child;
      parent.child = next;
    }
    at = next;
  }
  nodes_[static_cast<size_t>(at)].id = id;
  nodes_[static_cast<size_t>(at)].special = special;
}

TokenTrie::Match TokenTrie::find(std::string_view text, size_t from,
                                 std::span<const ByteRange> ranges) const {
  const auto over = [from](const ByteRange& range) { return range.end <= from; };
  ranges = {std::partition_point(ranges.begin(), ranges.end(), over), ranges.end()};
  for (size_t begin = from; begin < text.size(); ++begin) {
    while (!ranges.empty() && ranges.front().end <= begin) ranges = ranges.subspan(1);
    const bool special = !ranges.empty() && ranges.front().begin <= begin;
    const auto first = static_cast<uint8_t>(text[begin]);
    if (root_[first] < 0 || (!special && !starts_ordinary_[first])) continue;
    Match match{begin, 0, -1};
    int32_t at = root_[first];
    for (size_t end = begin + 1; at >= 0; ++end) {
      const Node& node = nodes_[static_cast<size_t>(at)];
      if (node.id >= 0 && (!node.special || (special && end <= ranges.front().end)))
        match = {begin, end - begin, node.id};
      if (end == text.size()) break;
      at = node.child;
      while (at >= 0 && nodes_[static_cast<size_t>(at)].byte != text[end]) {
        at = nodes_[static_cast<size_t>(at)].sibling;
      }
    }
    if (match.size > 0) return match;
  }
  return {text.size(), 0, -1};
}

}  // namespace mete
