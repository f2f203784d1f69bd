// Shared by the matmul tests: random data, packed matrices, calls, hashes.
#pragma once

#include <xxhash.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "base/aligned.h"
#include "base/half.h"
#include "base/rng.h"
#include "kernels/cpu/matmul.h"
#include "quant/activation.h"
#include "quant/pack.h"

namespace mete::testing {

/// Deterministic stream of random numbers.
class Random {
 public:
  explicit Random(uint64_t seed) : seed_(seed) {}
  uint64_t bits() { return random_bits(seed_, position_++, Purpose::kTest); }
  double unit() { return random_unit(seed_, position_++, Purpose::kTest); }
  /// Roughly normal, mean 0, variance 1 (sum of 12 uniforms), exactly reproducible.
  float normal() {
    double sum = -6;
    for (int i = 0; i < 12; ++i) sum += unit();
    return static_cast<float>(sum);
  }

 private:
  uint64_t seed_, position_ = 0;
};

/// GGUF rows of one matrix and their panels.
struct PackedMatrix {
  DType type;
  int64_t rows, cols;
  std::vector<uint8_t> source;
  AlignedBuffer panels;

  PackedMatrix(DType dtype, int64_t row_count, int64_t col_count, std::vector<uint8_t> bytes)
      : type(dtype),
        rows(row_count),
        cols(col_count),
        source(std::move(bytes)),
        panels(panel_bytes(dtype, col_count) * static_cast<size_t>(panel_count(row_count))) {
    const size_t row = row_bytes(type, cols);
    for (int64_t p = 0; p < panel_count(rows); ++p) {
      const int64_t left = rows - p * kPanelRows;
      pack_panel(type, source.data() + static_cast<size_t>(p * kPanelRows) * row,
                 static_cast<int>(left < kPanelRows ? left : kPanelRows), cols,
                 panels.data() + static_cast<size_t>(p) * panel_bytes(type, cols));
    }
  }
};

/// Calls the kernel on all panels; acts holds `tokens` rows of act_stride bytes. Output [tokens][rows]; the
/// guard after each output row must stay untouched.
inline std::vector<float> run_gemm(GemmFn kernel, const PackedMatrix& w, const AlignedBuffer& acts,
                                   size_t act_stride, int64_t tokens, int64_t first_token = 0) {
  constexpr int64_t kGuard = 5;
  constexpr uint32_t kGuardBits = 0x7fedcba9u;
  std::vector<float> out(static_cast<size_t>(tokens * (w.rows + kGuard)), std::bit_cast<float>(kGuardBits));
  AlignedBuffer scratch(gemm_scratch_bytes(w.cols));
  std::memset(scratch.data(), 0xa5, scratch.bytes());
  GemmArgs args{};
  args.panels = w.panels.data();
  args.panel_stride = panel_bytes(w.type, w.cols);
  args.rows = w.rows;
  args.cols = w.cols;
  args.acts = acts.data() + static_cast<size_t>(first_token) * act_stride;
  args.act_stride = act_stride;
  args.tokens = tokens;
  args.out = out.data();
  args.out_stride = w.rows + kGuard;
  args.panel_begin = 0;
  args.panel_end = panel_count(w.rows);
  args.scratch = scratch.data();
  kernel(args);
  std::vector<float> dense(static_cast<size_t>(tokens * w.rows));
  for (int64_t t = 0; t < tokens; ++t) {
    const float* row = out.data() + t * args.out_stride;
    std::memcpy(dense.data() + t * w.rows, row, static_cast<size_t>(w.rows) * 4);
    for (int64_t i = w.rows; i < args.out_stride; ++i)
      if (std::bit_cast<uint32_t>(row[i]) != kGuardBits) dense.assign(1, 0.0f);  // any comparison fails
  }
  return dense;
}

inline bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * 4) == 0;
}

inline uint64_t hash_bits(const std::vector<float>& a) { return XXH3_64bits(a.data(), a.size() * 4); }

/// |a - b| / |b| in the 2-norm.
inline double relative_error(const std::vector<float>& a, const std::vector<double>& b) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    difference += (a[i] - b[i]) * (a[i] - b[i]);
    norm += b[i] * b[i];
  }
  return norm == 0 ? std::sqrt(difference) : std::sqrt(difference / norm);
}

}  // namespace mete::testing
