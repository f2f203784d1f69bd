// What one logits row says about another: KL divergence in nats and the top token.
#pragma once

#include <cstdint>

#include "eval/logits_file.h"

namespace mete {

/// log of the sum of exp(logit) over the row, in double. Throws Error(kRuntime) if a logit is NaN or
/// +infinity.
double log_sum_exp(const float* logits, int64_t vocab);

/// What a row costs against the reference's row.
struct RowPrice {
  double kl = 0;       ///< KL(reference || row) in nats; of a compact reference a lower bound
  double outside = 0;  ///< compact reference: its probability outside the k kept tokens
  double reference_nll = 0;
  bool same_top1 = false;  ///< the likeliest token is the same (ties: the lowest id)
};

/// Full vocabulary. `log_sum` is log_sum_exp(logits). Equal rows give exactly 0; rounding below 0 counts as
/// 0.
RowPrice compare_rows(const float* reference, const float* logits, double log_sum, int64_t vocab,
                      int32_t target);

/// Top k tokens and one bucket for the rest: by the log-sum inequality never above the full KL.
RowPrice compare_compact(const CompactRow& reference, const float* logits, double log_sum, int64_t vocab);

CompactRow make_compact(const float* logits, int64_t vocab, int64_t k, int32_t target);

/// A reference whose rows are consumed in the order of the windows.
class Reference {
 public:
  virtual ~Reference() = default;
  /// Compares the next row. Throws Error.
  virtual RowPrice compare(const float* logits, double log_sum, int32_t target) = 0;
  virtual int64_t compact() const { return 0; }  ///< k of a compact reference, else 0
};

/// Full rows of a running model.
class ModelReference : public Reference {
 public:
  ModelReference(Runtime& runtime, const Windows& windows)
      : source_(runtime, windows), vocab_(runtime.model_config().vocab) {}
  RowPrice compare(const float* logits, double log_sum, int32_t target) override {
    return compare_rows(source_.next(), logits, log_sum, vocab_, target);
  }

 private:
  ModelLogits source_;
  int64_t vocab_;
};

/// Rows of a logits file, full or compact.
class FileReference : public Reference {
 public:
  FileReference(const std::string& path, int64_t vocab, const Windows& windows)
      : reader_(path, vocab, windows),
        vocab_(vocab),
        row_(reader_.compact() > 0 ? 0 : static_cast<size_t>(vocab)) {}
  RowPrice compare(const float* logits, double log_sum, int32_t target) override;
  int64_t compact() const override { return reader_.compact(); }

 private:
  LogitsReader reader_;
  int64_t vocab_;
  std::vector<float> row_;
  CompactRow compact_row_;
};

}  // namespace mete
