// Pages of KV memory: one block obtained from the kernel, a free list, reference counts.
#pragma once

#include <cstdint>
#include <vector>

#include "base/aligned.h"

namespace mete {

class PagePool {
 public:
  /// `poison`: pages are filled with NaN patterns when they are given out and when they are freed (tests).
  /// Memory is touched only when a page is first written. Throws Error(kRuntime) if it cannot be had.
  PagePool(size_t page_bytes, int64_t pages, bool poison);

  /// A page with one reference; contents undefined. The pool must not be empty.
  uint8_t* take();
  void retain(const uint8_t* page);
  /// Drops a reference; the page is free when the last is gone.
  void release(uint8_t* page);
  bool shared(const uint8_t* page) const { return references_[index(page)] > 1; }

  int64_t free_pages() const { return static_cast<int64_t>(free_.size()) + pages_ - fresh_; }
  int64_t pages() const { return pages_; }
  int64_t peak_pages() const { return peak_; }  ///< most that were in use at once
  size_t page_bytes() const { return page_bytes_; }
  size_t capacity_bytes() const { return memory_.bytes(); }
  int64_t resident() const { return memory_.resident(); }

 private:
  size_t index(const uint8_t* page) const { return static_cast<size_t>(page - memory_.data()) / page_bytes_; }

  size_t page_bytes_;
  int64_t pages_;
  int64_t peak_ = 0;
  int64_t fresh_ = 0;  // pages that have been given out at least once: all below this index
  bool poison_;
  AlignedBuffer memory_;
  std::vector<int32_t> free_, references_;
};

}  // namespace mete
