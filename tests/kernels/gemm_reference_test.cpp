#include <gtest/gtest.h>

#include "base/cpu.h"
#include "kernels/cpu/table.h"
#include "quant/dequant.h"
#include "testing/gemm_fixture.h"

namespace mete {
namespace {

using namespace mete::testing;

GemmFn kernel(DType type, CpuTier tier) {
  KernelTable table{};
  fill_gemm_reference(tier, table);
  return table.gemm_reference[static_cast<int>(type)];
}

PackedMatrix random_matrix(DType type, int64_t rows, int64_t cols) {
  Random random(5);
  std::vector<uint8_t> bytes(row_bytes(type, cols) * static_cast<size_t>(rows));
  for (auto& b : bytes) b = static_cast<uint8_t>(random.bits() & 0xbb);  // no 16-bit float is NaN or infinite
  return PackedMatrix(type, rows, cols, std::move(bytes));
}

TEST(GemmReference, EveryTypeOnEveryTierIsTheSumInDouble) {
  for (DType type : kAllDTypes)
    for (int64_t rows : {1, 17, 32}) {
      const int64_t cols = info(type).block == 1 ? 577 : 768, tokens = 15;
      const PackedMatrix w = random_matrix(type, rows, cols);
      const size_t stride = activation_row_bytes(ActivationKind::kF32, cols);
      AlignedBuffer acts(stride * static_cast<size_t>(tokens));
      Random random(6);
      std::vector<float> expected;
      for (int64_t t = 0; t < tokens; ++t) {
        auto* x = reinterpret_cast<float*>(acts.data() + static_cast<size_t>(t) * stride);
        for (int64_t k = 0; k < cols; ++k) x[k] = random.normal();
        for (int64_t n = 0; n < rows; ++n) {
          std::vector<float> y(static_cast<size_t>(cols));
          dequantize_row(type, w.source.data() + static_cast<size_t>(n) * row_bytes(type, cols), y.data(),
                         cols);
          double sum = 0;
          for (int64_t k = 0; k < cols; ++k)
            sum = std::fma(double{y[static_cast<size_t>(k)]}, double{x[k]}, sum);
          expected.push_back(static_cast<float>(sum));
        }
      }
      for (CpuTier tier : supported_tiers())
        for (int64_t count : {1, 5, 6, 7, 15})
          ASSERT_TRUE(same_bits(run_gemm(kernel(type, tier), w, acts, stride, count),
                                {expected.begin(), expected.begin() + count * rows}))
              << name(type) << ' ' << name(tier) << " M " << count << " N " << rows;
    }
}

}  // namespace
}  // namespace mete
