#include "kernels/cpu/attention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "base/half.h"
#include "base/rng.h"
#include "kernels/cpu/table.h"

namespace mete {
namespace {

constexpr KvType kTypes[] = {KvType::kF32, KvType::kF16, KvType::kBF16, KvType::kQ8_0};

AttentionKernels kernels_of(CpuTier tier) {
  KernelTable table{};
  fill_attention(tier, table);
  return table.attention;
}

std::vector<float> random_floats(size_t n, uint64_t seed, float scale) {
  std::vector<float> x(n);
  for (size_t i = 0; i < n; ++i) {
    x[i] = scale * static_cast<float>(2.0 * random_unit(seed, i, Purpose::kTest) - 1.0);
  }
  return x;
}

/// Values at the edges of half, bfloat16 and the quantiser, beside ordinary ones.
std::vector<float> awkward_floats(int64_t n) {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  const float edges[] = {0.0f,    -0.0f,  1e-8f, -6e-8f, 6.1e-5f,  65504.0f, 65519.9f, 65520.0f, 1e30f,
                         3.4e38f, 1e-40f, -1.0f, 0.5f,   1.00049f, 2049.5f,  inf,      -inf,     nan};
  std::vector<float> x = random_floats(static_cast<size_t>(n), 3, 2.0f);
  for (size_t i = 0; i < x.size(); i += 5) x[i] = edges[i / 5 % (sizeof edges / sizeof edges[0])];
  return x;
}

TEST(AttentionKernels, EveryTierStoresAndReadsTheSameBytes) {
  const AttentionKernels generic = kernels_of(CpuTier::kGeneric);
  for (CpuTier tier : supported_tiers()) {
    const AttentionKernels k = kernels_of(tier);
    for (KvType type : kTypes) {
      for (int64_t head_dim : {8, 32, 64, 80, 128, 256}) {
        if (type == KvType::kQ8_0 && head_dim % 32 != 0) continue;
        const size_t key_bytes = key_tile_bytes(type, head_dim),
                     value_bytes = value_tile_bytes(type, head_dim);
        std::vector<uint8_t> keys[2], values[2];
        std::vector<float> read[2];
        for (int which = 0; which < 2; ++which) {
          const AttentionKernels& f = which == 0 ? generic : k;
          keys[which].resize(key_bytes, 0);
          values[which].resize(value_bytes, 0);
          for (int slot = 0; slot < 16; ++slot) {
            const std::vector<float> x = slot % 2 == 0 ? awkward_floats(head_dim + slot)
                                                       : random_floats(static_cast<size_t>(head_dim),
                                                                       static_cast<uint64_t>(slot), 3.0f);
            f.store_key(type, x.data(), head_dim, slot, keys[which].data());
            f.store_value(type, x.data(), head_dim, slot, values[which].data());
          }
          const size_t n = static_cast<size_t>(16 * value_stride(head_dim));
          std::vector<float> a(n), b(n), c(n), d(n);
          f.expand_keys(type, keys[which].data(), head_dim, a.data());
          f.expand_values(type, values[which].data(), head_dim, b.data());
          for (int slot = 0; slot < 16; ++slot) {
            f.gather_key(type, keys[which].data(), slot, head_dim, slot, c.data());
            f.gather_value(type, values[which].data(), slot, head_dim, slot, d.data());
          }
          for (size_t i = 0; i < n; ++i) {
            ASSERT_TRUE(a[i] == c[i] || (std::isnan(a[i]) && std::isnan(c[i]))) << i;
            ASSERT_TRUE(b[i] == d[i] || (std::isnan(b[i]) && std::isnan(d[i]))) << i;
          }
          for (const auto* part : {&a, &b}) {
            for (float v : *part) read[which].push_back(std::isnan(v) ? 12345.0f : v);
          }
        }
        EXPECT_EQ(keys[0], keys[1]) << name(tier) << ' ' << static_cast<int>(type) << ' ' << head_dim;
        EXPECT_EQ(values[0], values[1]) << name(tier) << ' ' << static_cast<int>(type) << ' ' << head_dim;
        EXPECT_EQ(std::memcmp(read[0].data(), read[1].data(), read[0].size() * sizeof(float)), 0);
      }
    }
  }
}

TEST(AttentionKernels, CodecsReadBackWhatTheyShould) {
  const AttentionKernels k = kernels_of(supported_tiers().back());
  const std::vector<float> x = random_floats(64, 5, 3.0f);
  for (KvType type : kTypes) {
    std::vector<uint8_t> tile(key_tile_bytes(type, 64));
    std::vector<float> out(64 * 16);
    k.store_key(type, x.data(), 64, 5, tile.data());
    k.expand_keys(type, tile.data(), 64, out.data());
    for (size_t d = 0; d < 64; ++d) {
      const float got = out[d * 16 + 5];
      float want = x[d], tolerance = 0.0f;
      if (type == KvType::kF16) want = to_float(to_half(x[d]));
      if (type == KvType::kBF16) want = to_float(to_bfloat16(x[d]));
      if (type == KvType::kQ8_0) tolerance = 3.0f / 127.0f * 0.5f + 3.0f * 6e-4f;
      EXPECT_NEAR(got, want, tolerance);
    }
  }
}

TEST(AttentionKernels, ABlockWithANanReadsBackAsNan) {
  for (CpuTier tier : supported_tiers()) {
    const AttentionKernels k = kernels_of(tier);
    std::vector<float> x = random_floats(64, 6, 1.0f), out(16 * 64);
    x[40] = std::numeric_limits<float>::infinity();
    std::vector<uint8_t> tile(value_tile_bytes(KvType::kQ8_0, 64));
    k.store_value(KvType::kQ8_0, x.data(), 64, 0, tile.data());
    k.expand_values(KvType::kQ8_0, tile.data(), 64, out.data());
    for (size_t d = 0; d < 64; ++d) EXPECT_EQ(std::isnan(out[d]), d >= 32) << d;
  }
}

/// One split: random keys everywhere, NaN in lanes that no mask shows.
struct SplitProblem {
  int64_t head_dim, value_dim, vectors;
  KvType type;
  std::vector<uint8_t> keys, values;
  std::vector<float> q;
  std::vector<uint16_t> masks;
  SplitProblem(int64_t head_dim_, int64_t value_dim_, int64_t vectors_, KvType type_, uint64_t seed)
      : head_dim(head_dim_), value_dim(value_dim_), vectors(vectors_), type(type_) {
    const AttentionKernels k = kernels_of(CpuTier::kGeneric);
    keys.assign(key_tile_bytes(type, head_dim) * 16, 0xff);
    values.assign(value_tile_bytes(type, value_dim) * 16, 0xff);
    masks.assign(static_cast<size_t>(vectors) * 16, 0);
    q = random_floats(static_cast<size_t>(head_dim * vectors), seed, 1.0f);
    for (int64_t v = 0; v < vectors; ++v) {
      for (int j = 0; j < 256; ++j) {
        const uint64_t dice = random_bits(seed, static_cast<uint64_t>(v * 256 + j), Purpose::kTest);
        const bool causal = j < 100 + 3 * v && j > 2 * v, hole = j % 37 == 5 || (v % 3 == 0 && dice % 4 == 0);
        if (causal && !hole)
          masks[static_cast<size_t>(v * 16 + j / 16)] |= static_cast<uint16_t>(1u << (j % 16));
      }
    }
    for (int j = 0; j < 256; ++j) {
      bool shown = false;
      for (int64_t v = 0; v < vectors; ++v)
        shown = shown || ((masks[static_cast<size_t>(v * 16 + j / 16)] >> (j % 16)) & 1);
      if (!shown) continue;
      const size_t tile = static_cast<size_t>(j / 16);
      const std::vector<float> x = random_floats(static_cast<size_t>(head_dim + value_dim),
                                                 seed + 1000 + static_cast<uint64_t>(j), 2.0f);
      k.store_key(type, x.data(), head_dim, j % 16, keys.data() + tile * key_tile_bytes(type, head_dim));
      k.store_value(type, x.data() + head_dim, value_dim, j % 16,
                    values.data() + tile * value_tile_bytes(type, value_dim));
    }
  }
  /// o, m, l of vectors [first, first + count) behind each other.
  std::vector<float> run(const AttentionKernels& k, int64_t first, int64_t count) const {
    const size_t stride = static_cast<size_t>(value_stride(value_dim)), n = static_cast<size_t>(count);
    SplitArgs a{};
    a.key_type = a.value_type = type;
    a.head_dim = head_dim;
    a.value_dim = value_dim;
    a.vectors = count;
    a.scale = 0.25f;
    a.softcap = 5.0f;
    std::vector<float> packed, scores(attention_scratch_floats()), out(n * (stride + 2));
    std::vector<const uint16_t*> rows;
    for (int64_t d = 0; d < head_dim; ++d) {
      for (int64_t v = first; v < first + count; ++v)
        packed.push_back(q[static_cast<size_t>(v * head_dim + d)]);
    }
    for (int64_t v = first; v < first + count; ++v) rows.push_back(masks.data() + v * 16);
    for (size_t t = 0; t < 16; ++t) {
      a.keys[t] = keys.data() + t * key_tile_bytes(type, head_dim);
      a.values[t] = values.data() + t * value_tile_bytes(type, value_dim);
    }
    a.q = packed.data();
    a.masks = rows.data();
    a.scores = scores.data();
    a.o = out.data();
    a.m = out.data() + n * stride;
    a.l = a.m + n;
    k.split(a);
    return out;
  }
};

TEST(AttentionKernels, SplitGivesTheBitsOfGenericAndOfEachVectorAlone) {
  const AttentionKernels generic = kernels_of(CpuTier::kGeneric);
  for (KvType type : kTypes) {
    for (const auto& [head_dim, value_dim] : {std::pair{32, 32}, {80, 80}, {128, 128}, {96, 64}, {32, 160}}) {
      if (type == KvType::kQ8_0 && head_dim % 32 != 0) continue;
      for (int64_t vectors = 1; vectors <= 13; ++vectors) {
        const SplitProblem problem(head_dim, value_dim, vectors, type, static_cast<uint64_t>(vectors));
        const std::vector<float> want = problem.run(generic, 0, vectors);
        for (float x : want) ASSERT_FALSE(std::isnan(x));
        for (CpuTier tier : supported_tiers()) {
          const AttentionKernels k = kernels_of(tier);
          const std::vector<float> got = problem.run(k, 0, vectors);
          ASSERT_EQ(std::memcmp(want.data(), got.data(), want.size() * sizeof(float)), 0)
              << name(tier) << " type " << static_cast<int>(type) << " head " << head_dim << " vectors "
              << vectors;
          const size_t stride = static_cast<size_t>(value_stride(value_dim)),
                       n = static_cast<size_t>(vectors);
          for (int64_t v = 0; v < vectors; ++v) {
            const std::vector<float> alone = problem.run(k, v, 1);
            const size_t at = static_cast<size_t>(v);
            ASSERT_EQ(std::memcmp(alone.data(), want.data() + at * stride, stride * sizeof(float)), 0);
            ASSERT_EQ(alone[stride], want[n * stride + at]);
            ASSERT_EQ(alone[stride + 1], want[n * stride + n + at]);
          }
        }
      }
    }
  }
}

TEST(AttentionKernels, ValuesOfKeysAreTheFirstElements) {
  for (CpuTier tier : supported_tiers()) {
    const AttentionKernels k = kernels_of(tier);
    for (int64_t value_dim : {2, 6, 16, 64, 70}) {
      const std::vector<float> keys = random_floats(72 * 16, 4, 1.0f);
      const int64_t stride = value_stride(value_dim);
      std::vector<float> values(static_cast<size_t>(stride * 16), -1.0f);
      k.values_of_keys(keys.data(), value_dim, values.data());
      for (int64_t j = 0; j < 16; ++j) {
        for (int64_t d = 0; d < stride; ++d) {
          ASSERT_EQ(values[static_cast<size_t>(j * stride + d)],
                    d < value_dim ? keys[static_cast<size_t>(d * 16 + j)] : 0.0f);
        }
      }
    }
  }
}

TEST(AttentionKernels, FoldAndFinishGiveTheBitsOfGeneric) {
  const AttentionKernels generic = kernels_of(CpuTier::kGeneric);
  const std::vector<float> a = random_floats(80, 1, 3.0f), b = random_floats(80, 2, 3.0f);
  for (CpuTier tier : supported_tiers()) {
    const AttentionKernels k = kernels_of(tier);
    for (float m : {-200.0f, -3.0f, 0.5f, 7.25f, 300.0f}) {
      std::vector<float> results[2];
      for (int which = 0; which < 2; ++which) {
        const AttentionKernels& f = which == 0 ? generic : k;
        std::vector<float> o(80), out(80);
        float total_m = 99.0f, total_l = 0.0f;
        f.fold(o.data(), &total_m, &total_l, b.data(), 1.0f, 0.0f, 80);  // empty: changes nothing
        EXPECT_EQ(total_l, 0.0f);
        f.fold(o.data(), &total_m, &total_l, a.data(), 0.5f, 2.5f, 80);
        f.fold(o.data(), &total_m, &total_l, b.data(), m, 1.25f, 80);
        out.push_back(f.finish(o.data(), total_m, total_l, 80, out.data()));
        results[which] = out;
      }
      EXPECT_EQ(std::memcmp(results[0].data(), results[1].data(), 81 * sizeof(float)), 0) << name(tier) << m;
      const double top = std::max(0.5f, m), wa = 2.5 * std::exp(0.5 - top), wb = 1.25 * std::exp(m - top);
      EXPECT_NEAR(results[0][80], top + std::log(wa + wb), 2e-5);
      const double want = (std::exp(0.5 - top) * a[3] + std::exp(m - top) * b[3]) / (wa + wb);
      EXPECT_NEAR(results[0][3], want, 1e-5);
    }
  }
}

}  // namespace
}  // namespace mete
