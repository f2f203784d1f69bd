#include <gtest/gtest.h>

#include "base/cpu.h"
#include "kernels/cpu/table.h"
#include "testing/gemm_fixture.h"

namespace mete {
namespace {

using namespace mete::testing;

constexpr int64_t kTokenCounts[] = {1, 2, 3, 4, 5, 7, 8, 9, 12, 13, 15, 16, 17, 31, 33, 64, 70};
constexpr DType kTypes[] = {DType::kF32, DType::kF16, DType::kBF16};

GemmFn kernel(DType type, CpuTier tier) {
  KernelTable table{};
  fill_gemm_float(tier, table);
  return table.gemm[static_cast<int>(type)];
}

float value(DType type, const uint8_t* row, int64_t k) {
  if (type == DType::kF32) {
    float x;
    std::memcpy(&x, row + k * 4, 4);
    return x;
  }
  uint16_t bits;
  std::memcpy(&bits, row + k * 2, 2);
  return type == DType::kF16 ? to_float(Half{bits}) : to_float(BFloat16{bits});
}

PackedMatrix random_matrix(DType type, int64_t rows, int64_t cols, uint64_t seed) {
  Random random(seed);
  std::vector<uint8_t> bytes(row_bytes(type, cols) * static_cast<size_t>(rows));
  for (int64_t i = 0; i < rows * cols; ++i) {
    const float x = random.normal();
    if (type == DType::kF32) {
      std::memcpy(bytes.data() + i * 4, &x, 4);
    } else {
      const uint16_t bits = type == DType::kF16 ? to_half(x).bits : to_bfloat16(x).bits;
      std::memcpy(bytes.data() + i * 2, &bits, 2);
    }
  }
  return PackedMatrix(type, rows, cols, std::move(bytes));
}

AlignedBuffer random_acts(int64_t tokens, int64_t cols, uint64_t seed) {
  const size_t stride = activation_row_bytes(ActivationKind::kF32, cols);
  AlignedBuffer acts(stride * static_cast<size_t>(tokens));
  Random random(seed);
  for (int64_t t = 0; t < tokens; ++t) {
    auto* x = reinterpret_cast<float*>(acts.data() + static_cast<size_t>(t) * stride);
    for (int64_t k = 0; k < cols; ++k) x[k] = random.normal();
  }
  return acts;
}

TEST(GemmFloat, PackRoundTrip) {
  for (DType type : kTypes)
    for (int64_t cols : {1, 31, 64, 577})
      for (int rows : {1, 5, 16}) {
        Random random(7);
        std::vector<uint8_t> bytes(row_bytes(type, cols) * static_cast<size_t>(rows));
        for (auto& b : bytes) b = static_cast<uint8_t>(random.bits());
        AlignedBuffer panel(panel_bytes(type, cols));
        std::memset(panel.data(), 0xff, panel.bytes());
        pack_panel(type, bytes.data(), rows, cols, panel.data());
        std::vector<uint8_t> row(row_bytes(type, cols));
        for (int lane = 0; lane < kPanelRows; ++lane) {
          std::vector<uint8_t> expected(row.size(), 0);
          if (lane < rows)
            std::memcpy(expected.data(), bytes.data() + row.size() * static_cast<size_t>(lane), row.size());
          unpack_row(type, panel.data(), lane, cols, row.data());
          ASSERT_EQ(row, expected) << name(type) << " cols " << cols << " lane " << lane;
        }
      }
}

TEST(GemmFloat, GenericAgainstDouble) {
  for (DType type : kTypes)
    for (int64_t cols : {1, 31, 576, 577}) {
      const PackedMatrix w = random_matrix(type, 33, cols, 11);
      const size_t stride = activation_row_bytes(ActivationKind::kF32, cols);
      const AlignedBuffer acts = random_acts(5, cols, 12);
      std::vector<double> expected;
      for (int64_t t = 0; t < 5; ++t)
        for (int64_t n = 0; n < w.rows; ++n) {
          const auto* x = reinterpret_cast<const float*>(acts.data() + static_cast<size_t>(t) * stride);
          double sum = 0;
          for (int64_t k = 0; k < cols; ++k)
            sum += double{x[k]} *
                   value(type, w.source.data() + static_cast<size_t>(n) * row_bytes(type, cols), k);
          expected.push_back(sum);
        }
      const auto got = run_gemm(kernel(type, CpuTier::kGeneric), w, acts, stride, 5);
      ASSERT_EQ(got.size(), expected.size());
      EXPECT_LT(relative_error(got, expected), 1e-6) << name(type) << " K " << cols;
    }
}

TEST(GemmFloat, TiersEqualGenericAndRowsEqualSingleRows) {
  for (DType type : kTypes)
    for (int64_t cols : {1, 31, 576, 577, 4100})
      for (int64_t rows : {1, 15, 16, 17, 33, 100}) {
        if (cols == 4100 && rows != 33) continue;
        const PackedMatrix w = random_matrix(type, rows, cols, 21);
        const size_t stride = activation_row_bytes(ActivationKind::kF32, cols);
        const AlignedBuffer acts = random_acts(70, cols, 22);
        const auto expected = run_gemm(kernel(type, CpuTier::kGeneric), w, acts, stride, 70);
        for (CpuTier tier : supported_tiers()) {
          for (int64_t tokens : kTokenCounts) {
            const auto got = run_gemm(kernel(type, tier), w, acts, stride, tokens);
            ASSERT_TRUE(same_bits(got, {expected.begin(), expected.begin() + tokens * rows}))
                << name(type) << ' ' << name(tier) << " M " << tokens << " N " << rows << " K " << cols;
          }
          const auto single = run_gemm(kernel(type, tier), w, acts, stride, 1, 69);
          ASSERT_TRUE(same_bits(single, {expected.end() - rows, expected.end()}));
        }
      }
}

TEST(GemmFloat, NonFiniteValuesGiveTheSameBits) {
  const int64_t cols = 70, rows = 33;
  for (DType type : kTypes) {
    PackedMatrix w = random_matrix(type, rows, cols, 31);
    Random random(32);
    std::vector<uint8_t> bytes = w.source;
    for (auto& b : bytes) b = static_cast<uint8_t>(random.bits());  // includes NaN, infinity, subnormals
    w = PackedMatrix(type, rows, cols, bytes);
    const size_t stride = activation_row_bytes(ActivationKind::kF32, cols);
    AlignedBuffer acts = random_acts(17, cols, 33);
    const float odd[] = {std::bit_cast<float>(0xffc12345u), INFINITY, -INFINITY, 1e-42f, 3e38f, -0.0f};
    for (int64_t t = 2; t < 17; ++t)
      reinterpret_cast<float*>(acts.data() + static_cast<size_t>(t) * stride)[t * 3] = odd[t % 6];
    const auto expected = run_gemm(kernel(type, CpuTier::kGeneric), w, acts, stride, 17);
    for (CpuTier tier : supported_tiers())
      for (int64_t tokens : {1, 2, 5, 17})
        ASSERT_TRUE(same_bits(run_gemm(kernel(type, tier), w, acts, stride, tokens),
                              {expected.begin(), expected.begin() + tokens * rows}))
            << name(type) << ' ' << name(tier) << " M " << tokens;
  }
}

// The same numbers for every compiler and machine; computed by the generic tier under GCC 12.
TEST(GemmFloat, GoldenBits) {
  const uint64_t golden[] = {2749913222297650772u, 7716471847210933959u, 873316279297521055u};
  for (int i = 0; i < 3; ++i) {
    const PackedMatrix w = random_matrix(kTypes[i], 33, 577, 41);
    const size_t stride = activation_row_bytes(ActivationKind::kF32, 577);
    const AlignedBuffer acts = random_acts(9, 577, 42);
    for (CpuTier tier : supported_tiers())
      EXPECT_EQ(hash_bits(run_gemm(kernel(kTypes[i], tier), w, acts, stride, 9)), golden[i])
          << name(kTypes[i]) << ' ' << name(tier);
  }
}

}  // namespace
}  // namespace mete
