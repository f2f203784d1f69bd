// Blocks of the KV cache: pages that outlive their sequence.
#include <algorithm>
#include <cstring>
#include <numeric>

#include "kv/kv_cache.h"

namespace mete {

bool KvCache::slides(size_t list) const {
  return sliding_lists_ > 0 && config_.windows[list / static_cast<size_t>(config_.kv_heads)] > 0;
}

uint8_t** KvCache::block_pages(BlockId block) const {
  METE_CHECK(block >= 0 && block <= max_blocks());
  return const_cast<AlignedBuffer&>(blocks_).as<uint8_t*>() + static_cast<int64_t>(block) * lists();
}

bool KvCache::block_left() const { return blocks_.bytes() == 0 || free_blocks_.size() > 1; }

BlockId KvCache::make_block() {
  if (blocks_.bytes() == 0) {
    // One more than are kept, for a block that is dropped at once.
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
  int64_t hidden = count;  // leading blocks of which sliding layers take nothing
  while (hidden > 0 && whole(blocks[static_cast<size_t>(hidden - 1)])) --hidden;
  if (hidden > 0) {
    s.hidden_slots = hidden * config_.page_slots;
    s.lowest = s.hidden_slots - 1 + widest_window_;
    METE_CHECK(length >= s.lowest);
  }
  for (int64_t b = 0; b < count; ++b) {
    uint8_t** pages = block_pages(blocks[static_cast<size_t>(b)]);
    for (size_t i = 0; i < s.lists.size(); ++i) {
      const bool left_out = b < hidden && slides(i);
      if (!left_out) pool_.retain(pages[i]);
      s.lists[i].pages.push_back(left_out ? nullptr : pages[i]);
    }
  }
  for (size_t i = 0; i < s.lists.size(); ++i) s.lists[i].hidden = slides(i) ? hidden : 0;
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
    if (place == nullptr || pages[i] == nullptr || place == pages[i]) continue;
    pool_.retain(pages[i]);
    pool_.release(place);
    place = pages[i];
  }
}

void KvCache::drop_block(BlockId block) {
  if (!whole(block)) --thin_blocks_;
  uint8_t** pages = block_pages(block);
  for (int64_t i = 0; i < lists(); ++i) {
    if (pages[i] != nullptr) pool_.release(pages[i]);
  }
  free_blocks_.push_back(block);
}

bool KvCache::whole(BlockId block) const {
  return sliding_lists_ == 0 || block_pages(block)[first_sliding_] != nullptr;
}

void KvCache::thin(BlockId block) {
  METE_CHECK(sliding_lists_ > 0 && whole(block));
  uint8_t** pages = block_pages(block);
  for (size_t i = 0; i < static_cast<size_t>(lists()); ++i) {
    if (!slides(i)) continue;
    pool_.release(pages[i]);
    pages[i] = nullptr;
  }
  ++thin_blocks_;
}

void KvCache::complete(BlockId block, BlockId from) {
  if (whole(block) || !whole(from)) return;
  uint8_t** pages = block_pages(block);
  uint8_t* const* source = block_pages(from);
  for (size_t i = 0; i < static_cast<size_t>(lists()); ++i) {
    if (pages[i] != nullptr) continue;
    pool_.retain(source[i]);
    pages[i] = source[i];
  }
  --thin_blocks_;
}

void KvCache::read_block(BlockId block, std::span<uint8_t> out) const {
  METE_CHECK(out.size() == block_bytes());
  uint8_t* const* pages = block_pages(block);
  for (size_t i = 0; i < static_cast<size_t>(lists()); ++i) {
    uint8_t* place = out.data() + i * pool_.page_bytes();
    if (pages[i] == nullptr) {
      std::memset(place, 0, pool_.page_bytes());
    } else {
      std::memcpy(place, pages[i], pool_.page_bytes());
    }
  }
}

BlockId KvCache::write_block(std::span<const uint8_t> bytes, bool whole) {
  METE_CHECK(bytes.size() == block_bytes());
  const int64_t wanted = whole ? lists() : full_lists();
  if (pool_.free_pages() < wanted || !block_left()) return -1;
  const BlockId block = make_block();
  uint8_t** pages = block_pages(block);
  for (size_t i = 0; i < static_cast<size_t>(lists()); ++i) {
    pages[i] = nullptr;
    if (!whole && slides(i)) continue;
    pages[i] = pool_.take();
    std::memcpy(pages[i], bytes.data() + i * pool_.page_bytes(), pool_.page_bytes());
  }
  if (!whole && sliding_lists_ > 0) ++thin_blocks_;
  return block;
}

}  // namespace mete
