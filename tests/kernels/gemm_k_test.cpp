#include <gtest/gtest.h>

#include "base/cpu.h"
#include "kernels/cpu/table.h"
#include "testing/gemm_fixture.h"

namespace mete {
namespace {

using namespace mete::testing;

constexpr int64_t kTokenCounts[] = {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 64, 70};
constexpr DType kTypes[] = {DType::kQ2_K, DType::kQ3_K, DType::kQ4_K,
                            DType::kQ5_K, DType::kQ6_K, DType::kIQ4_XS};

KernelTable table_of(CpuTier tier) {
  KernelTable table{};
  fill_gemm_k(tier, table);
  return table;
}
GemmFn kernel(DType type, CpuTier tier) { return table_of(tier).gemm[static_cast<int>(type)]; }

/// Offsets of the float16 fields of a super-block.
std::vector<int> half_offsets(DType type) {
  switch (type) {
    case DType::kQ2_K:
      return {80, 82};
    case DType::kQ3_K:
      return {108};
    case DType::kQ4_K:
    case DType::kQ5_K:
      return {0, 2};
    case DType::kQ6_K:
      return {208};
    default:
      return {0};
  }
}

enum class Fill { kRandom, kZeros, kOnes, kWildScales };

/// Random bytes with scales like a real model's; kOnes sets all quant and scale bits; kWildScales also leaves
/// the float16 fields random (subnormals, infinities, NaN).
PackedMatrix make_matrix(DType type, int64_t rows, int64_t cols, uint64_t seed, Fill fill = Fill::kRandom) {
  Random random(seed);
  std::vector<uint8_t> bytes(row_bytes(type, cols) * static_cast<size_t>(rows));
  for (auto& b : bytes)
    b = fill == Fill::kZeros  ? uint8_t{0}
        : fill == Fill::kOnes ? uint8_t{0xff}
                              : static_cast<uint8_t>(random.bits());
  if (fill != Fill::kWildScales)
    for (size_t block = 0; block < bytes.size(); block += static_cast<size_t>(info(type).bytes))
      for (int offset : half_offsets(type)) {
        const Half h = to_half(random.normal() * 0.01f);
        std::memcpy(bytes.data() + block + static_cast<size_t>(offset), &h.bits, 2);
      }
  return PackedMatrix(type, rows, cols, std::move(bytes));
}

size_t stride_of(int64_t cols) { return activation_row_bytes(ActivationKind::kQ8_K, cols); }

std::vector<float> random_floats(int64_t count, uint64_t seed) {
  Random random(seed);
  std::vector<float> x(static_cast<size_t>(count));
  for (auto& v : x) v = random.normal();
  return x;
}

AlignedBuffer quantised(const std::vector<float>& x, int64_t cols, CpuTier tier = CpuTier::kGeneric) {
  const int64_t tokens = static_cast<int64_t>(x.size()) / cols;
  AlignedBuffer acts(stride_of(cols) * static_cast<size_t>(tokens));
  for (int64_t t = 0; t < tokens; ++t)
    table_of(tier).quantize_q8_k(x.data() + t * cols, cols,
                                 acts.data() + static_cast<size_t>(t) * stride_of(cols));
  return acts;
}

/// Independent decoder, from the block formats' published description.
std::vector<double> dequantise(DType type, const uint8_t* p, int64_t cols) {
  static constexpr int kTable[] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
  std::vector<double> y(static_cast<size_t>(cols));
  const auto half = [](const uint8_t* at) {
    uint16_t bits;
    std::memcpy(&bits, at, 2);
    return double{to_float(Half{bits})};
  };
  for (int64_t b = 0; b < cols / 256; ++b, p += info(type).bytes) {
    double* out = y.data() + b * 256;
    if (type == DType::kQ2_K || type == DType::kQ3_K) {
      const bool q3 = type == DType::kQ3_K;
      const uint8_t *qs = p + (q3 ? 32 : 16), *sc = q3 ? p + 96 : p;
      for (int h = 0; h < 2; ++h)
        for (int s = 0; s < 4; ++s)
          for (int l = 0; l < 32; ++l) {
            const int i = 8 * h + 2 * s + l / 16, q = (qs[32 * h + l] >> 2 * s) & 3;
            double& v = out[128 * h + 32 * s + l];
            if (q3) {
              const int scale = (i < 8 ? sc[i] & 15 : sc[i - 8] >> 4) | ((sc[8 + i % 4] >> 2 * (i / 4)) & 3)
                                                                            << 4;
              v = half(p + 108) * (scale - 32) * (q - ((p[l] >> (4 * h + s)) & 1 ? 0 : 4));
            } else {
              v = half(p + 80) * (sc[i] & 15) * q - half(p + 82) * (sc[i] >> 4);
            }
          }
    } else if (type == DType::kQ4_K || type == DType::kQ5_K) {
      const bool q5 = type == DType::kQ5_K;
      const uint8_t *sc = p + 4, *qs = p + (q5 ? 48 : 16);
      for (int k = 0; k < 256; ++k) {
        const int j = k / 32, byte = qs[k / 64 * 32 + k % 32];
        int q = j % 2 ? byte >> 4 : byte & 15;
        if (q5) q += 16 * ((p[16 + k % 32] >> j) & 1);
        const int scale = j < 4 ? sc[j] & 63 : (sc[j + 4] & 15) | (sc[j - 4] >> 6) << 4;
        const int min = j < 4 ? sc[j + 4] & 63 : (sc[j + 4] >> 4) | (sc[j] >> 6) << 4;
        out[k] = half(p) * scale * q - half(p + 2) * min;
      }
    } else if (type == DType::kQ6_K) {
      for (int h = 0; h < 2; ++h)
        for (int t = 0; t < 4; ++t)
          for (int l = 0; l < 32; ++l) {
            const int byte = p[64 * h + 32 * (t % 2) + l];
            const int q = (t < 2 ? byte & 15 : byte >> 4) + 16 * ((p[128 + 32 * h + l] >> 2 * t) & 3) - 32;
            out[128 * h + 32 * t + l] =
                half(p + 208) * static_cast<int8_t>(p[192 + 8 * h + 2 * t + l / 16]) * q;
          }
    } else {
      const int sh = p[2] | p[3] << 8;
      for (int i = 0; i < 8; ++i) {
        const int scale = ((p[4 + i / 2] >> 4 * (i % 2)) & 15) | ((sh >> 2 * i) & 3) << 4;
        for (int j = 0; j < 16; ++j) {
          out[32 * i + j] = half(p) * (scale - 32) * kTable[p[8 + 16 * i + j] & 15];
          out[32 * i + 16 + j] = half(p) * (scale - 32) * kTable[p[8 + 16 * i + j] >> 4];
        }
      }
    }
  }
  return y;
}

TEST(QuantizeQ8K, AgainstTheDefinition) {
  const int64_t cols = 768;
  const auto x = random_floats(cols, 1);
  const AlignedBuffer row = quantised(x, cols);
  const Q8KLayout layout(cols);
  for (int64_t b = 0; b < cols / 32; ++b) {
    float amax = 0;
    for (int64_t k = b * 32; k < (b + 1) * 32; ++k)
      amax = std::max(amax, std::fabs(x[static_cast<size_t>(k)]));
    const float d = reinterpret_cast<const float*>(row.data() + layout.d)[b];
    EXPECT_EQ(d, amax / 127.0f);
    for (int64_t j = b * 2; j < (b + 1) * 2; ++j) {
      int sum = 0;
      for (int64_t k = j * 16; k < (j + 1) * 16; ++k) {
        const int q = reinterpret_cast<const int8_t*>(row.data())[k];
        EXPECT_EQ(q, static_cast<int>(std::nearbyint(x[static_cast<size_t>(k)] * (127.0f / amax))));
        EXPECT_LE(std::fabs(x[static_cast<size_t>(k)] - d * static_cast<float>(q)), 0.5001f * d);
        sum += q;
      }
      EXPECT_EQ(reinterpret_cast<const int16_t*>(row.data() + layout.sum)[j], sum);
    }
  }
}

/// Super-blocks: normal, zero, below 2^-120, huge, halfway cases, one NaN, one infinity, subnormal beside
/// normal.
std::vector<float> awkward_floats() {
  auto x = random_floats(256 * 9, 2);
  for (int i = 0; i < 256; ++i) {
    const size_t k = static_cast<size_t>(i);
    x[256 + k] = 0;
    x[512 + k] *= 0x1p-124f;
    x[768 + k] *= 0x1p125f;
    x[1024 + k] = i % 32 == 0 ? 127.0f : static_cast<float>(i * 7 % 253 - 126) + 0.5f;
    x[2048 - 256 + k] *= i % 2 ? 1.0f : 0x1p-140f;
  }
  x[1024 + 64] = -127;
  x[1280 + 77] = std::bit_cast<float>(0xffc01234u);
  x[1536 + 13] = -INFINITY;
  x[2048 + 5] = 0x1p-119f;
  return x;
}

TEST(QuantizeQ8K, TiersEqualGeneric) {
  const auto x = awkward_floats();
  const auto cols = static_cast<int64_t>(x.size());
  const AlignedBuffer expected = quantised(x, cols);
  const auto* d = reinterpret_cast<const uint32_t*>(expected.data() + Q8KLayout(cols).d);
  for (size_t b = 8; b < 24; ++b) EXPECT_EQ(d[b], 0u);
  for (size_t b = 32; b < 40; ++b) EXPECT_EQ(d[b], std::bit_cast<uint32_t>(1.0f));
  for (size_t b = 40; b < 56; ++b)  // only the NaN's and the infinity's own blocks
    EXPECT_EQ(d[b] == 0x7fc00000u, b == (1280 + 77) / 32 || b == (1536 + 13) / 32) << b;
  for (CpuTier tier : supported_tiers()) {
    const AlignedBuffer got = quantised(x, cols, tier);
    EXPECT_EQ(std::memcmp(got.data(), expected.data(), expected.bytes()), 0) << name(tier);
  }
}

TEST(GemmK, GenericAgainstDouble) {
  for (DType type : kTypes)
    for (Fill fill : {Fill::kRandom, Fill::kOnes}) {
      const int64_t cols = 1536, rows = 33, tokens = 5;
      const PackedMatrix w = make_matrix(type, rows, cols, 11, fill);
      const AlignedBuffer acts = quantised(random_floats(tokens * cols, 12), cols);
      std::vector<double> expected;
      for (int64_t t = 0; t < tokens; ++t) {
        const uint8_t* act = acts.data() + static_cast<size_t>(t) * stride_of(cols);
        const auto* d = reinterpret_cast<const float*>(act + Q8KLayout(cols).d);
        for (int64_t n = 0; n < rows; ++n) {
          const auto y =
              dequantise(type, w.source.data() + static_cast<size_t>(n) * row_bytes(type, cols), cols);
          double sum = 0;
          for (int64_t k = 0; k < cols; ++k)
            sum += double{d[k / 32]} * reinterpret_cast<const int8_t*>(act)[k] * y[static_cast<size_t>(k)];
          expected.push_back(sum);
        }
      }
      const auto got = run_gemm(kernel(type, CpuTier::kGeneric), w, acts, stride_of(cols), tokens);
      ASSERT_EQ(got.size(), expected.size());
      EXPECT_LT(relative_error(got, expected), 1e-6) << name(type);
    }
}

void expect_tiers_equal(const PackedMatrix& w, const AlignedBuffer& acts, int64_t all_tokens) {
  const auto expected = run_gemm(kernel(w.type, CpuTier::kGeneric), w, acts, stride_of(w.cols), all_tokens);
  for (CpuTier tier : supported_tiers()) {
    for (int64_t tokens : kTokenCounts) {
      if (tokens > all_tokens) break;
      const auto got = run_gemm(kernel(w.type, tier), w, acts, stride_of(w.cols), tokens);
      ASSERT_TRUE(same_bits(got, {expected.begin(), expected.begin() + tokens * w.rows}))
          << name(w.type) << ' ' << name(tier) << " M " << tokens << " N " << w.rows << " K " << w.cols;
    }
    const auto single = run_gemm(kernel(w.type, tier), w, acts, stride_of(w.cols), 1, all_tokens - 1);
    ASSERT_TRUE(same_bits(single, {expected.end() - w.rows, expected.end()}))
        << name(w.type) << ' ' << name(tier);
  }
}

TEST(GemmK, TiersEqualGenericAndRowsEqualSingleRows) {
  for (int64_t cols : {256, 512, 1536, 4864}) {
    const AlignedBuffer acts = quantised(random_floats(70 * cols, 22), cols);
    for (DType type : kTypes)
      for (int64_t rows : {1, 15, 16, 17, 33, 100}) {
        if (cols > 1000 && rows != 33) continue;
        expect_tiers_equal(make_matrix(type, rows, cols, 21), acts, 70);
      }
  }
}

// More super-blocks than one pass of the SIMD tiers takes.
TEST(GemmK, VeryLongRows) {
  const int64_t cols = 65 * 256;
  const AlignedBuffer acts = quantised(random_floats(17 * cols, 24), cols);
  for (DType type : {DType::kQ4_K, DType::kQ6_K})
    expect_tiers_equal(make_matrix(type, 17, cols, 23), acts, 17);
}

TEST(GemmK, ExtremeBytesAndActivations) {
  const int64_t cols = 768;
  std::vector<float> x(static_cast<size_t>(17 * cols));
  for (size_t i = 0; i < x.size(); ++i) {  // +127, -127, alternating
    const size_t t = i / static_cast<size_t>(cols);
    x[i] = t % 3 == 0 ? 1.0f : t % 3 == 1 ? -1.0f : i % 2 ? 1.0f : -1.0f;
  }
  const AlignedBuffer acts = quantised(x, cols);
  for (DType type : kTypes)
    for (Fill fill : {Fill::kZeros, Fill::kOnes, Fill::kRandom})
      expect_tiers_equal(make_matrix(type, 33, cols, 31, fill), acts, 17);
}

TEST(GemmK, WildScalesAndNonFiniteActivations) {
  const auto one = awkward_floats();
  const auto cols = static_cast<int64_t>(one.size());
  auto x = random_floats(9 * cols, 41);
  std::copy(one.begin(), one.end(), x.begin() + 3 * cols);
  std::copy(one.begin(), one.begin() + 1280, x.begin() + 7 * cols);
  const AlignedBuffer acts = quantised(x, cols);
  for (DType type : kTypes) {
    expect_tiers_equal(make_matrix(type, 33, cols, 42, Fill::kWildScales), acts, 9);
    expect_tiers_equal(make_matrix(type, 33, cols, 43), acts, 9);
  }
}

// The same numbers for every compiler and machine.
TEST(GemmK, GoldenBits) {
  const uint64_t golden[] = {7410351934197578998u,  13154056425726958459u, 12014556093338456242u,
                             11183504694112466097u, 3231527544046007216u,  496744180017486068u};
  const int64_t cols = 1536, tokens = 9;
  const AlignedBuffer acts = quantised(random_floats(tokens * cols, 52), cols);
  for (int i = 0; i < 6; ++i) {
    const PackedMatrix w = make_matrix(kTypes[i], 33, cols, 51);
    for (CpuTier tier : supported_tiers())
      EXPECT_EQ(hash_bits(run_gemm(kernel(kTypes[i], tier), w, acts, stride_of(cols), tokens)), golden[i])
          << name(kTypes[i]) << ' ' << name(tier);
  }
}

}  // namespace
}  // namespace mete
