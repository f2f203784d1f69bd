#include "kv/reuse/prefix_cache.h"

#include <algorithm>

namespace mete {

PrefixCache::PrefixCache(KvCache& kv, ReusePolicy policy, uint64_t seed)
    : kv_(kv),
      tree_(kv.config().page_slots, kv.max_blocks(), make_eviction_policy(policy, kv.max_blocks(), seed)) {
  blocks_.reserve(static_cast<size_t>(kv.max_blocks()));
}

PrefixCache::~PrefixCache() {
  METE_CHECK(tree_.locked_nodes() == 0);
  clear();
}

PrefixCache::Found PrefixCache::find(uint64_t salt, std::span<const int32_t> tokens) const {
  const PrefixTree::Match m = tree_.match(salt, tokens);
  int64_t unheld = 0;
  for (int32_t node = m.node; node != PrefixTree::kNone && !tree_.locked(node); node = tree_.parent(node)) {
    ++unheld;
  }
  return {m.pages * kv_.config().page_slots + m.tail_tokens, m.pages - unheld};
}

int64_t PrefixCache::begin(SeqId seq, uint64_t salt, std::span<const int32_t> tokens, Place& place) {
  const PrefixTree::Match m = tree_.match(salt, tokens);
  place = {seq, salt, m.node, m.pages, true};
  tree_.use(m.node, m.tail);
  if (m.node != PrefixTree::kNone) tree_.lock(m.node);
  blocks_.resize(static_cast<size_t>(m.pages));
  int32_t node = m.node;
  for (size_t i = blocks_.size(); i-- > 0; node = tree_.parent(node)) blocks_[i] = tree_.block(node);
  if (m.tail != PrefixTree::kNone) blocks_.push_back(tree_.block(m.tail));
  const int64_t length = m.pages * kv_.config().page_slots + m.tail_tokens;
  if (length > 0) kv_.attach(seq, blocks_, length);
  return length;
}

void PrefixCache::extend(std::span<const int32_t> tokens, Place& place) {
  const auto slots = static_cast<size_t>(kv_.config().page_slots);
  for (; place.open; ++place.pages) {
    const size_t begin = static_cast<size_t>(place.pages) * slots;
    if (begin + slots > tokens.size()) return;
    const BlockId block = kv_.share(place.seq, place.pages);
    place.open = block >= 0;
    if (!place.open) return;
    const auto in = tree_.insert(place.node, place.salt, tokens.subspan(begin, slots), block);
    if (in.superseded >= 0) kv_.drop_block(in.superseded);
    if (!in.is_new) {
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
    if (const BlockId block = kv_.share(place.seq, place.pages); block >= 0) {
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
  if (pages > 0) tree_.begin_eviction((pages + kv_.lists() - 1) / kv_.lists());
  while (kv_.free_pages() - before < pages) {
    const BlockId block = tree_.evict();
    if (block == PrefixTree::kNone) break;
    kv_.drop_block(block);
  }
  return kv_.free_pages() - before;
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
