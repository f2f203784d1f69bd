// Picking the victims by score: shared by all policies.
#pragma once

#include <algorithm>
#include <span>
#include <utility>
#include <vector>

namespace mete {

/// Writes the victims.size() candidates of highest score, highest first; ties go to the lower key. `scratch`
/// keeps its memory between calls.
template <typename Score>
void choose_highest(std::span<const int32_t> candidates, std::span<int32_t> victims,
                    std::vector<std::pair<double, int32_t>>& scratch, Score&& score) {
  scratch.clear();
  for (const int32_t key : candidates) scratch.emplace_back(-score(key), key);
  std::partial_sort(scratch.begin(), scratch.begin() + static_cast<std::ptrdiff_t>(victims.size()),
                    scratch.end());
  for (size_t i = 0; i < victims.size(); ++i) victims[i] = scratch[i].second;
}

}  // namespace mete
