// The vocabulary as a prefix tree over the bytes of its tokens, in one array in depth-first order, so that a
// walk that meets an impossible byte skips everything behind it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "text/tokenizer.h"

namespace mete {

class VocabTree {
 public:
  /// Tokens that stand for at least one byte and are neither special nor ends of generation.
  explicit VocabTree(const Tokenizer& tokenizer);

  struct Node {
    int32_t end;     ///< the node behind this one's descendants
    int32_t tokens;  ///< first of the tokens of this node and its descendants, index into tokens()
    uint16_t depth;  ///< bytes up to here, >= 1
    uint8_t byte;
  };
  std::span<const Node> nodes() const { return nodes_; }
  /// Ids of the tokens that end at a node.
  std::span<const int32_t> tokens_at(size_t node) const {
    const auto begin = static_cast<size_t>(nodes_[node].tokens);
    const auto next = node + 1 < nodes_.size() ? static_cast<size_t>(nodes_[node + 1].tokens) : ids_.size();
    return std::span(ids_).subspan(begin, next - begin);
  }
  /// Number of tokens below a node, its own left out.
  int64_t tokens_below(size_t node) const;
  int32_t vocab() const { return vocab_; }
  int max_depth() const { return max_depth_; }

 private:
  std::vector<Node> nodes_;
  std::vector<int32_t> ids_;
  int32_t vocab_;
  int max_depth_ = 0;
};

/// The descendants of tree node `from` (all nodes: -1) that automaton states can reach, in order:
/// visit(node, state) -> whether to look behind it. `step(state, byte)` gives 0 where there is no way.
/// `path`: room for max_depth() + 1 states.
template <typename Step, typename Visit>
void walk(const VocabTree& tree, int32_t from, int32_t state, std::vector<int32_t>& path, Step step,
          Visit visit) {
  const std::span<const VocabTree::Node> nodes = tree.nodes();
  const size_t root_depth = from < 0 ? 0 : nodes[static_cast<size_t>(from)].depth;
  const size_t end = from < 0 ? nodes.size() : static_cast<size_t>(nodes[static_cast<size_t>(from)].end);
  path[root_depth] = state;
  for (size_t i = static_cast<size_t>(from + 1); i < end;) {
    const VocabTree::Node& node = nodes[i];
    const int32_t next = step(path[node.depth - 1U], node.byte);
    if (next == 0 || !visit(i, next)) {
      i = static_cast<size_t>(node.end);
      continue;
    }
    path[node.depth] = next;
    ++i;
  }
}

}  // namespace mete
