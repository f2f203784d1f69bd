#include "kv/kv_cache.h"

#include <gtest/gtest.h>

#include "testing/attention_data.h"

namespace mete {
namespace {

struct KvCacheTest : ::testing::Test {
  std::vector<float> row(const std::vector<float>& out, int64_t token) const {
    return {out.begin() + token * 4 * 32, out.begin() + (token + 1) * 4 * 32};
  }
  std::vector<float> plain(int64_t tokens) {
    KvCache cache(config);
    std::vector<float> out;
    run_chunks(cache, cache.create(), ctx, data, data.params(), 0, tokens, 64, out);
    return out;
  }
  KernelTable table = attention_table(supported_tiers().back());
  ThreadPool pool{2};
  Context ctx{pool, table};
  AttentionData data{4, 2, 32, 400};
  KvConfig config{3, 2, 32, KvType::kF16, KvType::kF16, 16, 1600, true};
};

TEST_F(KvCacheTest, TruncateForgets) {
  const std::vector<float> want = plain(400);
  KvCache cache(config);
  const SeqId seq = cache.create();
  std::vector<float> out;
  run_chunks(cache, seq, ctx, data, data.params(), 0, 400, 64, out);
  for (int64_t length : {333, 320, 17, 16, 1, 0}) {
    ASSERT_TRUE(cache.truncate(seq, length));
    ASSERT_EQ(cache.length(seq), length);
    out.assign(out.size(), 0.0f);
    run_chunks(cache, seq, ctx, data, data.params(), length, 400, 50, out);
    for (int64_t t = length; t < 400; ++t) ASSERT_TRUE(same_bits(row(want, t), row(out, t))) << t;
  }
  EXPECT_FALSE(cache.truncate(seq, 401));
  EXPECT_FALSE(cache.truncate(seq, -1));
  EXPECT_FALSE(cache.truncate(7, 0));
}

TEST_F(KvCacheTest, ForkSharesPagesUntilOneSideWrites) {
  const std::vector<float> want = plain(400);
  KvCache cache(config);
  const SeqId a = cache.create();
  std::vector<float> out;
  run_chunks(cache, a, ctx, data, data.params(), 0, 200, 64, out);
  const size_t before = cache.bytes();
  const SeqId b = cache.fork(a);
  EXPECT_EQ(cache.bytes(), before);
  // b takes other tokens than a from 200 on; a must not notice.
  std::vector<Row> rows;
  std::vector<int64_t> tokens;
  for (int32_t i = 0; i < 20; ++i) rows.push_back({0, 200 + i, b}), tokens.push_back(i);
  Batch batch;
  batch.rows = rows;
  run_step(cache, ctx, data, data.params(), batch, tokens, out);
  EXPECT_EQ(cache.bytes(),
            before + 6u * 2u * cache.layout().page_bytes());  // the shared partial page, one more
  const SeqId c = cache.fork(a);
  run_chunks(cache, a, ctx, data, data.params(), 200, 400, 30, out);
  for (int64_t t = 200; t < 400; ++t) ASSERT_TRUE(same_bits(row(want, t), row(out, t))) << t;
  cache.release(a);
  run_chunks(cache, c, ctx, data, data.params(), 200, 400, 70, out);
  for (int64_t t = 200; t < 400; ++t) ASSERT_TRUE(same_bits(row(want, t), row(out, t))) << t;
  cache.release(b);
  cache.release(c);
  EXPECT_EQ(cache.bytes(), 0u);
}

TEST_F(KvCacheTest, AFullPoolIsAnErrorThatNamesSlots) {
  config.max_slots = 64;
  KvCache cache(config);
  const SeqId seq = cache.create();
  std::vector<float> out;
  run_chunks(cache, seq, ctx, data, data.params(), 0, 40, 40, out);
  std::vector<Row> rows;
  for (int32_t i = 0; i < 30; ++i) rows.push_back({0, 40 + i, seq});
  Batch batch;
  batch.rows = rows;
  const Status status = cache.begin_step(batch);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().message(),
            "KV cache: the step needs 30 slots (12 pages), 16 slots (6 pages) are free");
  EXPECT_EQ(cache.length(seq), 40);
  batch.rows = std::span<const Row>(rows).subspan(0, 24);
  EXPECT_TRUE(cache.begin_step(batch));
  cache.end_step();
}

TEST_F(KvCacheTest, DroppedSlotsAreInvisibleInTheirHeadOnly) {
  KvCache cache(config);
  const SeqId seq = cache.create();
  std::vector<float> out;
  run_chunks(cache, seq, ctx, data, data.params(), 0, 390, 64, out);
  std::vector<int32_t> dropped;
  for (int32_t s = 100; s < 300; ++s) {
    if (s < 120 || s > 200) dropped.push_back(s);
  }
  for (int64_t layer = 0; layer < 3; ++layer) ASSERT_TRUE(cache.drop(seq, layer, 1, dropped));
  EXPECT_LT(cache.bytes(), cache.layout().page_bytes() * 3 * 2 * 25);
  run_chunks(cache, seq, ctx, data, data.params(), 390, 400, 3, out);
  const auto is_dropped = [&](int64_t j) { return j >= 100 && j < 300 && (j < 120 || j > 200); };
  const auto all = attention_oracle(data, data.params(), KvType::kF16, KvType::kF16,
                                    [](int64_t i, int64_t j) { return j <= i; });
  const auto some = attention_oracle(data, data.params(), KvType::kF16, KvType::kF16,
                                     [&](int64_t i, int64_t j) { return j <= i && !is_dropped(j); });
  for (size_t t = 390; t < 400; ++t) {
    for (size_t i = 0; i < 128; ++i) {
      ASSERT_NEAR(out[t * 128 + i], (i < 64 ? all : some)[t * 128 + i], 2e-5) << t << ' ' << i;
    }
  }
  cache.release(seq);
  EXPECT_EQ(cache.bytes(), 0u);
}

TEST_F(KvCacheTest, BadBatchesAreErrors) {
  KvCache cache(config);
  const SeqId seq = cache.create();
  const BlockMask mask(3);
  const auto error_of = [&](Row row, const BlockMask* m) {
    const std::vector<Row> rows = {row};
    Batch batch;
    batch.rows = rows;
    batch.mask = m;
    const Status s = cache.begin_step(batch);
    return s ? std::string("none") : s.error().message();
  };
  EXPECT_EQ(error_of({0, 0, 5}, nullptr), "KV cache: no sequence 5");
  EXPECT_EQ(error_of({0, -1, seq}, nullptr), "batch row 0: position -1, expected 0 .. 1048576");
  EXPECT_EQ(error_of({0, 1048577, seq}, nullptr), "batch row 0: position 1048577, expected 0 .. 1048576");
  EXPECT_EQ(error_of({0, 0, seq, KvWrite::kOverwrite, 0}, nullptr),
            "batch row 0: slot 0 to overwrite, expected 0 .. -1");
  EXPECT_EQ(error_of({0, 0, seq}, &mask), "batch: mask of 3 rows for 1 rows");
}

TEST_F(KvCacheTest, ValuesInKeysTakeNoMemory) {
  config.value_dim = 16;
  const size_t both = kv_cache_bytes(config);
  config.value_in_key = true;
  const size_t shared = kv_cache_bytes(config);
  EXPECT_EQ(both * 32, shared * (32 + 16));
  EXPECT_EQ(shared, 3u * 2u * 1600u * 32u * 2u);  // layers, heads, slots, elements, bytes
}

TEST_F(KvCacheTest, BadConfigurationsAreErrors) {
  config.value_in_key = true;
  config.value_dim = 34;  // wider than the key
  EXPECT_THROW(KvCache{config}, Error);
  config.value_dim = 16;
  config.value_codec = KvType::kBF16;  // another codec than the key's
  EXPECT_THROW(KvCache{config}, Error);
  config.value_codec = KvType::kF16;
  config.value_in_key = false;
  config.value_dim = 15;
  EXPECT_THROW(KvCache{config}, Error);
  config.value_dim = 0;
  config.head_dim = 80;
  config.key_codec = KvType::kQ8_0;
  EXPECT_THROW(KvCache{config}, Error);
  config.key_codec = KvType::kF16;
  config.page_slots = 24;
  EXPECT_THROW(KvCache{config}, Error);
  config.page_slots = 16;
  config.windows = {50};  // for three layers
  EXPECT_THROW(KvCache{config}, Error);
  config.windows.clear();
  config.max_slots = 0;
  EXPECT_THROW(KvCache{config}, Error);
  EXPECT_FALSE(parse_kv_codec("q4_0"));
  EXPECT_EQ(parse_kv_codec("q8_0"), KvType::kQ8_0);
}

TEST_F(KvCacheTest, PagesOutsideTheWindowAreFreedAndNoBitChanges) {
  AttentionParams p = data.params();
  p.window = 50;
  std::vector<float> want, out;
  {
    KvCache cache(config);
    run_chunks(cache, cache.create(), ctx, data, p, 0, 400, 64, want);
    EXPECT_EQ(cache.bytes(), 6u * 25u * cache.layout().page_bytes());
  }
  config.windows = {50, 50, 50};
  for (int64_t page_slots : {16, 32}) {
    config.page_slots = page_slots;
    for (int64_t chunk : {1, 7, 64, 400}) {
      KvCache cache(config);
      const SeqId seq = cache.create();
      run_chunks(cache, seq, ctx, data, p, 0, 400, chunk, out);
      EXPECT_TRUE(same_bits(want, out)) << chunk;
      // At most: window, slack, the last step, and two partial pages.
      const int64_t kept = 50 + 32 + chunk + 2 * page_slots;
      EXPECT_LE(cache.bytes(), 6u * static_cast<size_t>(kept / page_slots) * cache.layout().page_bytes());
      EXPECT_GT(cache.bytes(), 6u * static_cast<size_t>(50 / page_slots) * cache.layout().page_bytes());
      EXPECT_GE(cache.peak_bytes(), cache.bytes());
      EXPECT_LE(cache.peak_bytes(),
                6u * static_cast<size_t>((kept + chunk) / page_slots + 1) * cache.layout().page_bytes());
      cache.release(seq);
      EXPECT_EQ(cache.bytes(), 0u);
    }
  }
}

TEST_F(KvCacheTest, OnlySlidingLayersFree) {
  config.windows = {50, 0, 50};
  KvCache cache(config);
  const SeqId seq = cache.create();
  for (int32_t i = 0; i < 400; ++i) {
    const Row row{0, i, seq};
    Batch batch;
    batch.rows = {&row, 1};
    ASSERT_TRUE(cache.begin_step(batch));
    cache.end_step();
  }
  // 25 pages of 16 in the full layer. Position 399 - 50 - 32 = 317 is the highest free one: 19 whole pages.
  EXPECT_EQ(cache.bytes(), 2u * (25u + 2u * (25u - 19u)) * cache.layout().page_bytes());
  EXPECT_EQ(cache.free_slots(), (600 - 2 * (25 + 12)) / 6 * 16);
}

TEST_F(KvCacheTest, SlidingLayersNeedPagesForTheirWindowsOnly) {
  AttentionParams p = data.params();
  p.window = 50;
  std::vector<float> want, out;
  {
    KvCache cache(config);
    run_chunks(cache, cache.create(), ctx, data, p, 0, 400, 64, want);
  }
  config.windows = {50, 0, 50};
  config.max_slots = 800;
  config.window_sequences = 2;
  config.step_rows = 64;
  // Of 50 pages per list: 2 windows of 50 tokens and 32 more, with 3 pages beside them, and 64 rows.
  const size_t page = kv_layout(config).page_bytes();
  EXPECT_EQ(kv_cache_bytes(config), 2u * (50u + 2u * (2u * 9u + 4u)) * page);
  for (const int64_t chunk : {1, 30, 64}) {
    KvCache cache(config);
    const SeqId a = cache.create(), b = cache.create();
    for (int64_t begin = 0; begin < 400; begin += 80) {  // in turn: one waits with what it has just written
      for (const SeqId seq : {a, b}) {
        run_chunks(cache, seq, ctx, data, p, begin, begin + 80, chunk, out);
        for (int64_t t = begin; t < begin + 80; ++t) {
          // The layer without a window computes the same here, as its rows are told one too.
          ASSERT_TRUE(same_bits(row(want, t), row(out, t))) << t;
        }
      }
    }
    EXPECT_EQ(cache.length(a) + cache.length(b), 800);
    cache.settle(a);
    EXPECT_LE(cache.total_pages() - cache.free_pages(), 2 * cache.sequence_pages(400) + 4 * 5);
    cache.release(a);
    cache.settle(b);
    EXPECT_LE(cache.total_pages() - cache.free_pages(), cache.sequence_pages(400));
    cache.release(b);
    EXPECT_EQ(cache.bytes(), 0u);
  }
  config.max_slots = 64;  // shorter than the windows: nothing is saved
  EXPECT_EQ(kv_cache_bytes(config), 2u * 3u * 4u * page);
}

TEST_F(KvCacheTest, WhatTheWindowHasFreedCannotBeSeenAgain) {
  AttentionParams p = data.params();
  p.window = 50;
  std::vector<float> want, out;
  {
    KvCache cache(config);
    run_chunks(cache, cache.create(), ctx, data, p, 0, 400, 64, want);
  }
  config.windows = {50, 50, 50};
  KvCache cache(config);
  const SeqId seq = cache.create();
  run_chunks(cache, seq, ctx, data, p, 0, 300, 1, out);
  // Freed: positions up to 299 - 82 = 217 in whole pages, 0 .. 207. A row at 257 sees 208.
  EXPECT_EQ(cache.reusable(seq, 257), 257);
  EXPECT_EQ(cache.reusable(seq, 256), 0);
  const Status refused = cache.truncate(seq, 256);
  ASSERT_FALSE(refused);
  EXPECT_EQ(
      refused.error().message(),
      "KV cache: sequence 0 cannot be cut to 256 slots: layers with a sliding window keep what rows from "
      "position 257 on see; cut it to 0");
  EXPECT_EQ(cache.length(seq), 300);
  const SeqId copy = cache.fork(seq);
  for (const SeqId each : {seq, copy}) {  // a fork knows what it lacks
    const Row back{0, 256, each};
    const Row overwrite{0, 290, each, KvWrite::kOverwrite, 5};
    for (const Row& row : {back, overwrite}) {
      Batch batch;
      batch.rows = {&row, 1};
      EXPECT_FALSE(cache.begin_step(batch));
    }
  }
  ASSERT_TRUE(cache.truncate(seq, 257));
  run_chunks(cache, seq, ctx, data, p, 257, 400, 9, out);
  for (int64_t t = 257; t < 400; ++t) ASSERT_TRUE(same_bits(row(want, t), row(out, t))) << t;
  ASSERT_TRUE(cache.truncate(seq, 0));
  run_chunks(cache, seq, ctx, data, p, 0, 400, 30, out);
  EXPECT_TRUE(same_bits(want, out));
  run_chunks(cache, copy, ctx, data, p, 300, 400, 11, out);
  EXPECT_TRUE(same_bits(want, out));
  cache.release(seq);
  cache.release(copy);
  EXPECT_EQ(cache.bytes(), 0u);
}

TEST_F(KvCacheTest, AccountingHoldsOverRandomOperations) {
  config.max_slots = 800;
  KvCache cache(config);
  std::vector<SeqId> live;
  const size_t list_pages = 6;
  for (uint64_t op = 0; op < 20000; ++op) {
    const uint64_t dice = random_bits(11, op, Purpose::kTest);
    const SeqId seq = live.empty() ? -1 : live[(dice >> 8) % live.size()];
    switch (dice % 8) {
      case 0:
        if (live.size() < 8) live.push_back(cache.create());
        break;
      case 1:
        if (seq >= 0 && live.size() < 8) live.push_back(cache.fork(seq));
        break;
      case 2:
        if (seq >= 0) {
          ASSERT_TRUE(cache.truncate(seq, static_cast<int64_t>(dice >> 20) % (cache.length(seq) + 1)));
        }
        break;
      case 3:
        if (seq >= 0 && (dice >> 40) % 4 == 0) {
          cache.release(seq);
          live.erase(std::find(live.begin(), live.end(), seq));
        }
        break;
      default:
        if (seq >= 0) {
          const int32_t length = static_cast<int32_t>(cache.length(seq));
          std::vector<Row> rows;
          for (int32_t i = 0; i < 1 + static_cast<int32_t>((dice >> 30) % 40); ++i) {
            rows.push_back({0, length + i, seq, i % 7 == 6 ? KvWrite::kScratch : KvWrite::kAppend});
          }
          BlockMask mask(static_cast<int32_t>(rows.size()));
          Batch batch;
          batch.rows = rows;
          batch.mask = &mask;  // nothing new is visible: positions need not be distinct
          const size_t before = cache.bytes();
          if (cache.begin_step(batch)) {
            cache.end_step();
          } else {
            ASSERT_EQ(cache.bytes(), before);
          }
          // Scratch rows leave gaps in the positions; start over.
          if (cache.length(seq) > 0 && op % 3 == 0) {
            ASSERT_TRUE(cache.truncate(seq, length));
          }
        }
    }
    ASSERT_EQ(cache.bytes() % cache.layout().page_bytes(), 0u);
    ASSERT_EQ(cache.bytes() / cache.layout().page_bytes() % list_pages, 0u);
    ASSERT_LE(cache.bytes(), cache.capacity_bytes());
  }
  for (SeqId seq : live) cache.release(seq);
  EXPECT_EQ(cache.bytes(), 0u);
  EXPECT_EQ(cache.free_slots(), 800);
}

}  // namespace
}  // namespace mete
