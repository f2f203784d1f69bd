// Negative controls: what the rules of docs/numerics.md forbid does change bits on the very inputs of the
// matrix, so an equality there means something.
#include <gtest/gtest.h>

#include <cmath>

#include "exactness/machine.h"
#include "ops/elementwise.h"
#include "ops/matmul.h"
#include "testing/tiny_models.h"

namespace mete::testing {
namespace {

/// Pseudo-random values with full mantissas, so that products of two of them round.
std::vector<float> some_floats(size_t n, const char* what) {
  std::vector<float> values = tiny_weights(what, static_cast<int64_t>(n), 1.0f, 0.0f);
  for (float& v : values) v *= 1.1f;
  return values;
}

struct Kit {
  KernelTable kernels = make_kernel_table(supported_tiers().back());
  ThreadPool pool{2};
  Context ctx{pool, kernels};
};

// out = W x with W [rows][cols] in F32.
std::vector<float> product(Kit& kit, const std::vector<float>& w, int64_t rows, int64_t cols,
                           const float* x) {
  AlignedBuffer panels(panel_bytes(DType::kF32, cols) * static_cast<size_t>(panel_count(rows)));
  for (int64_t p = 0; p < panel_count(rows); ++p) {
    const int count = static_cast<int>(std::min<int64_t>(kPanelRows, rows - p * kPanelRows));
    pack_panel(DType::kF32, reinterpret_cast<const uint8_t*>(w.data() + p * kPanelRows * cols), count, cols,
               panels.data() + static_cast<size_t>(p) * panel_bytes(DType::kF32, cols));
  }
  const Linear linear{DType::kF32, rows, cols, panels.data(), nullptr};
  std::vector<float> out(static_cast<size_t>(rows));
  matmul(kit.ctx, x, 1, cols, linear, out.data(), rows);
  return out;
}

TEST(NegativeControl, SplittingKChangesBits) {
  Kit kit;
  const int64_t rows = 48, cols = 576;
  const std::vector<float> w = some_floats(rows * cols, "w"), x = some_floats(cols, "x");
  const std::vector<float> whole = product(kit, w, rows, cols, x.data());
  std::vector<float> left, right;
  for (int64_t r = 0; r < rows; ++r) {
    const auto row = w.begin() + r * cols;
    left.insert(left.end(), row, row + cols / 2);
    right.insert(right.end(), row + cols / 2, row + cols);
  }
  std::vector<float> split = product(kit, left, rows, cols / 2, x.data());
  const std::vector<float> second = product(kit, right, rows, cols / 2, x.data() + cols / 2);
  for (size_t i = 0; i < split.size(); ++i) split[i] += second[i];
  EXPECT_NE(hash_of(split), hash_of(whole));
  for (size_t i = 0; i < split.size(); ++i) EXPECT_NEAR(split[i], whole[i], 1e-3);
}

TEST(NegativeControl, UnfusedMultiplyAddChangesBits) {
  Kit kit;
  const int64_t rows = 16, cols = 576;
  const std::vector<float> w = some_floats(rows * cols, "w"), x = some_floats(cols, "x");
  const std::vector<float> fused = product(kit, w, rows, cols, x.data());
  std::vector<float> by_fma(rows, 0.0f), by_two_roundings(rows, 0.0f);
  for (size_t r = 0; r < by_fma.size(); ++r) {
    for (size_t k = 0; k < static_cast<size_t>(cols); ++k) {
      const float weight = w[r * static_cast<size_t>(cols) + k];
      by_fma[r] = std::fmaf(weight, x[k], by_fma[r]);
      const float product_rounded = weight * x[k];
      by_two_roundings[r] += product_rounded;
    }
  }
  EXPECT_EQ(hash_of(by_fma), hash_of(fused));
  EXPECT_NE(hash_of(by_two_roundings), hash_of(fused));
}

// A sum whose lane is the element's place in its chunk, not in its row, depends on the chunking.
TEST(NegativeControl, LanesByChunkSlotChangeBits) {
  const std::vector<float> x = some_floats(700, "x");
  const auto sum = [&](size_t chunk, bool by_slot) {
    float lanes[16] = {};
    for (size_t i = 0; i < x.size(); ++i) lanes[(by_slot ? i % chunk : i) % 16] += x[i] * x[i];
    float total = 0;
    for (const float lane : lanes) total += lane;
    return total;
  };
  EXPECT_EQ(sum(700, false), sum(7, false));
  EXPECT_NE(sum(700, true), sum(7, true));
}

// One bit of one activation is enough to change the hash of the logits.
TEST(NegativeControl, HashSeesTheLastBit) {
  std::vector<float> logits = some_floats(1000, "logits");
  const uint64_t before = hash_of(logits);
  logits[777] = std::nextafter(logits[777], 1e9f);
  EXPECT_NE(hash_of(logits), before);
}

}  // namespace
}  // namespace mete::testing
