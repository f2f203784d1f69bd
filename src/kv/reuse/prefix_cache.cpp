#include "kv/reuse/prefix_cache.h"

#include <algorithm>

namespace mete {

PrefixCache::PrefixCache(KvCache& kv, ReusePolicy policy, uint64_t seed)
    : kv_(kv),
      tree_(kv.config().page_slots, kv.max_blocks(), make_eviction_policy(policy, kv.max_blocks(), seed)) {
  blocks_.reserve(static_cast<size_t>(kv.max_blocks()));
  if (kv.widest_window() > 0) in_window_.resize(static_cast<size_t>(tree_.capacity()));
}

PrefixCache::~PrefixCache() {
  METE_CHECK(tree_.locked_nodes() == 0);
  clear();
}

/// The longest part of a match behind which a row finds all that it sees through a window.
PrefixTree::Match PrefixCache::usable(PrefixTree::Match m) const {
  const int64_t window = kv_.widest_window(), slots = kv_.config().page_slots;
  if (window == 0 || kv_.thin_blocks() == 0) return m;
  if (m.tail != PrefixTree::kNone && !kv_.whole(tree_.block(m.tail)))
    m.tail = PrefixTree::kNone, m.tail_tokens = 0;
  int32_t node = m.node;  // of page `first - 1`
  int64_t first = m.pages;
  const auto skip = [&](bool whole) {
    for (; node != PrefixTree::kNone && kv_.whole(tree_.block(node)) == whole; node = tree_.parent(node))
      --first;
  };
  for (;;) {
    skip(true);  // pages [first, end) are whole
    if (first == 0 || length(m) >= first * slots + window - 1) return m;
    skip(false);
    m = {node, first, PrefixTree::kNone, 0};
  }
}

PrefixCache::Found PrefixCache::find(uint64_t salt, std::span<const int32_t> tokens) const {
  const PrefixTree::Match m = usable(tree_.match(salt, tokens));
  int64_t unheld = 0;
  for (int32_t node = m.node; node != PrefixTree::kNone && !tree_.locked(node); node = tree_.parent(node)) {
    ++unheld;
  }
  return {length(m), m.pages - unheld};
}

int64_t PrefixCache::begin(SeqId seq, uint64_t salt, std::span<const int32_t> tokens, Place& place) {
  const PrefixTree::Match m = usable(tree_.match(salt, tokens));
  place = {seq, salt, m.node, m.pages, true};
  tree_.use(m.node, m.tail);
  if (m.node != PrefixTree::kNone) tree_.lock(m.node);
  blocks_.resize(static_cast<size_t>(m.pages));
  int32_t node = m.node;
  for (size_t i = blocks_.size(); i-- > 0; node = tree_.parent(node)) blocks_[i] = tree_.block(node);
  if (m.tail != PrefixTree::kNone) blocks_.push_back(tree_.block(m.tail));
  if (length(m) > 0) kv_.attach(seq, blocks_, length(m));
  return length(m);
}

/// Room for one more block. Where blocks may be thin there can be more of them than the tree has nodes.
bool PrefixCache::has_block() {
  if (kv_.widest_window() == 0 || kv_.block_left()) return true;
  tree_.begin_eviction(1);
  const BlockId block = tree_.evict();
  if (block != PrefixTree::kNone) kv_.drop_block(block);
  return block != PrefixTree::kNone;
}

void PrefixCache::extend(std::span<const int32_t> tokens, Place& place) {
  const auto slots = static_cast<size_t>(kv_.config().page_slots);
  for (; place.open; ++place.pages) {
    const size_t begin = static_cast<size_t>(place.pages) * slots;
    if (begin + slots > tokens.size()) return;
    const BlockId block = has_block() ? kv_.share(place.seq, place.pages) : -1;
    place.open = block >= 0;
    if (!place.open) return;
    const auto in = tree_.insert(place.node, place.salt, tokens.subspan(begin, slots), block);
    if (in.superseded >= 0) kv_.drop_block(in.superseded);
    if (!in.is_new) {
      kv_.complete(tree_.block(in.node), block);
      kv_.drop_block(block);
      kv_.adopt(place.seq, place.pages, tree_.block(in.node));
    }
    if (place.node == PrefixTree::kNone) {
      tree_.lock(in.node);
    } else {
      tree_.lock_child(in.node);
    }
    place.node = in.node;
  }
}

void PrefixCache::end(std::span<const int32_t> tokens, Place& place) {
  extend(tokens, place);
  int32_t tail = PrefixTree::kNone;
  const size_t begin = static_cast<size_t>(place.pages * kv_.config().page_slots);
  if (place.open && begin < tokens.size()) {
    if (const BlockId block = has_block() ? kv_.share(place.seq, place.pages) : -1; block >= 0) {
      const auto in = tree_.insert(place.node, place.salt, tokens.subspan(begin), block);
      if (in.superseded >= 0) kv_.drop_block(in.superseded);
      if (!in.is_new) kv_.drop_block(block);
      tail = in.node;
    }
  }
  tree_.use(place.node, tail);
  if (place.node != PrefixTree::kNone) tree_.unlock(place.node);
  place = {};
}

int64_t PrefixCache::evict(int64_t pages) {
  const int64_t before = kv_.free_pages();
  if (pages > 0) thin_out(true);
  if (kv_.free_pages() - before < pages) tree_.begin_eviction((pages + kv_.lists() - 1) / kv_.lists());
  while (kv_.free_pages() - before < pages) {
    const BlockId block = tree_.evict();
    if (block == PrefixTree::kNone) break;
    kv_.drop_block(block);
  }
  if (kv_.free_pages() - before < pages) thin_out(false);  // all that is left is locked
  return kv_.free_pages() - before;
}

/// Makes blocks thin that are outside the window of every end. `keep_branches`: a page with several after it
/// is an end, since it is likely to be one again.
void PrefixCache::thin_out(bool keep_branches) {
  if (kv_.widest_window() == 0) return;
  std::fill(in_window_.begin(), in_window_.end(), uint8_t{0});
  const int64_t window = kv_.window_blocks();
  for (int32_t end = 0; end < tree_.capacity(); ++end) {
    if (!tree_.in_use(end)) continue;
    const int32_t children = tree_.children(end);
    if (children > 0 && !(keep_branches && children > 1) && !tree_.ends_lock(end)) continue;
    int32_t node = end;
    for (int64_t i = 0; i < window && node != PrefixTree::kNone; ++i, node = tree_.parent(node)) {
      in_window_[static_cast<size_t>(node)] = 1;
    }
  }
  for (int32_t node = 0; node < tree_.capacity(); ++node) {
    if (!tree_.in_use(node) || in_window_[static_cast<size_t>(node)] != 0) continue;
    if (kv_.whole(tree_.block(node))) kv_.thin(tree_.block(node));
  }
}

int64_t PrefixCache::unused_pages() const {
  if (kv_.thin_blocks() == 0) return unused_blocks() * kv_.lists();
  int64_t pages = 0;
  for (int32_t node = 0; node < tree_.capacity(); ++node) {
    if (!tree_.in_use(node) || tree_.locked(node)) continue;
    pages += kv_.whole(tree_.block(node)) ? kv_.lists() : kv_.full_lists();
  }
  return pages;
}

void PrefixCache::clear() {
  for (BlockId block; (block = tree_.evict()) != PrefixTree::kNone;) kv_.drop_block(block);
}

int32_t PrefixCache::restore(int32_t parent, uint64_t salt, std::span<const int32_t> tokens, BlockId block) {
  const auto in = tree_.insert(parent, salt, tokens, block);
  if (in.superseded >= 0) kv_.drop_block(in.superseded);
  if (!in.is_new) {
    kv_.drop_block(block);
    return PrefixTree::kNone;
  }
  tree_.use(parent, in.node);
  return in.node;
}

}  // namespace mete
