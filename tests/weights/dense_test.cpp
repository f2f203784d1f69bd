#include "weights/dense.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>

#include "quant/dequant.h"
#include "quant/quantize.h"
#include "testing/gguf_writer.h"

namespace mete {
namespace {

using testing::GgufWriter;

std::vector<uint8_t> quantised(DType type, int64_t rows, int64_t cols, uint32_t seed) {
  std::vector<float> x(static_cast<size_t>(rows * cols));
  uint32_t state = seed;
  for (float& v : x) {
    state = state * 1664525u + 1013904223u;
    v = static_cast<float>(state >> 8) * 0x1p-23f - 1.0f;
  }
  std::vector<uint8_t> out(row_bytes(type, cols) * static_cast<size_t>(rows));
  quantize_row(type, x.data(), out.data(), rows * cols);
  return out;
}

struct DenseWeightsTest : ::testing::Test {
  GgufFile file() {
    bytes = writer.bytes();
    return GgufFile::parse(bytes).value();
  }
  ThreadPool pool{3};
  KernelTable table{};
  Context ctx{pool, table};
  GgufWriter writer;
  std::vector<uint8_t> bytes;
};

/// The message of the Error that `call` throws; "" if none.
template <typename F>
std::string message_of(F&& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.message();
  }
  return "";
}

TEST_F(DenseWeightsTest, PanelsUnpackToTheBytesOfTheFile) {
  for (const DType type : kAllDTypes) {
    const int64_t cols = 512;
    for (const int64_t rows : {1, 16, 17, 1000}) {
      writer = GgufWriter();
      const std::vector<uint8_t> a = quantised(type, rows, cols, 1), b = quantised(type, rows, cols, 2);
      writer.tensor("a", type, {cols, rows}, a).tensor("b", type, {cols, rows}, b);
      const GgufFile gguf = file();
      DenseWeights weights(gguf);
      Linear first, second;
      weights.matrix("a", rows, cols, &first);
      weights.matrix("b", rows, cols, &second);
      weights.check_all_claimed();
      weights.load(ctx, 0, {});
      std::vector<uint8_t> row(row_bytes(type, cols));
      for (int64_t r = 0; r < rows; ++r) {
        for (const auto& [linear, source] : {std::pair{&first, &a}, std::pair{&second, &b}}) {
          ASSERT_EQ(linear->rows, rows);
          unpack_row(type, linear->panels + static_cast<size_t>(r / 16) * linear->stride(),
                     static_cast<int>(r % 16), cols, row.data());
          ASSERT_TRUE(
              std::equal(row.begin(), row.end(), source->begin() + r * static_cast<int64_t>(row.size())))
              << name(type) << " row " << r << " of " << rows;
        }
      }
    }
  }
}

TEST_F(DenseWeightsTest, PartsOfAFusedMatrixEqualThatMatrix) {
  const int64_t cols = 64;
  const std::vector<uint8_t> all = quantised(DType::kQ8_0, 5 + 24 + 3, cols, 7);
  writer.tensor("qkv", DType::kQ8_0, {cols, 32}, all);
  writer.tensor("qkv.bias", DType::kF32, {32}, quantised(DType::kF32, 1, 32, 8));
  const GgufFile gguf = file();
  DenseWeights weights(gguf);
  Linear parts[3];
  const MatrixPart split[] = {{5, &parts[0]}, {24, &parts[1]}, {3, &parts[2]}};
  weights.matrix_parts("qkv", cols, split);
  const VectorPart biases[] = {{5, &parts[0].bias}, {24, &parts[1].bias}, {3, &parts[2].bias}};
  EXPECT_TRUE(weights.optional_vector_parts("qkv.bias", biases));
  weights.load(ctx, 0, {});
  EXPECT_EQ(weights.matrix_elements(), 32 * cols);
  const std::vector<uint8_t> bias = quantised(DType::kF32, 1, 32, 8);
  std::vector<uint8_t> row(row_bytes(DType::kQ8_0, cols));
  int64_t stored = 0;
  for (const Linear& part : parts) {
    for (int64_t r = 0; r < part.rows; ++r, ++stored) {
      unpack_row(part.type, part.panels + static_cast<size_t>(r / 16) * part.stride(),
                 static_cast<int>(r % 16), cols, row.data());
      EXPECT_TRUE(
          std::equal(row.begin(), row.end(), all.begin() + stored * static_cast<int64_t>(row.size())));
      EXPECT_EQ(std::memcmp(&part.bias[r], bias.data() + stored * 4, 4), 0);
    }
  }
}

// Rows 20 .. 52 of a matrix, transposed: float types keep their type, others become F32.
TEST_F(DenseWeightsTest, TransposedPartsHoldTheDequantisedValues) {
  for (const DType type : kAllDTypes) {
    const int64_t cols = 256, rows = 60, first = 20, count = 33;
    writer = GgufWriter();
    const std::vector<uint8_t> raw = quantised(type, rows, cols, 3);
    writer.tensor("a", type, {cols, rows}, raw);
    const GgufFile gguf = file();
    DenseWeights weights(gguf);
    Linear linear;
    const GgufTensor& tensor = weights.stacked("a");
    weights.transposed_part(tensor, first, count, &linear);
    weights.load(ctx, 0, {});
    const bool floats = type == DType::kF32 || type == DType::kF16 || type == DType::kBF16;
    ASSERT_EQ(linear.type, floats ? type : DType::kF32);
    ASSERT_EQ(linear.rows, cols);
    ASSERT_EQ(linear.cols, count);
    std::vector<float> values(static_cast<size_t>(cols)), row(static_cast<size_t>(count));
    std::vector<uint8_t> packed(row_bytes(linear.type, count));
    for (int64_t r = 0; r < count; ++r) {
      dequantize_row(type, raw.data() + static_cast<size_t>(first + r) * row_bytes(type, cols), values.data(),
                     cols);
      for (int64_t c = 0; c < cols; ++c) {
        unpack_row(linear.type, linear.panels + static_cast<size_t>(c / 16) * linear.stride(),
                   static_cast<int>(c % 16), count, packed.data());
        dequantize_row(linear.type, packed.data(), row.data(), count);
        ASSERT_EQ(row[static_cast<size_t>(r)], values[static_cast<size_t>(c)]) << name(type) << r << ' ' << c;
      }
    }
  }
}

TEST_F(DenseWeightsTest, TablesBecomeFloatsAndMayBeMissing) {
  writer.tensor("t", DType::kF16, {8, 3}, quantised(DType::kF16, 3, 8, 1));
  writer.tensor("q", DType::kQ8_0, {32, 2}, quantised(DType::kQ8_0, 2, 32, 1));
  const GgufFile gguf = file();
  DenseWeights weights(gguf);
  const float *t = nullptr, *none = nullptr;
  EXPECT_TRUE(weights.optional_table("t", 3, 8, &t));
  EXPECT_FALSE(weights.optional_table("missing", 3, 8, &none));
  EXPECT_EQ(message_of([&] { weights.optional_table("q", 2, 32, &none); }),
            "tensor \"q\" has type Q8_0, expected F32, F16 or BF16");
  weights.load(ctx, 0, {});
  const std::vector<uint8_t> raw = quantised(DType::kF16, 3, 8, 1);
  std::vector<float> values(24);
  dequantize_row(DType::kF16, raw.data(), values.data(), 24);
  EXPECT_TRUE(std::equal(values.begin(), values.end(), t));
  EXPECT_EQ(none, nullptr);
}

TEST_F(DenseWeightsTest, VectorsBecomeFloats) {
  writer.tensor("f32", DType::kF32, {3}, quantised(DType::kF32, 1, 3, 1));
  writer.tensor("f16", DType::kF16, {2}, {0x00, 0x3c, 0x00, 0xc0});    // 1, -2
  writer.tensor("bf16", DType::kBF16, {2}, {0x80, 0x3f, 0x00, 0xc0});  // 1, -2
  const GgufFile gguf = file();
  DenseWeights weights(gguf);
  const float *f32 = nullptr, *f16 = nullptr, *bf16 = nullptr, *absent = nullptr;
  weights.vector("f32", 3, &f32);
  weights.vector("f16", 2, &f16);
  weights.vector("bf16", 2, &bf16);
  EXPECT_FALSE(weights.optional_vector("absent", 4, &absent));
  weights.load(ctx, 0, {});
  EXPECT_EQ(std::memcmp(f32, quantised(DType::kF32, 1, 3, 1).data(), 12), 0);
  EXPECT_THAT(std::vector<float>(f16, f16 + 2), ::testing::ElementsAre(1.0f, -2.0f));
  EXPECT_THAT(std::vector<float>(bf16, bf16 + 2), ::testing::ElementsAre(1.0f, -2.0f));
  EXPECT_EQ(absent, nullptr);
}

TEST_F(DenseWeightsTest, WrongDeclarationsNameTheTensor) {
  writer.tensor("m", DType::kQ4_0, {32, 2}, quantised(DType::kQ4_0, 2, 32, 1));
  writer.tensor("v", DType::kQ4_0, {32}, quantised(DType::kQ4_0, 1, 32, 1));
  writer.tensor("spare", DType::kF32, {1}, {0, 0, 0, 0});
  const GgufFile gguf = file();
  Linear linear;
  const float* data = nullptr;
  const auto declare = [&](auto&& call) {
    DenseWeights weights(gguf);
    return message_of([&] { call(weights); });
  };
  EXPECT_EQ(declare([&](auto& w) { w.matrix("x", 2, 32, &linear); }), "tensor \"x\" is missing");
  EXPECT_EQ(declare([&](auto& w) { w.vector("x", 2, &data); }), "tensor \"x\" is missing");
  EXPECT_EQ(declare([&](auto& w) { w.matrix("m", 3, 32, &linear); }),
            "tensor \"m\" is 32 x 2, expected 32 x 3");
  EXPECT_EQ(declare([&](auto& w) { w.matrix("m", 2, 64, &linear); }),
            "tensor \"m\" is 32 x 2, expected 64 x 2");
  EXPECT_EQ(declare([&](auto& w) { w.vector("m", 32, &data); }), "tensor \"m\" is 32 x 2, expected 32");
  EXPECT_EQ(declare([&](auto& w) { w.vector("v", 32, &data); }),
            "tensor \"v\" has type Q4_0, expected F32, F16 or BF16");
  EXPECT_EQ(declare([&](auto& w) {
              w.matrix("m", 2, 32, &linear);
              w.matrix("m", 2, 32, &linear);
            }),
            "tensor \"m\" is used twice");
  EXPECT_EQ(declare([&](auto& w) {
              w.matrix("m", 2, 32, &linear);
              w.claim("v");
              w.claim("absent");
              w.check_all_claimed();
            }),
            "tensor \"spare\" (F32, 1) is not part of this architecture");
}

TEST_F(DenseWeightsTest, TooLittleMemoryIsAnErrorBeforeAnyWork) {
  writer.tensor("m", DType::kF32, {4, 4}, quantised(DType::kF32, 4, 4, 1));
  const GgufFile gguf = file();
  DenseWeights weights(gguf);
  Linear linear;
  weights.matrix("m", 4, 4, &linear);
  const std::string message = message_of([&] { weights.load(ctx, int64_t{1} << 50, {}); });
  EXPECT_THAT(message,
              ::testing::MatchesRegex("out of memory: the model needs [0-9]+ bytes, [0-9]+ bytes are "
                                      "available"));
  EXPECT_EQ(linear.panels, nullptr);
}

TEST_F(DenseWeightsTest, ProgressEndsAtTheTotal) {
  writer.tensor("m", DType::kF32, {512, 4096}, quantised(DType::kF32, 4096, 512, 1));
  writer.tensor("v", DType::kF16, {8}, quantised(DType::kF16, 1, 8, 1));
  const GgufFile gguf = file();
  DenseWeights weights(gguf);
  Linear linear;
  const float* data = nullptr;
  weights.matrix("m", 4096, 512, &linear);
  weights.vector("v", 8, &data);
  std::vector<int64_t> seen;
  ReadOptions options;
  options.progress_user = &seen;
  options.progress = [](void* user, int64_t done, int64_t total) {
    EXPECT_EQ(total, 4096 * 512 * 4 + 8 * 2);
    static_cast<std::vector<int64_t>*>(user)->push_back(done);
  };
  weights.load(ctx, 0, options);
  EXPECT_TRUE(std::is_sorted(seen.begin(), seen.end()));
  EXPECT_EQ(seen.back(), 4096 * 512 * 4 + 8 * 2);
}

TEST_F(DenseWeightsTest, FileTruncatedMeanwhileIsARunTimeErrorNamingIt) {
  writer.tensor("m", DType::kF32, {512, 64}, quantised(DType::kF32, 64, 512, 1));
  const std::string path = ::testing::TempDir() + "mete_truncated_" + std::to_string(::getpid()) + ".gguf";
  writer.save(path);
  const GgufFile gguf = GgufFile::open(path).value();
  DenseWeights weights(gguf);
  Linear linear;
  weights.matrix("m", 64, 512, &linear);
  ASSERT_EQ(::truncate(path.c_str(), 70000), 0);
  try {
    weights.load(ctx, 0, {});
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::kRuntime);
    EXPECT_THAT(error.message(), ::testing::HasSubstr(path));
  }
  std::remove(path.c_str());
}

}  // namespace
}  // namespace mete
