// Many small matmuls in one fork-join: the experts of a mixture-of-experts layer, each on the rows routed to
// it.
#pragma once

#include <cstdint>
#include <span>

#include "ops/matmul.h"
#include "quant/activation.h"

namespace mete {

/// Activation rows that several grouped matmuls read; quantised at first use, once per kind.
class GroupedInput {
 public:
  /// From now on the rows are x [rows][cols], contiguous; x must stay until the last use.
  void reset(const float* x, int64_t rows, int64_t cols);
  /// Allocates for `rows` rows of `cols` in the format of `kind`, so that no later use does.
  void reserve(ActivationKind kind, int64_t rows, int64_t cols);

  int64_t resident() const;  ///< bytes of its quantised rows that are in memory
  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  /// The rows in the format of `kind`, activation_row_bytes(kind, cols()) apart (kF32: cols() floats).
  const uint8_t* get(Context& ctx, ActivationKind kind);

 private:
  const float* x_ = nullptr;
  int64_t rows_ = 0, cols_ = 0;
  Scratch quantised_[2];  // kQ8_16, kQ8_K
  bool ready_[2] = {false, false};
};

/// One product of a grouped matmul: out[i][n] = sum_k x[rows[i]][k] * weight[n][k] (+ bias[n]).
struct MatmulGroup {
  const Linear* weight;
  std::span<const int32_t> rows;  ///< of the input, ascending; at least one. Equal spans share one gathering.
  float* out;                     ///< [rows.size()][out_stride]
  int64_t out_stride;             ///< floats, >= weight->rows
};

/// All groups in one fork-join, split over (group, panel range). The bits are those of matmul on each row.
void matmul_grouped(Context& ctx, GroupedInput& input, std::span<const MatmulGroup> groups) noexcept;

/// Bytes of Context::gathered that matmul_grouped takes at most on so many threads for `groups` groups of
/// `rows` gathered rows in all, of `row_bytes` bytes each as the kernels read them.
size_t matmul_grouped_bytes(int threads, int64_t groups, int64_t rows, size_t row_bytes);

}  // namespace mete
