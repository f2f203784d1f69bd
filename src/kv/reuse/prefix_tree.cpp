#include "kv/reuse/prefix_tree.h"

#include <xxhash.h>

#include <algorithm>
#include <bit>
#include <cstring>

namespace mete {
namespace {

int64_t common_tokens(std::span<const int32_t> a, std::span<const int32_t> b) {
  const size_t most = std::min(a.size(), b.size());
  size_t i = 0;
  while (i < most && a[i] == b[i]) ++i;
  return static_cast<int64_t>(i);
}

std::array<int32_t, 2> salt_key(uint64_t salt) {
  return {static_cast<int32_t>(salt & 0xffffffffu), static_cast<int32_t>(salt >> 32)};
}

}  // namespace

PrefixTree::PrefixTree(int64_t page_slots, int64_t blocks, std::unique_ptr<EvictionPolicy> policy)
    : page_(static_cast<size_t>(page_slots)),
      policy_(std::move(policy)),
      nodes_(2 * static_cast<size_t>(blocks)),  // pages, and a root for each at most
      tokens_(nodes_.size() * page_, 0),
      buckets_(std::bit_ceil(2 * nodes_.size() + 1), kNone) {
  METE_CHECK(page_slots >= 2 && blocks >= 1 && blocks < (int64_t{1} << 29));
  for (int32_t i = static_cast<int32_t>(blocks); i-- > 0;) {
    free_.push_back(i);
    free_roots_.push_back(i + static_cast<int32_t>(blocks));
  }
  path_.reserve(static_cast<size_t>(blocks));
}

std::span<const int32_t> PrefixTree::tokens(int32_t node) const {
  return {place(node), static_cast<size_t>(at(node).tokens)};
}

int32_t PrefixTree::parent(int32_t node) const {
  const int32_t above = at(node).parent;
  return at(above).root ? kNone : above;
}

int32_t PrefixTree::children(int32_t node) const {
  int32_t count = 0;
  for (int32_t child = at(node).first_child; child != kNone; child = at(child).next) ++count;
  return count;
}

bool PrefixTree::ends_lock(int32_t node) const {
  int32_t below = 0;
  for (int32_t child = at(node).first_child; child != kNone; child = at(child).next) below += at(child).locks;
  return at(node).locks > below;
}

uint64_t PrefixTree::salt(int32_t node) const {
  while (!at(node).root) node = at(node).parent;
  const int32_t* key = place(node);
  return static_cast<uint32_t>(key[0]) | static_cast<uint64_t>(static_cast<uint32_t>(key[1])) << 32;
}

size_t PrefixTree::bucket(int32_t parent, std::span<const int32_t> tokens) const {
  return XXH3_64bits_withSeed(tokens.data(), tokens.size_bytes(), static_cast<uint64_t>(parent) + 1) &
         (buckets_.size() - 1);
}

int32_t PrefixTree::find(int32_t parent, std::span<const int32_t> tokens) const {
  int32_t node = buckets_[bucket(parent, tokens)];
  while (node != kNone) {
    if (at(node).parent == parent && std::ranges::equal(this->tokens(node), tokens)) return node;
    node = at(node).hash_next;
  }
  return kNone;
}

int32_t PrefixTree::find_root(uint64_t salt) const { return find(kNone, salt_key(salt)); }

PrefixTree::Match PrefixTree::match(uint64_t salt, std::span<const int32_t> tokens) const {
  Match m;
  int32_t node = find_root(salt);
  if (node == kNone) return m;
  while (tokens.size() >= page_) {
    const int32_t child = find(node, tokens.first(page_));
    if (child == kNone) break;
    m.node = node = child;
    ++m.pages;
    tokens = tokens.subspan(page_);
  }
  for (int32_t child = at(node).first_child; child != kNone; child = at(child).next) {
    const int64_t common = common_tokens(this->tokens(child), tokens);
    if (common <= m.tail_tokens) continue;
    m.tail = child;
    m.tail_tokens = common;
  }
  return m;
}

void PrefixTree::set_tokens(int32_t node, std::span<const int32_t> tokens) {
  std::memcpy(place(node), tokens.data(), tokens.size_bytes());
  at(node).tokens = static_cast<int32_t>(tokens.size());
}

void PrefixTree::enter_hash(int32_t node) {
  int32_t& head = buckets_[bucket(at(node).parent, tokens(node))];
  at(node).hash_next = head;
  head = node;
}

void PrefixTree::leave_hash(int32_t node) {
  int32_t* link = &buckets_[bucket(at(node).parent, tokens(node))];
  while (*link != node) link = &at(*link).hash_next;
  *link = at(node).hash_next;
}

/// A node in use; linked with its siblings, in the hash if it is found there.
int32_t PrefixTree::make(int32_t parent, std::span<const int32_t> tokens) {
  std::vector<int32_t>& numbers = parent == kNone ? free_roots_ : free_;
  METE_CHECK(!numbers.empty());
  const int32_t node = numbers.back();
  numbers.pop_back();
  Node& n = at(node);
  n = Node{};
  n.parent = parent;
  n.root = parent == kNone;
  set_tokens(node, tokens);
  if (n.root || tokens.size() == page_) enter_hash(node);
  if (n.root) return node;
  Node& above = at(parent);
  if (evictable(above)) policy_->remove(parent);
  n.next = above.first_child;
  if (n.next != kNone) at(n.next).previous = node;
  above.first_child = node;
  ++count_;
  return node;
}

PrefixTree::Inserted PrefixTree::insert(int32_t parent, uint64_t salt, std::span<const int32_t> tokens,
                                        BlockId block) {
  METE_CHECK(!tokens.empty() && tokens.size() <= page_ && block >= 0);
  int32_t above = parent == kNone ? find_root(salt) : parent;
  if (above == kNone) above = make(kNone, salt_key(salt));
  METE_CHECK(at(above).root || static_cast<size_t>(at(above).tokens) == page_);
  const bool whole = tokens.size() == page_;
  if (whole) {
    const int32_t same = find(above, tokens);
    if (same != kNone) return {same, false};
  }
  const auto length = static_cast<int64_t>(tokens.size());
  for (int32_t child = at(above).first_child; child != kNone; child = at(child).next) {
    const int64_t has = at(child).tokens, common = common_tokens(this->tokens(child), tokens);
    if (common == length) return {kNone, false};  // only if not whole
    if (common < has || has == static_cast<int64_t>(page_)) continue;
    const BlockId old = at(child).block;  // the child is a beginning of this page
    set_tokens(child, tokens);
    at(child).block = block;
    if (whole) enter_hash(child);
    return {child, true, old};
  }
  const int32_t node = make(above, tokens);
  at(node).block = block;
  policy_->add(node);
  return {node, true};
}

void PrefixTree::lock_child(int32_t node) {
  Node& n = at(node);
  METE_CHECK(n.root || static_cast<size_t>(n.tokens) == page_);
  if (n.locks == 0 && !n.root) {
    if (evictable(n)) policy_->remove(node);
    ++locked_;
  }
  ++n.locks;
}

void PrefixTree::lock(int32_t node) {
  for (; node != kNone; node = at(node).parent) lock_child(node);
}

void PrefixTree::unlock(int32_t node) {
  for (; node != kNone; node = at(node).parent) {
    Node& n = at(node);
    METE_CHECK(n.locks > 0);
    if (--n.locks > 0 || n.root) continue;
    --locked_;
    if (evictable(n)) policy_->add(node);
  }
}

void PrefixTree::use(int32_t node, int32_t tail) {
  path_.clear();
  if (tail != kNone) path_.push_back(tail);
  for (; node != kNone && !at(node).root; node = at(node).parent) path_.push_back(node);
  std::reverse(path_.begin(), path_.end());
  policy_->used(path_);
}

void PrefixTree::erase(int32_t node) {
  Node& n = at(node);
  if (n.root || static_cast<size_t>(n.tokens) == page_) leave_hash(node);
  const int32_t above = n.parent;
  if (above != kNone) {
    (n.previous != kNone ? at(n.previous).next : at(above).first_child) = n.next;
    if (n.next != kNone) at(n.next).previous = n.previous;
    --count_;
  }
  (n.root ? free_roots_ : free_).push_back(node);
  n = Node{};
}

BlockId PrefixTree::evict() {
  const int32_t node = policy_->victim();
  if (node == kNone) return kNone;
  METE_CHECK(evictable(at(node)));
  const BlockId block = at(node).block;
  const int32_t above = at(node).parent;
  policy_->remove(node);
  policy_->forget(node);
  erase(node);
  if (at(above).root && at(above).first_child == kNone && at(above).locks == 0) {
    erase(above);
  } else if (evictable(at(above))) {
    policy_->add(above);
  }
  return block;
}

std::vector<int32_t> PrefixTree::all() const {
  std::vector<int32_t> nodes;
  for (size_t i = 0; i < nodes_.size(); ++i) {
    if (nodes_[i].root && nodes_[i].tokens > 0) nodes.push_back(static_cast<int32_t>(i));
  }
  for (size_t i = 0; i < nodes.size(); ++i) {
    for (int32_t child = at(nodes[i]).first_child; child != kNone; child = at(child).next) {
      nodes.push_back(child);
    }
  }
  std::erase_if(nodes, [&](int32_t node) { return at(node).root; });
  return nodes;
}

bool PrefixTree::consistent() const {
  int64_t count = 0, locked = 0;
  for (size_t i = 0; i < nodes_.size(); ++i) {
    const Node& n = nodes_[i];
    const auto node = static_cast<int32_t>(i);
    if (n.tokens == 0) continue;
    count += n.root ? 0 : 1;
    locked += !n.root && n.locks > 0 ? 1 : 0;
    const bool whole = static_cast<size_t>(n.tokens) == page_;
    if (!n.root && (n.parent == kNone || n.block == kNone)) return false;
    if (!n.root && !whole && (n.first_child != kNone || n.locks > 0)) return false;
    if (!n.root && whole && find(n.parent, tokens(node)) != node) return false;
    int32_t below = 0, previous = kNone;
    for (int32_t child = n.first_child; child != kNone; child = at(child).next) {
      if (at(child).parent != node || at(child).previous != previous) return false;
      below += at(child).locks;
      previous = child;
    }
    if (below > n.locks) return false;
    if (n.root && n.first_child == kNone && n.locks == 0) return false;
  }
  return count == count_ && locked == locked_ && policy_->consistent() &&
         count + static_cast<int64_t>(free_.size()) == static_cast<int64_t>(nodes_.size() / 2);
}

}  // namespace mete
