// Randomised leaf tails (arXiv 2601.18999): the randomised marking algorithm of paging on a tree. Used pages
// are marked; a victim is drawn uniformly from the unmarked leaves; when marks fill the cache, or only marked
// leaves are left, a new phase begins without marks. A leaf here is a page, which is the tail of the paper's
// leaf in units of pages.
#include <vector>

#include "base/error.h"
#include "base/rng.h"
#include "kv/reuse/policy.h"

namespace mete {
namespace {

class Rlt final : public EvictionPolicy {
 public:
  Rlt(int64_t nodes, uint64_t seed)
      : seed_(seed),
        limit_(nodes),
        marked_at_(static_cast<size_t>(nodes), 0),
        place_(static_cast<size_t>(nodes), kAbsent) {
    for (std::vector<int32_t>& leaves : leaves_) leaves.reserve(static_cast<size_t>(nodes));
  }

  void used(std::span<const int32_t> path) override {
    mark(path);
    if (marked_ < limit_) return;
    begin_phase();
    mark(path);
  }
  void add(int32_t node) override { insert(leaves_[is_marked(node)], node); }
  void remove(int32_t node) override { erase(leaves_[is_marked(node)], node); }
  void forget(int32_t node) override {
    if (is_marked(node)) --marked_;
    marked_at_[at(node)] = 0;
  }
  void begin_eviction(int64_t need) override {
    if (need + marked_ >= limit_) begin_phase();
  }
  int32_t victim() override {
    if (leaves_[0].empty()) begin_phase();
    if (leaves_[0].empty()) return -1;
    return leaves_[0][random_bits(seed_, draws_++, Purpose::kEviction) % leaves_[0].size()];
  }
  bool consistent() const override {
    int64_t marked = 0;
    for (const uint64_t phase : marked_at_) marked += phase == phase_ ? 1 : 0;
    for (size_t kind : {size_t{0}, size_t{1}}) {
      for (size_t i = 0; i < leaves_[kind].size(); ++i) {
        const int32_t node = leaves_[kind][i];
        if (place_[at(node)] != i || is_marked(node) != kind) return false;
      }
    }
    return marked == marked_;
  }

 private:
  static constexpr size_t kAbsent = SIZE_MAX;
  static size_t at(int32_t node) { return static_cast<size_t>(node); }
  size_t is_marked(int32_t node) const { return marked_at_[at(node)] == phase_ ? 1 : 0; }

  void mark(std::span<const int32_t> path) {
    for (const int32_t node : path) {
      if (is_marked(node)) continue;
      const bool leaf = place_[at(node)] != kAbsent;
      if (leaf) erase(leaves_[0], node);
      marked_at_[at(node)] = phase_;
      ++marked_;
      if (leaf) insert(leaves_[1], node);
    }
  }
  void begin_phase() {
    ++phase_;
    marked_ = 0;
    for (const int32_t node : leaves_[1]) insert(leaves_[0], node);
    leaves_[1].clear();
  }
  void insert(std::vector<int32_t>& leaves, int32_t node) {
    place_[at(node)] = leaves.size();
    leaves.push_back(node);
  }
  void erase(std::vector<int32_t>& leaves, int32_t node) {
    const size_t hole = place_[at(node)];
    METE_CHECK(hole < leaves.size() && leaves[hole] == node);
    leaves[hole] = leaves.back();
    place_[at(leaves[hole])] = hole;
    leaves.pop_back();
    place_[at(node)] = kAbsent;
  }

  uint64_t seed_, draws_ = 0;
  int64_t limit_, marked_ = 0;
  uint64_t phase_ = 1;
  std::vector<uint64_t> marked_at_;  // the phase in which the node was last marked
  std::vector<int32_t> leaves_[2];   // evictable: unmarked, marked
  std::vector<size_t> place_;        // in its list
};

}  // namespace

std::unique_ptr<EvictionPolicy> make_rlt_policy(int64_t nodes, uint64_t seed) {
  return std::make_unique<Rlt>(nodes, seed);
}

}  // namespace mete
