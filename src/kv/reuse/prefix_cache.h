// The prefix cache: KV of past and running sequences, found again by tokens.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "kv/kv_cache.h"
#include "kv/reuse/prefix_tree.h"

namespace mete {

/// Keeps pages of sequences in a PrefixTree and gives them to sequences that begin with the same tokens (and
/// the same salt). A hit has the bits of a fresh computation: KV depends on the tokens before it and nothing
/// else. Hits are exact to the token: the last page may be shared in part, its first writer copies it.
///
/// A running sequence has a Place. Its pages go into the tree as soon as they are full, so that others find
/// them at once, and stay locked while it runs. Warm calls allocate nothing.
///
/// Pages of sliding layers are held with the others as long as there is room, so that a prefix of any length
/// is complete. When room is needed, those go first that are outside the window of every end: of a leaf, of a
/// branch, of a running sequence. What is left is good for prefixes that end where a whole window is held.
class PrefixCache {
 public:
  /// `policy`: kLru or kRlt.
  PrefixCache(KvCache& kv, ReusePolicy policy, uint64_t seed = 0);
  ~PrefixCache();

  struct Place {
    SeqId seq = -1;
    uint64_t salt = 0;
    int32_t node = PrefixTree::kNone;  ///< the last of its pages in the tree; locked, with those above
    int64_t pages = 0;                 ///< how many those are
    bool open = false;                 ///< later pages can still be added
  };

  /// Begins the empty sequence `seq` with the longest cached prefix of `tokens`; its length in tokens.
  int64_t begin(SeqId seq, uint64_t salt, std::span<const int32_t> tokens, Place& place);
  /// The length that begin would find, and how many of its whole pages running sequences hold already.
  struct Found {
    int64_t tokens, held_pages;
  };
  Found find(uint64_t salt, std::span<const int32_t> tokens) const;
  /// `tokens`: those in the sequence's KV. Adds pages that have become full.
  void extend(std::span<const int32_t> tokens, Place& place);
  /// The sequence ends or is preempted: adds what is left, a page in part included, and unlocks. The caller
  /// releases the sequence.
  void end(std::span<const int32_t> tokens, Place& place);

  /// Gives up pages outside every window, then unused ones, until `pages` more are free in the pool, or none
  /// are left; how many came free.
  int64_t evict(int64_t pages);
  int64_t unused_pages() const;  ///< pages of the blocks that no running sequence holds
  /// Blocks that no running sequence holds.
  int64_t unused_blocks() const { return tree_.nodes() - tree_.locked_nodes(); }
  void clear();  ///< evicts all that is unused

  const PrefixTree& tree() const { return tree_; }
  KvCache& kv() { return kv_; }
  const KvCache& kv() const { return kv_; }
  /// Adds a page from elsewhere below `parent`; the node. kNone, and the block is dropped, if one like it is
  /// there.
  int32_t restore(int32_t parent, uint64_t salt, std::span<const int32_t> tokens, BlockId block);

 private:
  PrefixTree::Match usable(PrefixTree::Match match) const;
  int64_t length(const PrefixTree::Match& m) const {
    return m.pages * kv_.config().page_slots + m.tail_tokens;
  }
  bool has_block();
  void thin_out(bool keep_branches);

  KvCache& kv_;
  PrefixTree tree_;
  std::vector<BlockId> blocks_;     // scratch of begin()
  std::vector<uint8_t> in_window_;  // scratch of thin_out(), by node
};

}  // namespace mete
