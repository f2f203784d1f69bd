#include "kv/page_pool.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"

namespace mete {

PagePool::PagePool(size_t page_bytes, int64_t pages, bool poison)
    : page_bytes_(page_bytes),
      pages_(pages),
      poison_(poison),
      memory_(page_bytes * static_cast<size_t>(pages), page_bytes * static_cast<size_t>(pages) >= (4u << 20)),
      references_(static_cast<size_t>(pages), 0) {
  free_.reserve(static_cast<size_t>(pages));
}

uint8_t* PagePool::take() {
  METE_CHECK(free_pages() > 0);
  int32_t i;
  if (free_.empty()) {
    i = static_cast<int32_t>(fresh_++);
  } else {
    i = free_.back();
    free_.pop_back();
  }
  references_[static_cast<size_t>(i)] = 1;
  peak_ = std::max(peak_, pages_ - free_pages());
  uint8_t* page = memory_.data() + static_cast<size_t>(i) * page_bytes_;
  if (poison_) std::memset(page, 0xff, page_bytes_);
  return page;
}

void PagePool::retain(const uint8_t* page) { ++references_[index(page)]; }

void PagePool::release(uint8_t* page) {
  const size_t i = index(page);
  METE_CHECK(references_[i] > 0);
  if (--references_[i] > 0) return;
  if (poison_) std::memset(page, 0xff, page_bytes_);
  free_.push_back(static_cast<int32_t>(i));
}

}  // namespace mete
