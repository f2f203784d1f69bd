#include "ops/matmul_grouped.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "base/rng.h"
#include "quant/quantize.h"

namespace mete {
namespace {

std::vector<float> random_floats(int64_t n, uint64_t seed) {
  std::vector<float> x(static_cast<size_t>(n));
  for (size_t i = 0; i < x.size(); ++i)
    x[i] = static_cast<float>(2 * random_unit(seed, i, Purpose::kTest) - 1);
  return x;
}

/// A packed random matrix.
struct Matrix {
  Matrix(DType type, int64_t rows, int64_t cols, uint64_t seed)
      : panels(static_cast<size_t>(panel_count(rows)) * panel_bytes(type, cols)) {
    const std::vector<float> values = random_floats(rows * cols, seed);
    const size_t stored = row_bytes(type, cols);
    std::vector<uint8_t> raw(stored * static_cast<size_t>(rows));
    for (int64_t r = 0; r < rows; ++r) {
      quantize_row(type, values.data() + r * cols, raw.data() + stored * static_cast<size_t>(r), cols);
    }
    for (int64_t r = 0; r < rows; r += kPanelRows) {
      pack_panel(type, raw.data() + stored * static_cast<size_t>(r),
                 static_cast<int>(std::min<int64_t>(kPanelRows, rows - r)), cols,
                 panels.data() + static_cast<size_t>(r / kPanelRows) * panel_bytes(type, cols));
    }
    linear.type = type;
    linear.rows = rows;
    linear.cols = cols;
    linear.panels = panels.data();
  }
  AlignedBuffer panels;
  Linear linear;
};

struct GroupedTest : ::testing::TestWithParam<DType> {};

// 64 groups of 1 to 512 rows, sorted, some contiguous, some shared by two weights: bit by bit what one row at
// a time gives, for every number of threads and in both numeric modes.
TEST_P(GroupedTest, EveryGroupGivesTheBitsOfSingleRows) {
  const DType type = GetParam();
  const int64_t cols = info(type).block == 256 ? 512 : 576, rows = 40, tokens = 512;
  const KernelTable table = make_kernel_table(choose_cpu_tier());
  const std::vector<float> x = random_floats(tokens * cols, 1), bias = random_floats(rows, 2);
  std::vector<Matrix> matrices;
  for (uint64_t i = 0; i < 6; ++i) matrices.emplace_back(i == 5 ? DType::kF16 : type, rows, cols, 10 + i);
  matrices[1].linear.bias = bias.data();

  for (const NumericMode mode : {NumericMode::kStandard, NumericMode::kReference}) {
    std::vector<std::vector<float>> expected;  // per matrix: [tokens][rows], one token at a time
    ThreadPool one(1);
    Context single{one, table, mode};
    const int64_t used = mode == NumericMode::kReference ? 70 : tokens;  // the reference is slow
    for (const Matrix& m : matrices) {
      expected.emplace_back(static_cast<size_t>(used * rows));
      for (int64_t t = 0; t < used; ++t) {
        matmul(single, x.data() + t * cols, 1, cols, m.linear, expected.back().data() + t * rows, rows);
      }
    }
    for (const int threads : {1, 2, 5}) {
      ThreadPool pool(threads);
      Context ctx{pool, table, mode};
      std::vector<std::vector<int32_t>> lists;
      for (const int64_t size :
           {1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 15, 16, 17, 31, 33, 64, 70, 200, 511, 512}) {
        if (size > used) continue;
        std::vector<int32_t> list;
        for (int32_t t = 0; t < used; ++t) list.push_back(t);
        const bool contiguous = size == 4 || size == 16;
        while (static_cast<int64_t>(list.size()) > size) {
          list.erase(contiguous
                         ? list.end() - 1
                         : list.begin() + static_cast<int64_t>(random_bits(3, list.size(), Purpose::kTest) %
                                                               list.size()));
        }
        lists.push_back(list);
      }
      std::vector<std::vector<float>> outs;
      std::vector<MatmulGroup> groups;
      std::vector<size_t> used_matrix;
      for (size_t i = 0; i < lists.size(); ++i) {
        for (size_t m : {i % 6, (i + 1) % 6}) {
          outs.emplace_back(lists[i].size() * static_cast<size_t>(rows + 3), -7.0f);
          used_matrix.push_back(m);
        }
      }
      for (size_t i = 0; i < outs.size(); ++i) {
        groups.push_back({&matrices[used_matrix[i]].linear, lists[i / 2], outs[i].data(), rows + 3});
      }
      GroupedInput input;
      input.reset(x.data(), used, cols);
      size_t gathered = 0, row_size = activation_row_bytes(activation_kind(type), cols);
      for (const std::vector<int32_t>& list : lists) gathered += list.size();
      if (mode == NumericMode::kReference || activation_kind(type) != ActivationKind::kF32) {
        row_size += activation_row_bytes(ActivationKind::kF32, cols);
      }
      ctx.gathered.get(
          matmul_grouped_bytes(threads, std::ssize(groups), static_cast<int64_t>(gathered), row_size));
      const size_t held = ctx.gathered.bytes();
      matmul_grouped(ctx, input, groups);
      EXPECT_EQ(ctx.gathered.bytes(), held);  // what was promised was enough
      for (size_t i = 0; i < outs.size(); ++i) {
        for (size_t t = 0; t < lists[i / 2].size(); ++t) {
          const float* row = outs[i].data() + t * static_cast<size_t>(rows + 3);
          const float* want = expected[used_matrix[i]].data() + lists[i / 2][t] * rows;
          ASSERT_EQ(0, std::memcmp(row, want, static_cast<size_t>(rows) * 4))
              << name(type) << ", group " << i << " of " << lists[i / 2].size() << " rows, row " << t << ", "
              << threads << " threads";
          for (int64_t n = rows; n < rows + 3; ++n) ASSERT_EQ(row[n], -7.0f);
        }
      }
    }
  }
}

// The input is quantised once, and again only after reset().
TEST(GroupedInput, FollowsReset) {
  const KernelTable table = make_kernel_table(choose_cpu_tier());
  ThreadPool pool(2);
  Context ctx{pool, table};
  const Matrix m(DType::kQ8_0, 16, 64, 5);
  std::vector<float> x = random_floats(2 * 64, 6), first(16), second(16), expected(16);
  const std::vector<int32_t> list{1};
  GroupedInput input;
  input.reset(x.data(), 2, 64);
  const MatmulGroup group{&m.linear, list, first.data(), 16};
  matmul_grouped(ctx, input, {&group, 1});
  for (float& v : x) v *= 3;
  input.reset(x.data(), 2, 64);
  const MatmulGroup again{&m.linear, list, second.data(), 16};
  matmul_grouped(ctx, input, {&again, 1});
  matmul(ctx, x.data() + 64, 1, 64, m.linear, expected.data(), 16);
  EXPECT_EQ(second, expected);
  EXPECT_NE(first, second);
}

INSTANTIATE_TEST_SUITE_P(Types, GroupedTest,
                         ::testing::Values(DType::kF32, DType::kF16, DType::kQ4_0, DType::kQ8_0,
                                           DType::kMXFP4, DType::kQ4_K, DType::kQ6_K),
                         [](const auto& tested) { return std::string(name(tested.param)); });

}  // namespace
}  // namespace mete
