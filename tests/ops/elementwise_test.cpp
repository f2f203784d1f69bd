#include "ops/elementwise.h"

#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <vector>

#include "base/rng.h"

namespace mete {
namespace {

struct ElementwiseTest : ::testing::TestWithParam<int> {
  ElementwiseTest() { fill_floats(supported_tiers().back(), table); }
  static std::vector<float> random(int64_t n, uint64_t seed) {
    std::vector<float> x(static_cast<size_t>(n));
    for (size_t i = 0; i < x.size(); ++i) {
      x[i] = static_cast<float>(8.0 * random_unit(seed, i, Purpose::kTest) - 4.0);
    }
    return x;
  }
  KernelTable table{};
  ThreadPool pool{GetParam()};
  Context ctx{pool, table};
};

// However rows and elements are split, each op is its kernel on each row.
TEST_P(ElementwiseTest, EveryOpIsItsKernelOnEachRow) {
  for (int64_t n : {576, 1001}) {
    for (int64_t rows : {1, 3, 64, 100}) {
      const std::vector<float> a = random(rows * n, 1), b = random(rows * n, 2), w = random(n, 3);
      using Op = std::function<void(float* x)>;
      using Kernel = std::function<void(int64_t offset, float* out)>;
      const FloatKernels& f = table.floats;
      const std::vector<std::pair<Op, Kernel>> cases = {
          {[&](float* x) { rms_norm(ctx, x, w.data(), 1e-5f, rows, n, x); },
           [&](int64_t i, float* out) { f.rms_norm(a.data() + i, w.data(), 1e-5f, n, out); }},
          {[&](float* x) { layer_norm(ctx, x, w.data(), w.data(), 1e-5f, rows, n, x); },
           [&](int64_t i, float* out) { f.layer_norm(a.data() + i, w.data(), w.data(), 1e-5f, n, out); }},
          {[&](float* x) { add_in_place(ctx, x, b.data(), rows, n); },
           [&](int64_t i, float* out) { f.add(a.data() + i, b.data() + i, n, out); }},
          {[&](float* x) { scale_in_place(ctx, x, 0.7f, rows, n); },
           [&](int64_t i, float* out) { f.scale(a.data() + i, 0.7f, n, out); }},
          {[&](float* x) { mul_rows(ctx, x, w.data(), rows, n, x); },
           [&](int64_t i, float* out) { f.mul(a.data() + i, w.data(), n, out); }},
          {[&](float* x) { gaussian_topk(ctx, x, 0.7f, rows, n); },
           [&](int64_t i, float* out) { f.gaussian_topk(a.data() + i, 0.7f, n, out); }},
          {[&](float* x) { silu_mul(ctx, x, b.data(), rows, n, x); },
           [&](int64_t i, float* out) { f.silu_mul(a.data() + i, b.data() + i, n, out); }},
          {[&](float* x) { gelu_mul(ctx, x, b.data(), rows, n, x); },
           [&](int64_t i, float* out) { f.gelu_mul(a.data() + i, b.data() + i, n, out); }},
          {[&](float* x) { swiglu_clamped(ctx, x, b.data(), rows, n, x); },
           [&](int64_t i, float* out) {
             f.swiglu_clamped(a.data() + i, b.data() + i, 1.702f, 7.0f, n, out);
           }},
          {[&](float* x) { softcap_in_place(ctx, x, 3.0f, rows, n); },
           [&](int64_t i, float* out) { f.softcap(a.data() + i, 3.0f, n, out); }},
      };
      for (size_t c = 0; c < cases.size(); ++c) {
        std::vector<float> got = a, want(a.size());
        cases[c].first(got.data());
        for (int64_t r = 0; r < rows; ++r) cases[c].second(r * n, want.data() + r * n);
        EXPECT_EQ(std::memcmp(got.data(), want.data(), want.size() * sizeof(float)), 0) << c << ' ' << rows;
      }
      std::vector<RowStats> stats(static_cast<size_t>(rows));
      row_stats(ctx, a.data(), rows, n, stats.data());
      for (int64_t r = 0; r < rows; ++r) {
        const RowStats want = f.row_stats(a.data() + r * n, n);
        EXPECT_EQ(stats[static_cast<size_t>(r)].argmax, want.argmax);
        EXPECT_EQ(stats[static_cast<size_t>(r)].entropy, want.entropy);
      }
    }
  }
}

TEST_P(ElementwiseTest, CopyRowsMovesRowsBetweenStrides) {
  const int64_t rows = 500, n = 40;
  const std::vector<float> x = random(rows * 56, 1);
  std::vector<float> out(static_cast<size_t>(rows * 72), -1.0f);
  copy_rows(ctx, x.data() + 8, 56, rows, n, out.data() + 16, 72);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < 72; ++i) {
      const bool copied = i >= 16 && i < 16 + n && r * 72 + i < rows * 72;
      ASSERT_EQ(out[static_cast<size_t>(r * 72 + i)],
                copied ? x[static_cast<size_t>(r * 56 + 8 + i - 16)] : -1.0f);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Threads, ElementwiseTest, ::testing::Values(1, 2, 3));

}  // namespace
}  // namespace mete
