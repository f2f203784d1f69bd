// Leaf-LRU: a heap of evictable leaves by time of last use. In one use a page counts as later than the pages
// behind it, so that a prefix loses its tail first.
#include <utility>
#include <vector>

#include "base/error.h"
#include "kv/reuse/policy.h"

namespace mete {
namespace {

class Lru final : public EvictionPolicy {
 public:
  explicit Lru(int64_t nodes)
      : stamp_(static_cast<size_t>(nodes), 0), place_(static_cast<size_t>(nodes), kAbsent) {
    heap_.reserve(static_cast<size_t>(nodes));
  }

  void used(std::span<const int32_t> path) override {
    for (size_t i = path.size(); i-- > 0;) {
      const int32_t node = path[i];
      stamp_[at(node)] = ++clock_;
      if (place_[at(node)] != kAbsent) sift_down(place_[at(node)]);
    }
  }
  void add(int32_t node) override {
    METE_CHECK(place_[at(node)] == kAbsent);
    heap_.push_back(node);
    place_[at(node)] = heap_.size() - 1;
    sift_up(heap_.size() - 1);
  }
  void remove(int32_t node) override {
    const size_t hole = place_[at(node)];
    METE_CHECK(hole != kAbsent);
    swap(hole, heap_.size() - 1);
    heap_.pop_back();
    place_[at(node)] = kAbsent;
    if (hole == heap_.size()) return;
    sift_up(hole);
    sift_down(hole);
  }
  void forget(int32_t node) override { stamp_[at(node)] = 0; }
  void begin_eviction(int64_t) override {}
  int32_t victim() override { return heap_.empty() ? -1 : heap_[0]; }
  bool consistent() const override {
    for (size_t i = 0; i < heap_.size(); ++i) {
      if (place_[at(heap_[i])] != i || (i > 0 && before(i, (i - 1) / 2))) return false;
    }
    return true;
  }

 private:
  static constexpr size_t kAbsent = SIZE_MAX;
  static size_t at(int32_t node) { return static_cast<size_t>(node); }
  bool before(size_t a, size_t b) const { return stamp_[at(heap_[a])] < stamp_[at(heap_[b])]; }
  void swap(size_t a, size_t b) {
    std::swap(heap_[a], heap_[b]);
    place_[at(heap_[a])] = a;
    place_[at(heap_[b])] = b;
  }
  void sift_up(size_t i) {
    for (; i > 0 && before(i, (i - 1) / 2); i = (i - 1) / 2) swap(i, (i - 1) / 2);
  }
  void sift_down(size_t i) {
    for (;;) {
      size_t first = i;
      for (size_t child = 2 * i + 1; child <= 2 * i + 2 && child < heap_.size(); ++child) {
        if (before(child, first)) first = child;
      }
      if (first == i) return;
      swap(i, first);
      i = first;
    }
  }

  uint64_t clock_ = 0;
  std::vector<uint64_t> stamp_;
  std::vector<int32_t> heap_;  // earliest first
  std::vector<size_t> place_;  // in heap_
};

}  // namespace

std::unique_ptr<EvictionPolicy> make_lru_policy(int64_t nodes) { return std::make_unique<Lru>(nodes); }

}  // namespace mete
