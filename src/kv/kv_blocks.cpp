// Blocks of the KV cache: pages that outlive their sequence.
#include <algorithm>
#include <cstring>
#include <numeric>

#include "kv/kv_cache.h"

namespace mete {

uint8_t** KvCache::block_pages(BlockId block) {
  METE_CHECK(block >= 0 && block <= max_blocks());
  return blocks_.as<uint8_t*>() + static_cast<int64_t>(block) * lists();
}

BlockId KvCache::make_block() {
  if (blocks_.bytes() == 0) {
    // Blocks that are kept have pages of their own; one more is for a block that is dropped at once.
    const size_t blocks = static_cast<size_t>(max_blocks()) + 1;
    blocks_ = AlignedBuffer(blocks * static_cast<size_t>(lists()) * sizeof(uint8_t*));
    free_blocks_.resize(blocks);
    std::iota(free_blocks_.rbegin(), free_blocks_.rend(), 0);
  }
  METE_CHECK(!free_blocks_.empty());
  const BlockId block = free_blocks_.back();
  free_blocks_.pop_back();
  return block;
}

BlockId KvCache::share(SeqId seq, int64_t page) {
  METE_CHECK(check_sequence(seq) && !open_);
  const Sequence& s = sequences_[static_cast<size_t>(seq)];
  const int64_t begin = page * config_.page_slots, end = std::min(begin + config_.page_slots, s.length);
  METE_CHECK(page >= 0 && begin < end);
  if (s.dense < end) return -1;
  for (const PageList& list : s.lists) {
    if (list.pages[static_cast<size_t>(page)] == nullptr || list.dropped_from < end) return -1;
  }
  const BlockId block = make_block();
  uint8_t** pages = block_pages(block);
  for (size_t i = 0; i < s.lists.size(); ++i) {
    pages[i] = s.lists[i].pages[static_cast<size_t>(page)];
    pool_.retain(pages[i]);
  }
  return block;
}

void KvCache::attach(SeqId seq, std::span<const BlockId> blocks, int64_t length) {
  METE_CHECK(check_sequence(seq) && !open_);
  Sequence& s = sequences_[static_cast<size_t>(seq)];
  const auto count = static_cast<int64_t>(blocks.size());
  METE_CHECK(s.length == 0 && length <= count * config_.page_slots &&
             length > (count - 1) * config_.page_slots);
  for (const BlockId block : blocks) {
    uint8_t** pages = block_pages(block);
    for (size_t i = 0; i < s.lists.size(); ++i) {
      pool_.retain(pages[i]);
      s.lists[i].pages.push_back(pages[i]);
    }
  }
  s.positions.resize(static_cast<size_t>(length));
  std::iota(s.positions.begin(), s.positions.end(), 0);
  s.length = s.step_begin = s.dense = length;
}

void KvCache::adopt(SeqId seq, int64_t page, BlockId block) {
  METE_CHECK(check_sequence(seq) && !open_);
  Sequence& s = sequences_[static_cast<size_t>(seq)];
  uint8_t** pages = block_pages(block);
  for (size_t i = 0; i < s.lists.size(); ++i) {
    uint8_t*& place = s.lists[i].pages[static_cast<size_t>(page)];
    if (place == nullptr || place == pages[i]) continue;
    pool_.retain(pages[i]);
    pool_.release(place);
    place = pages[i];
  }
}

void KvCache::drop_block(BlockId block) {
  uint8_t** pages = block_pages(block);
  for (int64_t i = 0; i < lists(); ++i) pool_.release(pages[i]);
  free_blocks_.push_back(block);
}

void KvCache::read_block(BlockId block, std::span<uint8_t> out) const {
  METE_CHECK(out.size() == block_bytes());
  uint8_t** pages = const_cast<KvCache*>(this)->block_pages(block);
  for (size_t i = 0; i < static_cast<size_t>(lists()); ++i) {
    std::memcpy(out.data() + i * pool_.page_bytes(), pages[i], pool_.page_bytes());
  }
}

BlockId KvCache::write_block(std::span<const uint8_t> bytes) {
  METE_CHECK(bytes.size() == block_bytes());
  if (pool_.free_pages() < lists()) return -1;
  const BlockId block = make_block();
  uint8_t** pages = block_pages(block);
  for (size_t i = 0; i < static_cast<size_t>(lists()); ++i) {
    pages[i] = pool_.take();
    std::memcpy(pages[i], bytes.data() + i * pool_.page_bytes(), pool_.page_bytes());
  }
  return block;
}

}  // namespace mete
