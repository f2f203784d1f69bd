// Matmul of the 32-block weight types: right (against sums in double), the same on every tier, for every
// number of tokens and every split of the panels, and from every compiler (hash).
#include "kernels/cpu/gemm_q32.h"

#include <gtest/gtest.h>
#include <xxhash.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "base/aligned.h"
#include "base/half.h"
#include "base/rng.h"
#include "kernels/cpu/table.h"
#include "quant/activation.h"
#include "quant/pack_types.h"

namespace mete {
namespace {

constexpr DType kTypes[] = {DType::kQ4_0, DType::kQ4_1,   DType::kQ5_0, DType::kQ5_1,
                            DType::kQ8_0, DType::kIQ4_NL, DType::kMXFP4};

KernelTable tier_table(CpuTier tier) {
  KernelTable table{};
  fill_gemm_q32(tier, table);
  return table;
}

uint64_t bits_at(uint64_t seed, size_t i) { return random_bits(seed, i, Purpose::kTest); }

bool has_min(DType type) { return type == DType::kQ4_1 || type == DType::kQ5_1; }

/// Rows of random blocks; the scales are halves near 1/32 of either sign, or MXFP4 exponents near 2^-8.
std::vector<uint8_t> random_rows(DType type, int64_t rows, int64_t cols, uint64_t seed) {
  const size_t block = static_cast<size_t>(info(type).bytes);
  std::vector<uint8_t> bytes(row_bytes(type, cols) * static_cast<size_t>(rows));
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(bits_at(seed, i));
  for (size_t i = 0; i < bytes.size(); i += block) {
    if (type == DType::kMXFP4) {
      bytes[i] = static_cast<uint8_t>(117 + bytes[i] % 6);
    } else {
      bytes[i + 1] = static_cast<uint8_t>((bytes[i + 1] & 0x83) | 0x28);
      if (has_min(type)) bytes[i + 3] = static_cast<uint8_t>((bytes[i + 3] & 0x83) | 0x30);
    }
  }
  return bytes;
}

std::vector<float> random_floats(size_t count, uint64_t seed) {
  std::vector<float> x(count);
  for (size_t i = 0; i < count; ++i) {
    x[i] = static_cast<float>(random_unit(seed, i, Purpose::kTest) +
                              random_unit(seed + 1, i, Purpose::kTest) - 1);
  }
  return x;
}

struct Panels {
  AlignedBuffer data;
  size_t stride;
  Panels(DType type, const std::vector<uint8_t>& rows, int64_t n, int64_t cols)
      : data(panel_bytes(type, cols) * static_cast<size_t>(panel_count(n))), stride(panel_bytes(type, cols)) {
    for (int64_t p = 0; p < panel_count(n); ++p) {
      const int64_t count = std::min<int64_t>(kPanelRows, n - p * kPanelRows);
      pack_panel_q32(type, &rows[static_cast<size_t>(p) * kPanelRows * row_bytes(type, cols)],
                     static_cast<int>(count), cols, data.data() + static_cast<size_t>(p) * stride);
    }
  }
};

struct Acts {
  AlignedBuffer data;
  size_t stride;
  Acts(const KernelTable& table, const std::vector<float>& x, int64_t tokens, int64_t cols)
      : data(Q8x16Layout(cols).bytes * static_cast<size_t>(tokens)), stride(Q8x16Layout(cols).bytes) {
    for (int64_t t = 0; t < tokens; ++t) {
      table.quantize_q8_16(&x[static_cast<size_t>(t * cols)], cols,
                           data.data() + static_cast<size_t>(t) * stride);
    }
  }
};

constexpr float kUntouched = -12345.0f;

/// out[tokens][rows + 3]; the three columns beyond the rows must stay untouched.
std::vector<float> multiply(const KernelTable& table, DType type, const Panels& panels, int64_t rows,
                            int64_t cols, const uint8_t* acts, size_t act_stride, int64_t tokens,
                            int64_t split = 0) {
  const int64_t stride = rows + 3;
  std::vector<float> out(static_cast<size_t>(tokens * stride), kUntouched);
  AlignedBuffer scratch(gemm_scratch_bytes(cols));
  GemmArgs args{panels.data.data(), panels.stride, rows, cols, acts,          act_stride, tokens,
                out.data(),         stride,        0,    0,    scratch.data()};
  const int64_t count = panel_count(rows);
  // The later panels first: a call that wrote past its range would be seen.
  args.panel_begin = split, args.panel_end = count;
  table.gemm[static_cast<int>(type)](args);
  args.panel_begin = 0, args.panel_end = split;
  if (split > 0) table.gemm[static_cast<int>(type)](args);
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t n = rows; n < stride; ++n) EXPECT_EQ(out[static_cast<size_t>(t * stride + n)], kUntouched);
  }
  return out;
}

/// Value of element e of a GGUF block, in double, written from the format's description.
double weight_at(DType type, const uint8_t* block, int e) {
  constexpr int kNl[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
  constexpr double kE2m1[16] = {0, .5, 1, 1.5, 2, 3, 4, 6, -0., -.5, -1, -1.5, -2, -3, -4, -6};
  const auto half = [&](int at) {
    return static_cast<double>(to_float(Half{static_cast<uint16_t>(block[at] | block[at + 1] << 8)}));
  };
  const auto nibble = [&](int at) { return e < 16 ? block[at + e] & 15 : block[at + e - 16] >> 4; };
  const auto bit = [&](int at) { return (block[at + e / 8] >> (e % 8) & 1) * 16; };
  switch (type) {
    case DType::kQ4_0:
      return half(0) * (nibble(2) - 8);
    case DType::kQ4_1:
      return half(0) * nibble(4) + half(2);
    case DType::kQ5_0:
      return half(0) * (nibble(6) + bit(2) - 16);
    case DType::kQ5_1:
      return half(0) * (nibble(8) + bit(4)) + half(2);
    case DType::kQ8_0:
      return half(0) * static_cast<int8_t>(block[2 + e]);
    case DType::kIQ4_NL:
      return half(0) * kNl[nibble(2)];
    default:
      return std::ldexp(kE2m1[nibble(1)], block[0] - 127);  // MXFP4
  }
}

TEST(GemmQ32, OffsetsAreThoseOfTheActivationLayout) {
  for (int64_t cols = 32; cols <= 4096; cols += 32) {
    const Q8x16Layout layout(cols);
    const Q32Offsets at = q32_offsets(cols);
    ASSERT_EQ(at.d, static_cast<int64_t>(layout.d));
    ASSERT_EQ(at.s, static_cast<int64_t>(layout.s));
    ASSERT_EQ(at.sum, static_cast<int64_t>(layout.sum));
  }
}

TEST(GemmQ32, AgreesWithSumsInDouble) {
  const int64_t rows = 33, tokens = 9;
  for (CpuTier tier : supported_tiers()) {
    const KernelTable table = tier_table(tier);
    for (DType type : kTypes) {
      for (int64_t cols : {32, 576, 1536}) {
        const std::vector<uint8_t> weights = random_rows(type, rows, cols, 11);
        const Acts acts(table, random_floats(static_cast<size_t>(tokens * cols), 5), tokens, cols);
        const std::vector<float> out = multiply(table, type, Panels(type, weights, rows, cols), rows, cols,
                                                acts.data.data(), acts.stride, tokens);
        double error = 0, norm = 0;
        for (int64_t t = 0; t < tokens; ++t) {
          const uint8_t* act = acts.data.data() + static_cast<size_t>(t) * acts.stride;
          for (int64_t n = 0; n < rows; ++n) {
            double y = 0;
            for (int64_t k = 0; k < cols; ++k) {
              float d;
              std::memcpy(&d, act + Q8x16Layout(cols).d + k / 16 * 4, 4);
              const uint8_t* row = &weights[static_cast<size_t>(n) * row_bytes(type, cols)];
              y += weight_at(type, row + k / 32 * info(type).bytes, static_cast<int>(k % 32)) *
                   static_cast<double>(d) * static_cast<int8_t>(act[k]);
            }
            const double got = static_cast<double>(out[static_cast<size_t>(t * (rows + 3) + n)]);
            error += (got - y) * (got - y), norm += y * y;
          }
        }
        EXPECT_LT(std::sqrt(error / norm), 1e-6) << name(tier) << " " << name(type) << " K " << cols;
      }
    }
  }
}

TEST(GemmQ32, EveryTierGivesTheBitsOfGeneric) {
  const KernelTable generic = tier_table(CpuTier::kGeneric);
  const int64_t max_tokens = 70;
  for (DType type : kTypes) {
    for (int64_t cols : {32, 64, 576, 1536, 4896}) {
      for (int64_t rows : {1, 15, 16, 17, 33, 100}) {
        if (cols > 576 && rows != 33 && rows != 100) continue;
        if (cols == 4896 && rows == 100) continue;
        const Panels panels(type, random_rows(type, rows, cols, 3), rows, cols);
        const Acts acts(generic, random_floats(static_cast<size_t>(max_tokens * cols), 17), max_tokens, cols);
        const std::vector<float> expected =
            multiply(generic, type, panels, rows, cols, acts.data.data(), acts.stride, max_tokens);
        for (CpuTier tier : supported_tiers()) {
          if (tier == CpuTier::kGeneric) continue;
          const KernelTable table = tier_table(tier);
          for (int64_t tokens : {1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 31, 33, 64, 70}) {
            const std::vector<float> out = multiply(table, type, panels, rows, cols, acts.data.data(),
                                                    acts.stride, tokens, panel_count(rows) / 2);
            ASSERT_EQ(std::memcmp(out.data(), expected.data(), out.size() * 4), 0)
                << name(tier) << " " << name(type) << " M " << tokens << " N " << rows << " K " << cols;
          }
        }
      }
    }
  }
}

TEST(GemmQ32, ARowDoesNotDependOnTheOthers) {
  const int64_t rows = 40, cols = 608, tokens = 70;
  for (CpuTier tier : supported_tiers()) {
    const KernelTable table = tier_table(tier);
    for (DType type : kTypes) {
      const Panels panels(type, random_rows(type, rows, cols, 29), rows, cols);
      const Acts acts(table, random_floats(static_cast<size_t>(tokens * cols), 31), tokens, cols);
      const std::vector<float> all =
          multiply(table, type, panels, rows, cols, acts.data.data(), acts.stride, tokens);
      for (int64_t t = 0; t < tokens; ++t) {
        const std::vector<float> one =
            multiply(table, type, panels, rows, cols, acts.data.data() + static_cast<size_t>(t) * acts.stride,
                     acts.stride, 1);
        ASSERT_EQ(std::memcmp(one.data(), &all[static_cast<size_t>(t * (rows + 3))], one.size() * 4), 0)
            << name(tier) << " " << name(type) << " row " << t;
      }
    }
  }
}

/// Activation rows written by hand: every q is `q`, d = 1/2 and 1/4 by turns.
AlignedBuffer constant_acts(int q, int64_t tokens, int64_t cols) {
  const Q8x16Layout layout(cols);
  AlignedBuffer data(layout.bytes * static_cast<size_t>(tokens));
  for (int64_t t = 0; t < tokens; ++t) {
    uint8_t* row = data.data() + static_cast<size_t>(t) * layout.bytes;
    std::memset(row, q, static_cast<size_t>(cols));
    const float d[2] = {0.5f, 0.25f}, s = 0.75f * static_cast<float>(16 * q);
    const int32_t sum[2] = {16 * q, 16 * q};
    for (size_t b = 0; b < static_cast<size_t>(cols / 32); ++b) {
      std::memcpy(row + layout.d + 8 * b, d, 8);
      std::memcpy(row + layout.s + 4 * b, &s, 4);
      std::memcpy(row + layout.sum + 8 * b, sum, 8);
    }
  }
  return data;
}

TEST(GemmQ32, ExtremeBytes) {
  const int64_t rows = 17, cols = 96, tokens = 8;
  for (DType type : kTypes) {
    for (int byte : {0x00, 0xff, 0x80, 0x7f, 0x88, 0x0f, 0xf0}) {
      std::vector<uint8_t> weights(row_bytes(type, cols) * static_cast<size_t>(rows),
                                   static_cast<uint8_t>(byte));
      const size_t block = static_cast<size_t>(info(type).bytes);
      for (size_t i = 0; i < weights.size(); i += block) {
        if (type == DType::kMXFP4) {
          weights[i] = 127;
        } else {
          weights[i] = 0, weights[i + 1] = 0x3c;                         // 1.0
          if (has_min(type)) weights[i + 2] = 0, weights[i + 3] = 0xc0;  // -2.0
        }
      }
      const Panels panels(type, weights, rows, cols);
      for (int q : {127, -127, 0, 1}) {
        const AlignedBuffer acts = constant_acts(q, tokens, cols);
        double expected = 0;
        for (int k = 0; k < cols; ++k) {
          expected += weight_at(type, weights.data(), k % 32) * q * (k % 32 < 16 ? 0.5 : 0.25);
        }
        for (CpuTier tier : supported_tiers()) {
          for (int64_t m : {int64_t{1}, tokens}) {
            const std::vector<float> out =
                multiply(tier_table(tier), type, panels, rows, cols, acts.data(), Q8x16Layout(cols).bytes, m);
            for (int64_t t = 0; t < m; ++t) {
              for (int64_t n = 0; n < rows; ++n) {
                ASSERT_EQ(static_cast<double>(out[static_cast<size_t>(t * (rows + 3) + n)]), expected)
                    << name(tier) << " " << name(type) << " bytes " << byte << " activation " << q;
              }
            }
          }
        }
      }
    }
  }
}

TEST(GemmQ32, EveryScaleGivesTheBitsOfGeneric) {
  // All 65536 halves (and all 256 exponents) as scales and minimums, against rows with zero blocks, denormal
  // results and non-finite blocks.
  const int64_t cols = 128, rows = 65536 / 4, tokens = 9;
  const KernelTable generic = tier_table(CpuTier::kGeneric);
  std::vector<float> x = random_floats(static_cast<size_t>(tokens * cols), 41);
  for (size_t i = 0; i < 32; ++i) x[128 + i] = 0;            // zero block
  for (size_t i = 0; i < 16; ++i) x[176 + i] = 0;            // half a block
  for (size_t i = 0; i < 128; ++i) x[256 + i] *= 0x1p-118f;  // denormal products
  for (size_t i = 0; i < 48; ++i) x[384 + i] *= 0x1p-125f;   // below the floor
  x[512 + 40] = std::numeric_limits<float>::infinity();
  x[640 + 5] = -std::numeric_limits<float>::quiet_NaN();
  for (size_t i = 0; i < 128; ++i) x[768 + i] *= 0x1p120f;  // overflowing sums
  const Acts acts(generic, x, tokens, cols);
  for (DType type : kTypes) {
    std::vector<uint8_t> weights = random_rows(type, rows, cols, 43);
    const size_t block = static_cast<size_t>(info(type).bytes);
    for (size_t i = 0; i < weights.size() / block; ++i) {
      uint8_t* p = &weights[i * block];
      p[0] = static_cast<uint8_t>(i);
      if (type == DType::kMXFP4) continue;
      p[1] = static_cast<uint8_t>(i >> 8);
      if (has_min(type))
        p[2] = static_cast<uint8_t>(i * 40503u >> 3), p[3] = static_cast<uint8_t>(i * 40503u >> 11);
    }
    const Panels panels(type, weights, rows, cols);
    const std::vector<float> expected =
        multiply(generic, type, panels, rows, cols, acts.data.data(), acts.stride, tokens);
    for (CpuTier tier : supported_tiers()) {
      for (int64_t m : {int64_t{1}, int64_t{2}, tokens}) {
        const std::vector<float> out =
            multiply(tier_table(tier), type, panels, rows, cols, acts.data.data(), acts.stride, m);
        ASSERT_EQ(std::memcmp(out.data(), expected.data(), out.size() * 4), 0)
            << name(tier) << " " << name(type);
      }
    }
    // A non-finite activation makes every output of its token NaN, with one bit pattern.
    for (int64_t t : {4, 5}) {
      for (int64_t n = 0; n < rows; ++n) {
        uint32_t bits;
        std::memcpy(&bits, &expected[static_cast<size_t>(t * (rows + 3) + n)], 4);
        ASSERT_EQ(bits, 0x7fc00000u);
      }
    }
  }
}

TEST(QuantizeQ8x16, MatchesItsDefinitionAndGeneric) {
  const int64_t cols = 16 * 8192;
  std::vector<float> x(static_cast<size_t>(cols));
  for (size_t i = 0; i < x.size(); ++i) {  // floats of all magnitudes, one exponent range per 16
    const uint64_t r = bits_at(51, i);
    const uint32_t exponent = static_cast<uint32_t>(i / 16 * 254 / 8192 + (r >> 60 & 1));
    const uint32_t bits = static_cast<uint32_t>(r & 0x807fffffu) | exponent << 23;
    std::memcpy(&x[i], &bits, 4);
  }
  for (size_t i = 0; i < 48; ++i) x[i] = 0;
  for (size_t i = 0; i < 16; ++i) x[3200 + i] = static_cast<float>(i) - 0.5f;  // ties once scaled
  x[3200] = 127, x[3215] = -127;
  x[6400 + 31] = std::numeric_limits<float>::infinity();  // the second half of its block
  x[6432] = std::numeric_limits<float>::signaling_NaN();  // the first
  const Acts expected(tier_table(CpuTier::kGeneric), x, 1, cols);
  const Q8x16Layout layout(cols);
  for (CpuTier tier : supported_tiers()) {
    const Acts acts(tier_table(tier), x, 1, cols);
    ASSERT_EQ(std::memcmp(acts.data.data(), expected.data.data(), expected.data.bytes()), 0) << name(tier);
  }
  const uint8_t* row = expected.data.data();
  std::vector<float> d(static_cast<size_t>(cols / 16)), minimum(d.size() / 2);
  std::vector<int32_t> sum(d.size());
  std::memcpy(d.data(), row + layout.d, d.size() * 4);
  std::memcpy(minimum.data(), row + layout.s, minimum.size() * 4);
  std::memcpy(sum.data(), row + layout.sum, sum.size() * 4);
  const auto bits = [](float y) {
    uint32_t u;
    std::memcpy(&u, &y, 4);
    return u;
  };
  for (size_t b = 0; b < d.size(); ++b) {
    float amax = 0;
    int32_t total = 0;
    bool finite = true;
    for (size_t i = 0; i < 16; ++i) {
      finite = finite && std::isfinite(x[16 * b + i]);
      amax = std::max(amax, std::fabs(x[16 * b + i]));
      total += static_cast<int8_t>(row[16 * b + i]);
    }
    ASSERT_EQ(sum[b], total);
    if (!finite) {
      ASSERT_EQ(bits(d[b]), 0x7fc00000u);
      for (size_t i = 0; i < 16; ++i) ASSERT_EQ(row[16 * b + i], 0);
      continue;
    }
    ASSERT_EQ(d[b], amax < 0x1p-120f ? 0.0f : amax / 127.0f);
    for (size_t i = 0; i < 16; ++i) {
      const double q = static_cast<int8_t>(row[16 * b + i]);
      const double exact =
          d[b] == 0 ? 0 : static_cast<double>(x[16 * b + i]) * 127.0 / static_cast<double>(amax);
      ASSERT_LE(std::fabs(q - exact), 0.5 + 1e-4) << b;
      ASSERT_LE(std::fabs(q), 127);
    }
  }
  for (size_t b = 0; b < minimum.size(); ++b) {
    if (std::isnan(d[2 * b]) || std::isnan(d[2 * b + 1])) {
      ASSERT_EQ(bits(minimum[b]), 0x7fc00000u);
      continue;
    }
    const float first = d[2 * b] * static_cast<float>(sum[2 * b]);
    ASSERT_EQ(bits(minimum[b]), bits(std::fma(d[2 * b + 1], static_cast<float>(sum[2 * b + 1]), first)));
  }
  EXPECT_EQ(bits(minimum[200]), 0x7fc00000u);
  EXPECT_EQ(bits(minimum[201]), 0x7fc00000u);
  EXPECT_NE(bits(d[400]), 0x7fc00000u);
  EXPECT_EQ(bits(d[401]), 0x7fc00000u);
  EXPECT_EQ(static_cast<int8_t>(row[3200 + 2]), 2);  // 1.5 to even
  EXPECT_EQ(static_cast<int8_t>(row[3200 + 3]), 2);  // 2.5 to even
}

TEST(QuantizeQ8x16, AnyNumberOfBlocksGivesTheBitsOfGeneric) {
  for (int64_t cols : {32, 64, 96, 544, 576}) {
    for (int64_t wild = -1; wild < cols; wild += 11) {
      std::vector<float> x = random_floats(static_cast<size_t>(cols), 71);
      if (wild >= 0) x[static_cast<size_t>(wild)] = std::numeric_limits<float>::infinity();
      const Acts expected(tier_table(CpuTier::kGeneric), x, 1, cols);
      for (CpuTier tier : supported_tiers()) {
        const Acts acts(tier_table(tier), x, 1, cols);
        ASSERT_EQ(std::memcmp(acts.data.data(), expected.data.data(), expected.data.bytes()), 0)
            << name(tier) << " K " << cols << " infinity at " << wild;
      }
    }
  }
}

/// Fixed input, so that every compiler, optimisation level and machine must print one number.
TEST(GemmQ32, GoldenHash) {
  const int64_t rows = 50, cols = 1120, tokens = 7;
  for (CpuTier tier : supported_tiers()) {
    const KernelTable table = tier_table(tier);
    uint64_t hash = 0;
    for (DType type : kTypes) {
      const Acts acts(table, random_floats(static_cast<size_t>(tokens * cols), 61), tokens, cols);
      const std::vector<float> out =
          multiply(table, type, Panels(type, random_rows(type, rows, cols, 67), rows, cols), rows, cols,
                   acts.data.data(), acts.stride, tokens);
      hash = XXH64(out.data(), out.size() * 4, hash);
    }
    EXPECT_EQ(hash, 15665382453911178495ULL) << name(tier);
  }
}

}  // namespace
}  // namespace mete
