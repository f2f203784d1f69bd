// The tree of cached prefixes: every node is one page of tokens and the block of KV that belongs to it.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "kv/kv_cache.h"
#include "kv/reuse/policy.h"

namespace mete {

/// A trie over pages: a radix tree whose edges are one page long, so that nothing is ever split. Every salt
/// has a root of its own. A node with fewer tokens than a page is a leaf, and is never locked. Blocks are
/// opaque numbers; whoever inserts one gives it up, and gets it back when it is evicted or superseded.
///
/// A lock holds a node and all nodes above it. Unlocked nodes without children may be evicted. Nothing
/// allocates after construction.
class PrefixTree {
 public:
  static constexpr int32_t kNone = -1;

  /// At most `blocks` nodes; the caller sees to it.
  PrefixTree(int64_t page_slots, int64_t blocks, std::unique_ptr<EvictionPolicy> policy);

  struct Match {
    int32_t node = kNone;  ///< the last page that matches whole, kNone: not even the first
    int64_t pages = 0;     ///< that match whole
    int32_t tail = kNone;  ///< a child of it that shares `tail_tokens` more tokens, 1 ..
    int64_t tail_tokens = 0;
  };
  /// The longest cached prefix of `tokens`.
  Match match(uint64_t salt, std::span<const int32_t> tokens) const;

  struct Inserted {
    int32_t node;                ///< that stands for the page now, kNone: nothing was inserted
    bool is_new;                 ///< the tree took the block
    BlockId superseded = kNone;  ///< the block of a shorter page that the new one replaces
  };
  /// Puts a page below `parent` (kNone: the first page). With fewer tokens than a page: only if no page there
  /// begins with them.
  Inserted insert(int32_t parent, uint64_t salt, std::span<const int32_t> tokens, BlockId block);

  void lock(int32_t node);        ///< and every node above
  void lock_child(int32_t node);  ///< one whose parent the caller has locked
  void unlock(int32_t node);      ///< and every node above
  /// Tells the policy that the path to `node` was used, and `tail` below it unless kNone.
  void use(int32_t node, int32_t tail);

  void begin_eviction(int64_t blocks) { policy_->begin_eviction(blocks); }
  /// Takes one node out; its block, or kNone if all are locked.
  BlockId evict();

  BlockId block(int32_t node) const { return at(node).block; }
  int32_t parent(int32_t node) const;  ///< kNone for a first page
  bool locked(int32_t node) const { return at(node).locks > 0; }
  std::span<const int32_t> tokens(int32_t node) const;
  uint64_t salt(int32_t node) const;
  /// Numbers of nodes lie below this; which of them are in use.
  int32_t capacity() const { return static_cast<int32_t>(nodes_.size() / 2); }
  bool in_use(int32_t node) const { return at(node).tokens > 0; }
  int32_t children(int32_t node) const;
  /// The node is the last that somebody has locked.
  bool ends_lock(int32_t node) const;
  int64_t nodes() const { return count_; }
  int64_t locked_nodes() const { return locked_; }
  /// Every node, parents before children.
  std::vector<int32_t> all() const;
  bool consistent() const;  ///< counts, links and the policy's state (tests)

 private:
  struct Node {
    int32_t parent = kNone, first_child = kNone, next = kNone, previous = kNone;  // siblings
    int32_t hash_next = kNone;
    BlockId block = kNone;
    int32_t locks = 0;
    int32_t tokens = 0;  // 0: not in use
    bool root = false;
  };
  Node& at(int32_t node) { return nodes_[static_cast<size_t>(node)]; }
  const Node& at(int32_t node) const { return nodes_[static_cast<size_t>(node)]; }
  int32_t* place(int32_t node) { return tokens_.data() + static_cast<size_t>(node) * page_; }
  const int32_t* place(int32_t node) const { return tokens_.data() + static_cast<size_t>(node) * page_; }
  size_t bucket(int32_t parent, std::span<const int32_t> tokens) const;
  int32_t find(int32_t parent, std::span<const int32_t> tokens) const;
  int32_t find_root(uint64_t salt) const;
  int32_t make(int32_t parent, std::span<const int32_t> tokens);
  void set_tokens(int32_t node, std::span<const int32_t> tokens);
  void enter_hash(int32_t node);
  void leave_hash(int32_t node);
  void erase(int32_t node);
  bool evictable(const Node& n) const { return !n.root && n.locks == 0 && n.first_child == kNone; }

  size_t page_;
  std::unique_ptr<EvictionPolicy> policy_;
  std::vector<Node> nodes_;
  std::vector<int32_t> tokens_;  // [node][page]; of a root: its salt
  std::vector<int32_t> free_;    // numbers below the capacity, for pages
  std::vector<int32_t> free_roots_;
  std::vector<int32_t> buckets_;  // of whole pages and roots, by parent and tokens
  std::vector<int32_t> path_;     // scratch of use()
  int64_t count_ = 0, locked_ = 0;
};

}  // namespace mete
