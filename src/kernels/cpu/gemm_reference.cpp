// Reference matmul of every weight type: out = float(sum in double of dequantised weight * activation).
#include "kernels/cpu/gemm_reference.h"

#include <bit>
#include <cmath>
#include <cstring>

#include "kernels/cpu/table.h"
#include "quant/dequant.h"
#include "quant/pack.h"

namespace mete {
namespace {

/// The panel's rows as float32, [cols][16]; `scratch` holds one row packed and one unpacked.
void dequantize_panel(DType type, const uint8_t* panel, int64_t cols, uint8_t* scratch, float* weights) {
  auto* row = reinterpret_cast<float*>(scratch);
  uint8_t* bytes = scratch + static_cast<size_t>(cols) * sizeof(float);
  for (int lane = 0; lane < kPanelRows; ++lane) {
    unpack_row(type, panel, lane, cols, bytes);
    dequantize_row(type, bytes, row, cols);
    for (int64_t k = 0; k < cols; ++k) weights[k * kPanelRows + lane] = row[k];
  }
}

/// Scratch: weights 64 * cols, activations of a tile 48 * cols, one row 8 * cols bytes.
template <DType type, ReferenceTileFn tile>
void gemm_reference(const GemmArgs& a) noexcept {
  auto* weights = reinterpret_cast<float*>(a.scratch);
  auto* acts = reinterpret_cast<double*>(a.scratch + static_cast<size_t>(a.cols) * 64);
  for (int64_t p = a.panel_begin; p < a.panel_end; ++p) {
    dequantize_panel(type, a.panels + static_cast<size_t>(p) * a.panel_stride, a.cols,
                     a.scratch + static_cast<size_t>(a.cols) * 112, weights);
    const int64_t left = a.rows - p * kPanelRows, lanes = left < kPanelRows ? left : kPanelRows;
    for (int64_t t = 0; t < a.tokens; t += kReferenceTokens) {
      const int count = a.tokens - t < kReferenceTokens ? static_cast<int>(a.tokens - t) : kReferenceTokens;
      for (int i = 0; i < count; ++i) {
        const auto* x = reinterpret_cast<const float*>(a.acts + static_cast<size_t>(t + i) * a.act_stride);
        for (int64_t k = 0; k < a.cols; ++k) acts[i * a.cols + k] = x[k];
      }
      double sums[kReferenceTokens][kPanelRows];
      tile({weights, acts, a.cols, count, sums[0]});
      for (int i = 0; i < count; ++i)
        for (int64_t lane = 0; lane < lanes; ++lane) {
          const float sum = static_cast<float>(sums[i][lane]);
          a.out[(t + i) * a.out_stride + p * kPanelRows + lane] =
              std::isnan(sum) ? std::bit_cast<float>(0x7fc00000u) : sum;
        }
    }
  }
}

template <ReferenceTileFn tile>
void fill(KernelTable& table) {
  const auto set = [&table](DType type, GemmFn kernel) {
    table.gemm_reference[static_cast<int>(type)] = kernel;
  };
  set(DType::kF32, gemm_reference<DType::kF32, tile>);
  set(DType::kF16, gemm_reference<DType::kF16, tile>);
  set(DType::kBF16, gemm_reference<DType::kBF16, tile>);
  set(DType::kQ4_0, gemm_reference<DType::kQ4_0, tile>);
  set(DType::kQ4_1, gemm_reference<DType::kQ4_1, tile>);
  set(DType::kQ5_0, gemm_reference<DType::kQ5_0, tile>);
  set(DType::kQ5_1, gemm_reference<DType::kQ5_1, tile>);
  set(DType::kQ8_0, gemm_reference<DType::kQ8_0, tile>);
  set(DType::kQ2_K, gemm_reference<DType::kQ2_K, tile>);
  set(DType::kQ3_K, gemm_reference<DType::kQ3_K, tile>);
  set(DType::kQ4_K, gemm_reference<DType::kQ4_K, tile>);
  set(DType::kQ5_K, gemm_reference<DType::kQ5_K, tile>);
  set(DType::kQ6_K, gemm_reference<DType::kQ6_K, tile>);
  set(DType::kIQ4_NL, gemm_reference<DType::kIQ4_NL, tile>);
  set(DType::kIQ4_XS, gemm_reference<DType::kIQ4_XS, tile>);
  set(DType::kMXFP4, gemm_reference<DType::kMXFP4, tile>);
}

}  // namespace

void reference_tile_generic(const ReferenceTile& a) noexcept {
  std::memset(a.sums, 0, sizeof(double) * kPanelRows * static_cast<size_t>(a.tokens));
  for (int64_t k = 0; k < a.cols; ++k)
    for (int t = 0; t < a.tokens; ++t) {
      const double x = a.acts[t * a.cols + k];
      double* sums = a.sums + t * kPanelRows;
      for (int lane = 0; lane < kPanelRows; ++lane)
        sums[lane] += static_cast<double>(a.weights[k * kPanelRows + lane]) * x;
    }
}

void fill_gemm_reference(CpuTier tier, KernelTable& table) {
  if (tier >= CpuTier::kAvx512) {
    fill<reference_tile_avx512>(table);
  } else if (tier >= CpuTier::kAvx2) {
    fill<reference_tile_avx2>(table);
  } else {
    fill<reference_tile_generic>(table);
  }
}

}  // namespace mete
