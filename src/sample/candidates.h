// The candidate list that the sampling stages work on.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace mete {

struct Candidate {
  int32_t id;
  float logit;
  double p;  ///< valid after softmax()
};

/// Tokens that may still be drawn. A logit of -inf stays in the list with probability 0.
struct Candidates {
  std::vector<Candidate> items;
  bool sorted = false;  ///< by descending logit, equal logits by ascending id

  size_t size() const { return items.size(); }
};

/// Better first: higher logit, then lower id.
inline bool ranks_before(const Candidate& a, const Candidate& b) {
  return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

/// A logit as the stages expect it: NaN becomes -inf, +inf the largest finite float.
inline float bounded_logit(float logit) {
  if (logit != logit) return -std::numeric_limits<float>::infinity();
  return std::min(logit, std::numeric_limits<float>::max());
}

/// exp(x) for x <= 0 in plain double operations, the same bits on every machine; relative error below 1e-15,
/// 0 below -708.
double exp_below_zero(double x);

/// Sorts whole, unless sorted.
void sort(Candidates* list);
/// Probabilities from the logits (none +inf or NaN), summed in list order. Leaves p = 0 everywhere and
/// returns false if every logit is -inf.
bool softmax(Candidates* list);
/// Entropy of the probabilities in nats; 0 log 0 = 0.
double entropy(const Candidates& list);
/// The candidate where the running sum of p first exceeds `unit` times the sum; `unit` in [0, 1). Never one
/// with p = 0. -1 for an empty list or one without weight.
int32_t draw(std::span<const Candidate> list, double unit);

}  // namespace mete
