// Block decoders against ggml's own (golden files) by equality of bits.
#include "quant/dequant.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <set>

#include "quant/golden.h"

namespace mete {
namespace {

TEST(Dequant, GoldenOfEveryTypeBitForBit) {
  std::set<DType> seen;
  for (const testing::QuantRecord& r : testing::read_quant_golden("dequant.bin")) {
    SCOPED_TRACE(name(r.type));
    seen.insert(r.type);
    std::vector<float> out(r.values.size());
    dequantize_row(r.type, r.blocks.data(), out.data(), static_cast<int64_t>(out.size()));
    for (size_t i = 0; i < out.size(); ++i) {
      const float want = r.values[i];
      // Minus zero times a scale: ggml's integer tables have lost the sign, and so have ours.
      ASSERT_EQ(std::memcmp(&out[i], &want, 4), 0)
          << "element " << i << ": " << out[i] << ", expected " << want;
    }
  }
  EXPECT_EQ(seen.size(), std::size(kAllDTypes));
}

TEST(Dequant, UnalignedSourceGivesTheSame) {
  for (const testing::QuantRecord& r : testing::read_quant_golden("dequant.bin")) {
    std::vector<uint8_t> shifted(r.blocks.size() + 1);
    std::memcpy(shifted.data() + 1, r.blocks.data(), r.blocks.size());
    std::vector<float> a(r.values.size()), b(r.values.size());
    dequantize_row(r.type, r.blocks.data(), a.data(), static_cast<int64_t>(a.size()));
    dequantize_row(r.type, shifted.data() + 1, b.data(), static_cast<int64_t>(b.size()));
    EXPECT_EQ(std::memcmp(a.data(), b.data(), a.size() * 4), 0) << name(r.type);
  }
}

TEST(Dequant, ZeroBytesAreZero) {
  for (const DType type : kAllDTypes) {
    const std::vector<uint8_t> zeros(row_bytes(type, 512));
    std::vector<float> out(512, 1.0f);
    dequantize_row(type, zeros.data(), out.data(), 512);
    for (const float x : out) ASSERT_EQ(x, 0.0f) << name(type);
  }
}

TEST(Dequant, Mxfp4Scale) {
  for (int e = 0; e < 256; ++e)
    EXPECT_EQ(mxfp4_scale(static_cast<uint8_t>(e)), std::ldexp(1.0f, e - 128)) << e;
}

}  // namespace
}  // namespace mete
