#include "sched/form_batch.h"

#include <algorithm>

namespace mete {

void form_batch(std::span<const Demand> demands, StepLimits limits, std::vector<int64_t>& granted) {
  granted.assign(demands.size(), 0);
  int64_t left = limits.rows;
  bool decodes = false;
  for (size_t i = 0; i < demands.size() && left > 0; ++i) {
    if (!demands[i].decoding) continue;
    granted[i] = std::min(demands[i].pending, left);
    left -= granted[i];
    decodes = true;
  }
  if (decodes) left = std::min(left, limits.prompt_rows);

  const auto give = [&](size_t i, int64_t most) {
    const int64_t rows = std::min(demands[i].pending - granted[i], most);
    granted[i] += rows;
    left -= rows;
    return rows;
  };
  int64_t in_order = (left + 1) / 2;
  for (size_t i = 0; i < demands.size() && in_order > 0; ++i) {
    if (!demands[i].decoding) in_order -= give(i, in_order);
  }
  while (left > 0) {
    size_t shortest = demands.size();
    const auto before = [&](size_t a, size_t b) {
      if (demands[a].priority != demands[b].priority) return demands[a].priority < demands[b].priority;
      return demands[a].pending - granted[a] < demands[b].pending - granted[b];
    };
    for (size_t i = 0; i < demands.size(); ++i) {
      if (demands[i].decoding || granted[i] == demands[i].pending) continue;
      if (shortest == demands.size() || before(i, shortest)) shortest = i;
    }
    if (shortest == demands.size()) return;
    give(shortest, left);
  }
}

}  // namespace mete
