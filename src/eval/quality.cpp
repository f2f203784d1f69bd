#include "eval/quality.h"

#include <algorithm>
#include <cmath>

namespace mete {
namespace {

/// Sums of one quantity.
struct Sums {
  double sum = 0, squares = 0;
  int64_t count = 0;
  void add(double x) {
    sum += x;
    squares += x * x;
    ++count;
  }
  double mean() const { return sum / static_cast<double>(count); }
  /// Standard error of the mean.
  double error() const {
    if (count < 2) return 0;
    const auto n = static_cast<double>(count);
    const double variance = squares / n - mean() * mean();
    return variance > 0 ? std::sqrt(variance / (n - 1)) : 0;
  }
};

}  // namespace

Quality RowLog::summary(int64_t first, int64_t last) const {
  Quality q;
  Sums nll, kl, reference, outside;
  std::vector<double> kls;
  int64_t same = 0;
  for (const Row& row : rows_) {
    if (row.position < first || row.position > last) continue;
    nll.add(row.nll);
    kl.add(row.price.kl);
    kls.push_back(row.price.kl);
    reference.add(row.price.reference_nll);
    outside.add(row.price.outside);
    q.outside_max = std::max(q.outside_max, row.price.outside);
    same += row.price.same_top1 ? 1 : 0;
  }
  q.rows = nll.count;
  if (q.rows == 0) return q;
  q.ppl = std::exp(nll.mean());
  q.ppl_se = q.ppl * nll.error();
  if (!compared_) return q;
  q.kl_mean = kl.mean();
  q.kl_se = kl.error();
  const auto rank = static_cast<size_t>(std::ceil(0.99 * static_cast<double>(kls.size()))) - 1;
  std::nth_element(kls.begin(), kls.begin() + static_cast<std::ptrdiff_t>(rank), kls.end());
  q.kl_p99 = kls[rank];
  q.kl_max = *std::max_element(kls.begin(), kls.end());
  q.same_top1 = static_cast<double>(same) / static_cast<double>(q.rows);
  q.reference_ppl = std::exp(reference.mean());
  q.outside_mean = outside.mean();
  return q;
}

RowLog score_rows(LogitsSource& source, const Windows& windows, int64_t vocab, Reference* reference,
                  const RowSink& sink, const std::function<void(int64_t, int64_t)>& progress) {
  RowLog log(reference != nullptr);
  const int64_t rows = windows.rows();
  for (int64_t row = 0; row < rows; ++row) {
    const float* logits = source.next();
    const int32_t target = windows.target(row);
    const double log_sum = log_sum_exp(logits, vocab);
    RowPrice price;
    if (reference != nullptr) price = reference->compare(logits, log_sum, target);
    log.add(windows.position(row), log_sum - logits[target], price);
    if (sink) sink(logits, target);
    if (progress) progress(row + 1, rows);
  }
  return log;
}

}  // namespace mete
