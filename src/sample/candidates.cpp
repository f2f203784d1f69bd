#include "sample/candidates.h"

#include <algorithm>
#include <bit>

#include "kernels/cpu/scalar_math.h"

namespace mete {

double exp_below_zero(double x) {
  if (!(x > -708.0)) return 0.0;
  // x = n ln2 + r with |r| < 0.347; ln2 in two parts so that n * high is exact.
  const double shifted = x * 0x1.71547652b82fep0 + 0x1.8p52;
  const double n = shifted - 0x1.8p52;
  const double r = (x - n * 0x1.62e42fee00000p-1) - n * 0x1.a39ef35793c76p-33;
  double p = 1.0 / 6227020800.0;
  constexpr double kTaylor[] = {
      1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320, 1.0 / 5040, 1.0 / 720,
      1.0 / 120,       1.0 / 24,       1.0 / 6,       0.5,          1.0,         1.0};
  for (const double c : kTaylor) p = p * r + c;
  return p * std::bit_cast<double>(static_cast<uint64_t>(static_cast<int64_t>(n) + 1023) << 52);
}

void sort(Candidates* list) {
  if (!list->sorted) std::sort(list->items.begin(), list->items.end(), ranks_before);
  list->sorted = true;
}

bool softmax(Candidates* list) {
  float highest = -std::numeric_limits<float>::infinity();
  for (const Candidate& candidate : list->items) highest = std::max(highest, candidate.logit);
  double sum = 0.0;
  const bool masked = highest == -std::numeric_limits<float>::infinity();
  for (Candidate& candidate : list->items) {
    const double below = static_cast<double>(candidate.logit) - static_cast<double>(highest);
    candidate.p = masked ? 0.0 : exp_below_zero(below);
    sum += candidate.p;
  }
  if (masked) return false;
  for (Candidate& candidate : list->items) candidate.p /= sum;
  return true;
}

double entropy(const Candidates& list) {
  double sum = 0.0;
  for (const Candidate& candidate : list.items) {
    if (candidate.p > 0.0) sum -= candidate.p * log_double(candidate.p);
  }
  return sum;
}

int32_t draw(std::span<const Candidate> list, double unit) {
  double sum = 0.0;
  for (const Candidate& candidate : list) sum += candidate.p;
  const double target = unit * sum;
  double running = 0.0;
  int32_t last = -1;
  for (const Candidate& candidate : list) {
    running += candidate.p;
    if (candidate.p > 0.0) last = candidate.id;
    if (running > target) return candidate.id;
  }
  return last;
}

}  // namespace mete
