#include "weights/resident_experts.h"

#include <gtest/gtest.h>

#include <cstring>

#include "base/rng.h"
#include "testing/gguf_writer.h"

namespace mete {
namespace {

constexpr int64_t kExperts = 5, kFfn = 96, kD = 64;  // 96 rows are whole panels, 40 of `odd` are not

std::vector<uint8_t> random_bytes(size_t n, uint64_t seed) {
  std::vector<uint8_t> bytes(n);
  for (size_t i = 0; i < n; ++i) bytes[i] = static_cast<uint8_t>(random_bits(seed, i, Purpose::kTest));
  return bytes;
}

/// Row `row` of a Linear, as stored in the file.
std::vector<uint8_t> stored_row(const Linear& linear, int64_t row) {
  std::vector<uint8_t> out(row_bytes(linear.type, linear.cols));
  unpack_row(linear.type, linear.panels + static_cast<size_t>(row / kPanelRows) * linear.stride(),
             static_cast<int>(row % kPanelRows), linear.cols, out.data());
  return out;
}

struct Built {
  std::vector<uint8_t> bytes;
  std::vector<uint8_t> gate, up, down;  // raw tensors, [experts][rows][cols]
  bool fused;
};

Built build(bool fused, int64_t ffn) {
  Built b;
  b.fused = fused;
  const size_t wide = row_bytes(DType::kQ4_0, kD) * static_cast<size_t>(ffn);
  const size_t deep = row_bytes(DType::kF16, ffn) * static_cast<size_t>(kD);
  b.gate = random_bytes(wide * kExperts, 1);
  b.up = random_bytes(wide * kExperts, 2);
  b.down = random_bytes(deep * kExperts, 3);
  testing::GgufWriter writer;
  writer.set("general.architecture", std::string_view("x"));
  if (fused) {
    std::vector<uint8_t> both;
    for (size_t e = 0; e < kExperts; ++e) {
      const auto at = static_cast<int64_t>(e * wide), end = static_cast<int64_t>((e + 1) * wide);
      both.insert(both.end(), b.gate.begin() + at, b.gate.begin() + end);
      both.insert(both.end(), b.up.begin() + at, b.up.begin() + end);
    }
    writer.tensor("up", DType::kQ4_0, {kD, 2 * ffn, kExperts}, both);
  } else {
    writer.tensor("gate", DType::kQ4_0, {kD, ffn, kExperts}, b.gate);
    writer.tensor("up", DType::kQ4_0, {kD, ffn, kExperts}, b.up);
  }
  writer.tensor("down", DType::kF16, {ffn, kD, kExperts}, b.down);
  b.bytes = writer.bytes();
  return b;
}

ExpertDeclaration declare(const GgufFile& file, int64_t ffn) {
  ExpertDeclaration e;
  e.experts = kExperts;
  e.used = 2;
  e.d_model = kD;
  e.ffn = ffn;
  e.layers.push_back({file.find("gate"), file.find("up"), file.find("down")});
  return e;
}

void expect_rows(const Linear& linear, const uint8_t* raw, int64_t rows, int64_t cols) {
  ASSERT_EQ(linear.rows, rows);
  ASSERT_EQ(linear.cols, cols);
  const size_t bytes = row_bytes(linear.type, cols);
  for (int64_t r = 0; r < rows; ++r) {
    ASSERT_EQ(0, std::memcmp(stored_row(linear, r).data(), raw + static_cast<size_t>(r) * bytes, bytes));
  }
}

TEST(ResidentExperts, EveryExpertHasItsRowsOfStackedAndOfFusedTensors) {
  const KernelTable table{};
  ThreadPool pool(2);
  Context ctx{pool, table};
  for (const bool fused : {false, true}) {
    for (const int64_t ffn : {kFfn, int64_t{40}}) {
      const Built built = build(fused, ffn);
      const GgufFile file = GgufFile::parse(built.bytes).value();
      ExpertDeclaration e = declare(file, ffn);
      std::vector<float> bias(static_cast<size_t>(kExperts * ffn));
      e.layers[0].up_bias = bias.data();
      check_experts(e);
      EXPECT_EQ(stored_expert_bytes(e, e.layers[0]) * kExperts,
                static_cast<int64_t>(built.gate.size() + built.up.size() + built.down.size()));
      int64_t done = 0;
      ReadOptions read;
      read.progress = [](void* user, int64_t bytes, int64_t) { *static_cast<int64_t*>(user) = bytes; };
      read.progress_user = &done;
      read.done_before = 1000;
      ResidentExperts experts(ctx, file, e, read);
      EXPECT_EQ(done, 1000 + stored_expert_bytes(e, e.layers[0]) * kExperts);
      const ExpertDemand demands[] = {{0, 1}, {2, 3}, {4, 1}};
      experts.begin(0, demands);
      const std::span<const ExpertSource::Ready> ready = experts.next().value();
      ASSERT_EQ(ready.size(), 3u);
      for (size_t i = 0; i < 3; ++i) {
        EXPECT_EQ(ready[i].demand, static_cast<int32_t>(i));
        const ExpertWeights& w = ready[i].weights;
        const int64_t id = demands[i].expert;
        expect_rows(w.gate, built.gate.data() + built.gate.size() / kExperts * static_cast<size_t>(id), ffn,
                    kD);
        expect_rows(w.up, built.up.data() + built.up.size() / kExperts * static_cast<size_t>(id), ffn, kD);
        expect_rows(w.down, built.down.data() + built.down.size() / kExperts * static_cast<size_t>(id), kD,
                    ffn);
        EXPECT_EQ(w.up.bias, bias.data() + id * ffn);
        EXPECT_EQ(w.gate.bias, nullptr);
        EXPECT_EQ(w.down.bias, nullptr);
      }
      EXPECT_TRUE(experts.next().value().empty());
      experts.end();
    }
  }
}

TEST(ResidentExperts, ShapesThatDoNotFitAreNamed) {
  const Built built = build(false, kFfn);
  const GgufFile file = GgufFile::parse(built.bytes).value();
  ExpertDeclaration e = declare(file, kFfn);
  e.ffn = 80;
  try {
    check_experts(e);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.message(), "tensor \"gate\" is 64 x 96 x 5, expected 64 x 80 x 5");
  }
  const Built fused = build(true, kFfn);
  const GgufFile other = GgufFile::parse(fused.bytes).value();
  e = declare(other, kFfn);
  e.experts = 6;
  EXPECT_THROW(check_experts(e), Error);
}

}  // namespace
}  // namespace mete
