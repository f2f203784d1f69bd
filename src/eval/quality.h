// Perplexity, KL and top-token agreement over the scored rows of a text.
#pragma once

#include <functional>

#include "eval/divergence.h"

namespace mete {

/// Over a set of rows. Fields of a comparison are 0 without a reference.
struct Quality {
  int64_t rows = 0;
  double ppl = 0;
  double ppl_se = 0;  ///< standard error, from that of the mean negative log-likelihood by the delta method
  double kl_mean = 0, kl_se = 0, kl_p99 = 0, kl_max = 0;  ///< nats; p99: the nearest-rank percentile
  double same_top1 = 0;                                   ///< share of rows
  double reference_ppl = 0;
  double outside_mean = 0, outside_max = 0;  ///< compact reference: probability outside the kept tokens
};

class RowLog {
 public:
  explicit RowLog(bool compared) : compared_(compared) {}
  void add(int64_t position, double nll, const RowPrice& price) { rows_.push_back({position, nll, price}); }
  /// Over rows of positions first .. last of their windows.
  Quality summary(int64_t first = 0, int64_t last = INT64_MAX) const;
  bool compared() const { return compared_; }

 private:
  struct Row {
    int64_t position;
    double nll;
    RowPrice price;
  };
  bool compared_;
  std::vector<Row> rows_;
};

/// Called with every scored row.
using RowSink = std::function<void(const float* logits, int32_t target)>;

/// Scores all rows of `windows`; `reference` may be null, `sink` and `progress` (rows done, rows in all)
/// empty. Throws Error of the source or the reference.
RowLog score_rows(LogitsSource& source, const Windows& windows, int64_t vocab, Reference* reference,
                  const RowSink& sink, const std::function<void(int64_t, int64_t)>& progress);

}  // namespace mete
