#include "eval/divergence.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace mete {
namespace {

int64_t top(const float* logits, int64_t vocab) { return std::max_element(logits, logits + vocab) - logits; }

/// Probability of the tokens that are not in `ids` (ascending), summed in the order of ids.
double mass_outside(const float* logits, double log_sum, int64_t vocab, const std::vector<int32_t>& ids) {
  double sum = 0;
  size_t next = 0;
  for (int64_t i = 0; i < vocab; ++i) {
    if (next < ids.size() && ids[next] == i) {
      ++next;
    } else {
      sum += std::exp(logits[i] - log_sum);
    }
  }
  return sum;
}

}  // namespace

double log_sum_exp(const float* logits, int64_t vocab) {
  float max = logits[0];
  for (int64_t i = 1; i < vocab; ++i) max = std::max(max, logits[i]);
  double sum = 0;
  for (int64_t i = 0; i < vocab; ++i) sum += std::exp(static_cast<double>(logits[i]) - max);
  const double result = std::log(sum) + max;
  if (!std::isfinite(result)) throw run_failure("a logits row has values that are not finite");
  return result;
}

RowPrice compare_rows(const float* reference, const float* logits, double log_sum, int64_t vocab,
                      int32_t target) {
  const double reference_sum = log_sum_exp(reference, vocab);
  double kl = 0;
  for (int64_t i = 0; i < vocab; ++i) {
    const double log_p = reference[i] - reference_sum, log_q = logits[i] - log_sum;
    const double p = std::exp(log_p);
    if (p > 0) kl += p * (log_p - log_q);
  }
  RowPrice price;
  price.kl = std::max(kl, 0.0);
  price.reference_nll = reference_sum - reference[target];
  price.same_top1 = top(reference, vocab) == top(logits, vocab);
  return price;
}

RowPrice compare_compact(const CompactRow& reference, const float* logits, double log_sum, int64_t vocab) {
  double kl = 0;
  for (size_t i = 0; i < reference.ids.size(); ++i) {
    const double log_p = reference.logits[i] - reference.log_sum;
    const double log_q = logits[reference.ids[i]] - log_sum;
    const double p = std::exp(log_p);
    if (p > 0) kl += p * (log_p - log_q);
  }
  if (reference.rest > 0) {
    const double rest = mass_outside(logits, log_sum, vocab, reference.ids);
    kl += reference.rest * std::log(reference.rest / std::max(rest, std::numeric_limits<double>::min()));
  }
  RowPrice price;
  price.kl = std::max(kl, 0.0);
  price.outside = reference.rest;
  price.reference_nll = reference.nll;
  const auto best = std::max_element(reference.logits.begin(), reference.logits.end());
  const int32_t best_id = reference.ids[static_cast<size_t>(best - reference.logits.begin())];
  price.same_top1 = best_id == top(logits, vocab);
  return price;
}

CompactRow make_compact(const float* logits, int64_t vocab, int64_t k, int32_t target) {
  CompactRow row;
  row.log_sum = log_sum_exp(logits, vocab);
  row.nll = row.log_sum - logits[target];
  std::vector<int32_t> order(static_cast<size_t>(vocab));
  std::iota(order.begin(), order.end(), 0);
  const auto better = [&](int32_t a, int32_t b) {
    return logits[a] != logits[b] ? logits[a] > logits[b] : a < b;
  };
  std::nth_element(order.begin(), order.begin() + (k - 1), order.end(), better);
  row.ids.assign(order.begin(), order.begin() + k);
  std::sort(row.ids.begin(), row.ids.end());
  for (const int32_t id : row.ids) row.logits.push_back(logits[id]);
  row.rest = mass_outside(logits, row.log_sum, vocab, row.ids);
  return row;
}

RowPrice FileReference::compare(const float* logits, double log_sum, int32_t target) {
  if (reader_.compact() > 0) {
    reader_.row(compact_row_);
    return compare_compact(compact_row_, logits, log_sum, vocab_);
  }
  reader_.row(row_.data());
  return compare_rows(row_.data(), logits, log_sum, vocab_, target);
}

}  // namespace mete
