// The scalar definitions in double: against the float decoders, hand-computed values and identities.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "base/half.h"
#include "kernels/ref/attention.h"
#include "kernels/ref/dequant.h"
#include "kernels/ref/matmul.h"
#include "kernels/ref/rows.h"
#include "quant/dequant.h"

namespace mete {
namespace {

/// Random bytes whose float16 scales are finite.
std::vector<uint8_t> random_blocks(DType type, int64_t n, std::mt19937& engine) {
  std::vector<uint8_t> bytes(row_bytes(type, n));
  for (uint8_t& b : bytes) b = static_cast<uint8_t>(engine());
  const DTypeInfo& geometry = info(type);
  std::vector<size_t> scales;
  switch (type) {
    case DType::kF32:
    case DType::kBF16:
    case DType::kMXFP4:
      break;
    case DType::kQ2_K:
      scales = {80, 82};
      break;
    case DType::kQ3_K:
      scales = {108};
      break;
    case DType::kQ6_K:
      scales = {208};
      break;
    case DType::kQ4_1:
    case DType::kQ5_1:
    case DType::kQ4_K:
    case DType::kQ5_K:
      scales = {0, 2};
      break;
    default:
      scales = {0};
  }
  for (size_t b = 0; b < bytes.size(); b += static_cast<size_t>(geometry.bytes)) {
    for (const size_t at : scales) bytes[b + at + 1] &= 0xbf;  // exponent below 16: finite, |d| < 2
    if (type == DType::kF32) bytes[b + 3] &= 0xbf;
    if (type == DType::kBF16) bytes[b + 1] &= 0xbf;
    if (type == DType::kMXFP4 && bytes[b] > 250) bytes[b] = 250;
  }
  return bytes;
}

TEST(RefDequant, AgreesWithTheFloatDecodersOnRandomBlocks) {
  std::mt19937 engine(3);
  for (const DType type : kAllDTypes) {
    SCOPED_TRACE(name(type));
    const int64_t n = 256 * 200;
    const auto bytes = random_blocks(type, n, engine);
    std::vector<float> y(static_cast<size_t>(n));
    std::vector<double> exact(y.size());
    dequantize_row(type, bytes.data(), y.data(), n);
    dequantize_row_ref(type, bytes.data(), exact.data(), n);
    for (size_t i = 0; i < y.size(); ++i) {
      // Up to three float32 roundings, of terms that may cancel: |d * scale * q| and |dmin * min| are below
      // 2^12.
      const double bound = std::fabs(exact[i]) * 0x1p-23 + (info(type).block > 1 ? 0x1p-12 : 0.0);
      ASSERT_NEAR(static_cast<double>(y[i]), exact[i], bound) << i;
    }
  }
}

TEST(RefDequant, TypesOfOneProductAreExactUpToOneRounding) {
  std::mt19937 engine(4);
  for (const DType type :
       {DType::kQ4_0, DType::kQ5_0, DType::kQ8_0, DType::kIQ4_NL, DType::kMXFP4, DType::kF16, DType::kBF16}) {
    const auto bytes = random_blocks(type, 3200, engine);
    std::vector<float> y(3200);
    std::vector<double> exact(3200);
    dequantize_row(type, bytes.data(), y.data(), 3200);
    dequantize_row_ref(type, bytes.data(), exact.data(), 3200);
    for (size_t i = 0; i < y.size(); ++i)
      ASSERT_EQ(y[i], static_cast<float>(exact[i])) << name(type) << " " << i;
  }
}

TEST(RefMatmul, SmallProductByHand) {
  const float w[2][3] = {{1, 2, 3}, {-1, 0.5f, 4}};
  const float x[2][4] = {{1, 1, 1, 99}, {2, -4, 0.25f, 99}};
  uint8_t bytes[sizeof w];
  std::memcpy(bytes, w, sizeof w);
  double out[4];
  gemm_ref(DType::kF32, bytes, 2, 3, &x[0][0], 2, 4, out);
  EXPECT_EQ(out[0], 6.0);
  EXPECT_EQ(out[1], 3.5);
  EXPECT_EQ(out[2], 2 - 8 + 0.75);
  EXPECT_EQ(out[3], -2 - 2 + 1.0);
  gemm_abs_ref(DType::kF32, bytes, 2, 3, &x[0][0], 2, 4, out);
  EXPECT_EQ(out[2], 2 + 8 + 0.75);
}

TEST(RefRows, NormsSoftmaxActivations) {
  const float x[4] = {1, 2, 3, 4}, weight[4] = {1, 1, 2, 1}, bias[4] = {0, 0, 0, 10};
  double out[4];
  rms_norm_ref(x, weight, 0.5, 4, out);
  EXPECT_NEAR(out[2], 2 * 3 / std::sqrt(7.5 + 0.5), 1e-15);
  rms_norm_ref(x, nullptr, 0.0, 4, out);
  EXPECT_NEAR(out[0] * out[0] + out[1] * out[1] + out[2] * out[2] + out[3] * out[3], 4.0, 1e-14);
  layer_norm_ref(x, weight, bias, 0.0, 4, out);
  EXPECT_NEAR(out[3], 1.5 / std::sqrt(1.25) + 10, 1e-14);
  EXPECT_NEAR(out[0], -1.5 / std::sqrt(1.25), 1e-14);

  constexpr double kInf = std::numeric_limits<double>::infinity();
  const double logits[3] = {1000.0, 1000.0 + std::log(3.0), -kInf};
  softmax_ref(logits, 3, out);
  EXPECT_NEAR(out[0], 0.25, 1e-12);
  EXPECT_NEAR(out[1], 0.75, 1e-12);
  EXPECT_EQ(out[2], 0.0);
  const double hidden[2] = {-kInf, -kInf};
  softmax_ref(hidden, 2, out);
  EXPECT_EQ(out[0], 0.0);
  EXPECT_EQ(log_sum_exp_ref(hidden, 2), -kInf);
  EXPECT_EQ(log_sum_exp_ref(hidden, 0), -kInf);

  EXPECT_EQ(silu_ref(0.0), 0.0);
  EXPECT_NEAR(silu_ref(1.0), 0.7310585786300049, 1e-15);
  EXPECT_NEAR(gelu_tanh_ref(1.0), 0.8411919906082768, 1e-15);
  EXPECT_NEAR(gelu_erf_ref(1.0), 0.8413447460685429, 1e-15);
  EXPECT_NEAR(softcap_ref(1e9, 30.0), 30.0, 1e-12);
  EXPECT_NEAR(softcap_ref(0.001, 30.0), 0.001, 1e-12);
}

TEST(RefRows, RopeRotatesPairs) {
  const double frequencies[2] = {1.0, 0.5};
  double interleaved[5] = {1, 0, 0, 2, 7}, neox[5] = {1, 0, 0, 2, 7};
  rope_ref(interleaved, 2, 3.0, frequencies, 1.0, false);
  rope_ref(neox, 2, 3.0, frequencies, 2.0, true);
  EXPECT_NEAR(interleaved[0], std::cos(3.0), 1e-15);
  EXPECT_NEAR(interleaved[1], std::sin(3.0), 1e-15);
  EXPECT_NEAR(interleaved[2], -2 * std::sin(1.5), 1e-15);
  EXPECT_NEAR(interleaved[3], 2 * std::cos(1.5), 1e-15);
  EXPECT_NEAR(neox[0], 2 * std::cos(3.0), 1e-15);
  EXPECT_NEAR(neox[2], 2 * std::sin(3.0), 1e-15);
  EXPECT_NEAR(neox[1], -4 * std::sin(1.5), 1e-15);
  EXPECT_NEAR(neox[3], 4 * std::cos(1.5), 1e-15);
  EXPECT_EQ(neox[4], 7.0);
}

/// Two KV heads, four query heads, head size 2, three keys; values tell the keys apart.
struct AttentionCase {
  AttentionRef params{4, 2, 2, 0.5};
  std::vector<float> q{1, 0, 0, 1, 1, 1, -1, 2};
  std::vector<float> k{1, 2, 3, 4, 0, 1, -1, 1, 2, 2, 0.5f, -3};
  std::vector<float> v{1, 0, 2, 0, 0, 1, 0, 2, 5, 5, 6, 6};
  std::vector<double> out = std::vector<double>(8), lse = std::vector<double>(4);

  void run(int32_t position) {
    attention_ref(params, q.data(), {position}, k.data(), v.data(), {0, 1, 2}, out.data(), lse.data());
  }
};

TEST(RefAttention, CausalGroupedHeadsByHand) {
  AttentionCase c;
  c.run(1);  // sees keys 0 and 1; head 0 reads KV head 0: scores 0.5 * (1, 0)
  const double a = std::exp(0.5), b = 1.0;
  EXPECT_NEAR(c.out[0], a / (a + b), 1e-15);
  EXPECT_NEAR(c.out[1], b / (a + b), 1e-15);
  EXPECT_NEAR(c.lse[0], std::log(a + b), 1e-15);
  const double p = std::exp(0.5 * (3 + 4)), r = std::exp(0.5 * (-1 + 1));  // head 2 reads KV head 1
  EXPECT_NEAR(c.out[4], 2 * p / (p + r), 1e-15);
  EXPECT_NEAR(c.out[5], 2 * r / (p + r), 1e-15);
}

TEST(RefAttention, WindowMaskSinkSoftcapWeights) {
  AttentionCase c;
  c.params.window = 1;
  c.run(2);  // only key 2
  EXPECT_EQ(c.out[0], 5.0);
  EXPECT_EQ(c.out[6], 6.0);
  EXPECT_NEAR(c.lse[0], 0.5 * 2, 1e-15);

  const float sinks[4] = {1.0f, 0.0f, 0.0f, 0.0f};
  c.params.sinks = sinks;
  c.run(2);
  EXPECT_NEAR(c.out[0], 5.0 * 0.5, 1e-15);  // the sink's logit equals the key's
  EXPECT_NEAR(c.lse[0], 1.0 + std::log(2.0), 1e-15);

  c.params = AttentionRef{4, 2, 2, 0.5};
  const uint8_t mask[3] = {0, 0, 0};
  c.params.mask = mask;
  c.k[0] = std::numeric_limits<float>::quiet_NaN();
  c.v[0] = std::numeric_limits<float>::quiet_NaN();
  c.run(0);
  for (const double o : c.out) EXPECT_EQ(o, 0.0);
  EXPECT_EQ(c.lse[0], -std::numeric_limits<double>::infinity());
  const uint8_t future[3] = {0, 1, 1};  // a mask overrides causality; hidden key 0 holds NaN
  const float log_weights[3] = {0.0f, 0.0f, 1.0f};
  c.params.mask = future;
  c.params.log_weights = log_weights;
  c.params.softcap = 0.25;
  c.run(0);
  const double s1 = std::exp(0.0), s2 = std::exp(0.25 * std::tanh(0.5 * 2 / 0.25) + 1.0);
  EXPECT_NEAR(c.out[0], 5 * s2 / (s1 + s2), 1e-14);
}

}  // namespace
}  // namespace mete
