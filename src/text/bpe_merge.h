// The one merge loop of all tokenizers: repeatedly join the neighbouring pair of lowest rank, leftmost first.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace mete {

inline constexpr uint32_t kNoMerge = UINT32_MAX;

/// Working memory of merge_pairs(); grows to the longest word.
template <typename Symbol>
struct MergeScratch {
  std::vector<uint32_t> rank;  ///< of the pair that starts at a symbol; kNoMerge if none
  std::vector<Symbol> joined;  ///< what that pair becomes
  std::vector<uint32_t> next, previous;
  std::vector<uint64_t> heap;  ///< rank << 32 | left symbol
};

namespace merge_detail {

inline constexpr size_t kShortWord = 48;

/// Quadratic with a tiny constant: the ranks of a short word stay in registers and L1.
template <typename Symbol, typename Find>
size_t merge_short(Symbol* symbols, size_t count, MergeScratch<Symbol>& scratch, Find find) {
  uint32_t* rank = scratch.rank.data();
  Symbol* joined = scratch.joined.data();
  for (size_t i = 0; i + 1 < count; ++i) rank[i] = find(symbols[i], symbols[i + 1], joined[i]);
  while (count > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < count; ++i) {
      if (rank[i] < rank[best]) best = i;
    }
    if (rank[best] == kNoMerge) break;
    symbols[best] = joined[best];
    std::copy(symbols + best + 2, symbols + count, symbols + best + 1);
    if (best + 2 < count) {
      std::copy(rank + best + 2, rank + count - 1, rank + best + 1);
      std::copy(joined + best + 2, joined + count - 1, joined + best + 1);
    }
    --count;
    if (best + 1 < count) rank[best] = find(symbols[best], symbols[best + 1], joined[best]);
    if (best > 0) rank[best - 1] = find(symbols[best - 1], symbols[best], joined[best - 1]);
  }
  return count;
}

/// n log n: a heap of candidates. An entry is current if its rank is still its left symbol's rank: equal rank
/// and place make the same choice, whichever entry came first.
template <typename Symbol, typename Find>
size_t merge_long(Symbol* symbols, size_t count, MergeScratch<Symbol>& scratch, Find find) {
  const auto end = static_cast<uint32_t>(count);
  auto& rank = scratch.rank;
  auto& joined = scratch.joined;
  auto& next = scratch.next;
  auto& previous = scratch.previous;
  auto& heap = scratch.heap;
  next.resize(count);
  previous.resize(count);
  heap.clear();
  const auto later = [](uint64_t a, uint64_t b) { return a > b; };
  const auto offer = [&](uint32_t left) {
    rank[left] = next[left] == end ? kNoMerge : find(symbols[left], symbols[next[left]], joined[left]);
    return rank[left] != kNoMerge;
  };
  const auto push = [&](uint32_t left) {
    if (!offer(left)) return;
    heap.push_back((static_cast<uint64_t>(rank[left]) << 32) | left);
    std::push_heap(heap.begin(), heap.end(), later);
  };
  for (uint32_t i = 0; i < end; ++i) {
    next[i] = i + 1;
    previous[i] = i - 1;
  }
  for (uint32_t i = 0; i < end; ++i) {
    if (offer(i)) heap.push_back((static_cast<uint64_t>(rank[i]) << 32) | i);
  }
  std::make_heap(heap.begin(), heap.end(), later);
  while (!heap.empty()) {
    const uint64_t top = heap.front();
    std::pop_heap(heap.begin(), heap.end(), later);
    heap.pop_back();
    const auto left = static_cast<uint32_t>(top);
    if (rank[left] != static_cast<uint32_t>(top >> 32)) continue;
    const uint32_t right = next[left];
    symbols[left] = joined[left];
    rank[right] = kNoMerge;
    next[left] = next[right];
    if (next[left] != end) previous[next[left]] = left;
    push(left);
    if (left > 0) push(previous[left]);
  }
  size_t kept = 0;
  for (uint32_t i = 0; i < end; i = next[i]) symbols[kept++] = symbols[i];
  return kept;
}

}  // namespace merge_detail

/// Merges `count` symbols in place; the result's count. `find(left, right, joined)` gives the rank of a pair
/// (lower first, kNoMerge if it does not merge) and what it becomes. `count` < 2^32 - 1.
template <typename Symbol, typename Find>
size_t merge_pairs(Symbol* symbols, size_t count, MergeScratch<Symbol>& scratch, Find find) {
  if (scratch.rank.size() < count) {
    scratch.rank.resize(count);
    scratch.joined.resize(count);
  }
  if (count <= merge_detail::kShortWord) return merge_detail::merge_short(symbols, count, scratch, find);
  return merge_detail::merge_long(symbols, count, scratch, find);
}

}  // namespace mete
