#include <gtest/gtest.h>

#include "testing/attention_data.h"

namespace mete {
namespace {

struct Way {
  CpuTier tier = supported_tiers().back();
  int threads = 1;
  int64_t page_slots = 32, chunk = 1000000;
  KvType key = KvType::kF16, value = KvType::kF16;
  bool value_in_key = false;
};

std::vector<float> run(const AttentionData& a, const AttentionParams& p, const Way& s) {
  const KernelTable table = attention_table(s.tier);
  ThreadPool pool(s.threads);
  Context ctx{pool, table};
  KvCache cache({1, a.kv_heads, a.head_dim, s.key, s.value, s.page_slots, a.tokens + 32, true, a.value_dim,
                 s.value_in_key});
  std::vector<float> out;
  run_chunks(cache, cache.create(), ctx, a, p, 0, a.tokens, s.chunk, out);
  return out;
}

void expect_near_oracle(const AttentionData& a, const AttentionParams& p, const Way& s) {
  const std::vector<float> got = run(a, p, s);
  const auto visible = [&](int64_t i, int64_t j) { return j <= i && (p.window <= 0 || j > i - p.window); };
  const std::vector<double> want = attention_oracle(a, p, s.key, s.value, visible);
  // |v| <= 2; the scores carry about head_dim roundings of terms of at most 4 * scale.
  const double tolerance = 6e-8 * 2.0 * (static_cast<double>(a.head_dim) * 4.0 * p.scale * 2.0 + 64.0);
  for (size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], want[i], tolerance) << i;
}

TEST(AttentionExactness, AgreesWithDoubleForEveryHeadSizeGroupAndCodec) {
  for (int64_t head_dim : {32, 64, 80, 96, 128, 256}) {
    for (int64_t group : {1, 3, 4, 7}) {
      const AttentionData a(2 * group, 2, head_dim, 270);
      expect_near_oracle(a, a.params(), {});
      for (KvType type : {KvType::kBF16, KvType::kQ8_0}) {
        if (type == KvType::kQ8_0 && head_dim % 32 != 0) continue;
        Way s;
        s.key = s.value = type;
        if (group == 3) expect_near_oracle(a, a.params(), s);
      }
    }
  }
}

TEST(AttentionExactness, AgreesWithDoubleWithWindowSoftcapAndSinks) {
  const AttentionData a(6, 2, 64, 600);
  const float sinks[6] = {0.0f, 3.0f, -2.0f, 8.0f, 1.0f, -30.0f};
  for (int32_t window : {1, 5, 100, 257, 600}) {
    AttentionParams p = a.params();
    p.window = window;
    p.softcap = 3.0f;
    p.sinks = window == 100 ? sinks : nullptr;
    expect_near_oracle(a, p, {});
  }
}

TEST(AttentionExactness, ChunksThreadsPagesAndTiersGiveTheSameBits) {
  const AttentionData a(9, 3, 64, 777);
  for (int32_t window : {0, 300}) {
    AttentionParams p = a.params();
    p.window = window;
    Way s;
    const std::vector<float> want = run(a, p, s);
    for (int64_t chunk : {1, 7, 64, 256, 511}) {
      for (int threads : {1, 2, 3, 8}) {
        for (int64_t page_slots : {16, 32}) {
          s.chunk = chunk;
          s.threads = threads;
          s.page_slots = page_slots;
          ASSERT_TRUE(same_bits(want, run(a, p, s))) << "window " << window << " chunk " << chunk
                                                     << " threads " << threads << " page " << page_slots;
        }
      }
    }
    for (CpuTier tier : supported_tiers()) {
      for (int64_t chunk : {1, 100}) {
        s = Way{};
        s.tier = tier;
        s.chunk = chunk;
        ASSERT_TRUE(same_bits(want, run(a, p, s))) << name(tier) << " chunk " << chunk;
      }
    }
  }
}

TEST(AttentionExactness, EveryHeadSizeGroupAndCodecGivesTheSameBits) {
  for (KvType type : {KvType::kF16, KvType::kBF16, KvType::kQ8_0}) {
    for (int64_t head_dim : {32, 64, 80, 96, 128, 256}) {
      for (int64_t group : {1, 3, 4, 7}) {
        if (type == KvType::kQ8_0 && head_dim % 32 != 0) continue;
        const AttentionData a(group, 1, head_dim, head_dim > 100 ? 40 : 270);
        Way s;
        s.key = s.value = type;
        const std::vector<float> want = run(a, a.params(), s);
        for (CpuTier tier : supported_tiers()) {
          s.tier = tier;
          s.chunk = 1000;
          ASSERT_TRUE(same_bits(want, run(a, a.params(), s)))
              << name(tier) << ' ' << head_dim << ' ' << group;
        }
        s.tier = supported_tiers().back();
        s.chunk = 1;
        s.threads = 2;
        ASSERT_TRUE(same_bits(want, run(a, a.params(), s))) << head_dim << ' ' << group;
      }
    }
  }
}

// Ties compilers and machines together: a change of this number is a change of every model's bits.
TEST(AttentionExactness, TheBitsAreThoseOfEveryCompiler) {
  uint64_t hash = 0xcbf29ce484222325u;  // FNV-1a
  for (KvType type : {KvType::kF16, KvType::kBF16, KvType::kQ8_0}) {
    const AttentionData a(6, 2, 64, 550);
    AttentionParams p = a.params();
    p.softcap = 20.0f;
    Way s;
    s.key = s.value = type;
    for (float x : run(a, p, s)) {
      uint32_t bits;
      std::memcpy(&bits, &x, 4);
      hash = (hash ^ bits) * 0x100000001b3u;
    }
  }
  EXPECT_EQ(hash, 7944910547393545675u);
}

TEST(AttentionExactness, MixedCodecs) {
  const AttentionData a(4, 2, 64, 300);
  Way s;
  s.key = KvType::kQ8_0;
  s.value = KvType::kBF16;
  expect_near_oracle(a, a.params(), s);
  const std::vector<float> want = run(a, a.params(), s);
  s.chunk = 1;
  EXPECT_TRUE(same_bits(want, run(a, a.params(), s)));
}

TEST(AttentionExactness, KeysAndValuesOfDifferentWidths) {
  for (const auto& [head_dim, value_dim] : {std::pair{96, 64}, {64, 128}, {48, 32}}) {
    const AttentionData a(6, 2, head_dim, 300, 1, value_dim);
    for (KvType type : {KvType::kF16, KvType::kQ8_0}) {
      if (type == KvType::kQ8_0 && head_dim % 32 != 0) continue;
      Way s;
      s.key = s.value = type;
      expect_near_oracle(a, a.params(), s);
      const std::vector<float> want = run(a, a.params(), s);
      s.chunk = 1;
      s.threads = 2;
      EXPECT_TRUE(same_bits(want, run(a, a.params(), s))) << head_dim;
    }
  }
}

// A latent of MLA: the values are the first elements of the keys and are not stored again.
TEST(AttentionExactness, ValuesInKeysGiveTheBitsOfStoredValues) {
  for (KvType type : {KvType::kF16, KvType::kBF16, KvType::kQ8_0}) {
    for (int64_t heads : {2, 16, 40}) {
      AttentionData a(heads, 1, 96, 530, 1, 64);
      a.take_values_from_keys();
      for (int32_t window : {0, 300}) {
        AttentionParams p = a.params();
        p.window = window;
        Way s;
        s.key = s.value = type;
        const std::vector<float> want = run(a, p, s);
        if (type == KvType::kF16) expect_near_oracle(a, p, s);
        s.value_in_key = true;
        for (int64_t chunk : {1, 37, 530}) {
          for (int64_t page_slots : {16, 32}) {
            s.chunk = chunk;
            s.page_slots = page_slots;
            s.threads = chunk == 37 ? 3 : 1;
            ASSERT_TRUE(same_bits(want, run(a, p, s))) << heads << " heads, chunk " << chunk;
          }
        }
        s.chunk = 100;
        for (CpuTier tier : supported_tiers()) {
          s.tier = tier;
          ASSERT_TRUE(same_bits(want, run(a, p, s))) << name(tier);
        }
      }
    }
  }
}

TEST(AttentionExactness, OtherSequencesChangeNothing) {
  const AttentionData a(6, 2, 64, 600, 1), b(6, 2, 64, 600, 2);
  const std::vector<float> want_a = run(a, a.params(), {}), want_b = run(b, b.params(), {});
  // One joint data set: tokens of a, then of b.
  AttentionData both = a;
  both.tokens = 1200;
  both.q.insert(both.q.end(), b.q.begin(), b.q.end());
  both.k.insert(both.k.end(), b.k.begin(), b.k.end());
  both.v.insert(both.v.end(), b.v.begin(), b.v.end());
  const KernelTable table = attention_table(supported_tiers().back());
  ThreadPool pool(2);
  Context ctx{pool, table};
  KvCache cache({2, 2, 64, KvType::kF16, KvType::kF16, 16, 1300, true});
  const SeqId sa = cache.create(), sb = cache.create();
  std::vector<float> out;
  int32_t done_a = 0, done_b = 0;
  for (int step = 0; done_a < 600 || done_b < 600; ++step) {
    std::vector<Row> rows;
    std::vector<int64_t> tokens;
    const int32_t take_a = std::min(600 - done_a, 1 + step % 37),
                  take_b = std::min(600 - done_b, 1 + step % 5 * 11);
    for (int32_t i = 0; i < std::max(take_a, take_b); ++i) {  // interleaved
      if (i < take_a) rows.push_back({0, done_a + i, sa}), tokens.push_back(done_a + i);
      if (i < take_b) rows.push_back({0, done_b + i, sb}), tokens.push_back(600 + done_b + i);
    }
    done_a += take_a;
    done_b += take_b;
    Batch batch;
    batch.rows = rows;
    run_step(cache, ctx, both, both.params(), batch, tokens, out);
  }
  const auto half = static_cast<std::ptrdiff_t>(a.q.size());
  EXPECT_TRUE(same_bits(want_a, std::vector<float>(out.begin(), out.begin() + half)));
  EXPECT_TRUE(same_bits(want_b, std::vector<float>(out.begin() + half, out.end())));
}

}  // namespace
}  // namespace mete
