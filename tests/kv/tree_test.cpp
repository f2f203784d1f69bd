#include <gtest/gtest.h>

#include <numeric>

#include "testing/attention_data.h"

namespace mete {
namespace {

constexpr int64_t kTokens = 700;  // tokens of the true sequence; later ones are wrong drafts

struct TreeTest : ::testing::TestWithParam<KvType> {
  KvConfig config(int64_t page_slots) const {
    return {2, 2, 64, GetParam(), GetParam(), page_slots, 1024, true};
  }
  std::vector<float> plain() {
    KvCache cache(config(32));
    std::vector<float> out;
    run_chunks(cache, cache.create(), ctx, data, data.params(), 0, kTokens, 1, out);
    out.resize(static_cast<size_t>(kTokens) * 6 * 64);
    return out;
  }
  std::vector<float> row(const std::vector<float>& out, int64_t token) const {
    return {out.begin() + token * 6 * 64, out.begin() + (token + 1) * 6 * 64};
  }

  KernelTable table = attention_table(supported_tiers().back());
  ThreadPool pool{2};
  Context ctx{pool, table};
  AttentionData data{6, 2, 64, kTokens + 64};
};

/// A tree below the committed tokens: the true path 0, 1, .. depth - 1 with `wrong` siblings of each node.
struct Tree {
  std::vector<Row> rows;
  std::vector<int64_t> tokens;
  std::vector<int32_t> path;  // row of each true node
  BlockMask mask;
  Tree(SeqId seq, int64_t committed, int32_t depth, int32_t wrong, KvWrite write) {
    std::vector<int32_t> parent;
    int64_t next_wrong = kTokens;
    for (int32_t d = 0; d < depth; ++d) {
      const int32_t above = path.empty() ? -1 : path.back();
      for (int32_t w = 0; w <= wrong; ++w) {
        const bool is_true = w == d % (wrong + 1);  // the true child is not always the first
        if (is_true) path.push_back(static_cast<int32_t>(rows.size()));
        rows.push_back({0, static_cast<int32_t>(committed) + d, seq, write});
        tokens.push_back(is_true ? committed + d : next_wrong++);
        parent.push_back(above);
      }
    }
    mask = BlockMask(static_cast<int32_t>(rows.size()));
    for (int32_t i = 0; i < mask.rows(); ++i) {
      for (int32_t j = i; j >= 0; j = parent[static_cast<size_t>(j)]) mask.set(i, j);
    }
  }
};

TEST_P(TreeTest, VerificationThenCompactionEqualsPlainDecoding) {
  const std::vector<float> want = plain();
  for (int64_t page_slots : {16, 32}) {
    for (KvWrite write : {KvWrite::kAppend, KvWrite::kScratch}) {
      KvCache cache(config(page_slots));
      const SeqId seq = cache.create();
      std::vector<float> out;
      run_chunks(cache, seq, ctx, data, data.params(), 0, 240, 64, out);
      int64_t committed = 240;
      for (int round = 0; committed < kTokens; ++round) {
        const int32_t depth = static_cast<int32_t>(std::min<int64_t>(1 + round % 9, kTokens - committed));
        const Tree tree(seq, committed, depth, round % 3, write);
        Batch batch;
        batch.rows = tree.rows;
        batch.mask = &tree.mask;
        run_step(cache, ctx, data, data.params(), batch, tree.tokens, out);
        if (write == KvWrite::kScratch) {
          ASSERT_EQ(cache.length(seq), committed);
          run_chunks(cache, seq, ctx, data, data.params(), committed, committed + depth, depth, out);
        } else {
          std::vector<int32_t> kept;
          for (int32_t r : tree.path) kept.push_back(static_cast<int32_t>(committed) + r);
          ASSERT_TRUE(cache.compact(seq, kept));
        }
        for (int64_t t = committed; t < committed + depth; ++t) {
          ASSERT_TRUE(same_bits(row(want, t), row(out, t))) << "token " << t << " round " << round;
        }
        committed += depth;
        ASSERT_EQ(cache.length(seq), committed);
      }
    }
  }
}

TEST_P(TreeTest, ScratchTreesGiveTheBitsOfPlainDecoding) {
  const std::vector<float> want = plain();
  KvCache cache(config(32));
  const SeqId seq = cache.create();
  std::vector<float> out;
  run_chunks(cache, seq, ctx, data, data.params(), 0, 500, 500, out);
  const Tree tree(seq, 500, 14, 2, KvWrite::kScratch);  // across position 512
  Batch batch;
  batch.rows = tree.rows;
  batch.mask = &tree.mask;
  run_step(cache, ctx, data, data.params(), batch, tree.tokens, out);
  for (int64_t t = 500; t < 514; ++t) EXPECT_TRUE(same_bits(row(want, t), row(out, t))) << t;
  EXPECT_EQ(cache.length(seq), 500);
}

TEST_P(TreeTest, OverwritingASlotIsAsIfItHadBeenWrittenSoFromTheStart) {
  const std::vector<float> want = plain();
  KvCache cache(config(16));
  const SeqId seq = cache.create();
  std::vector<float> out;
  // Tokens 300 .. 309 are wrong at first.
  run_chunks(cache, seq, ctx, data, data.params(), 0, 300, 300, out);
  const auto write = [&](int64_t first_token, KvWrite how) {
    std::vector<Row> rows;
    std::vector<int64_t> tokens;
    for (int32_t i = 0; i < 10; ++i) {
      rows.push_back({0, 300 + i, seq, how, how == KvWrite::kOverwrite ? 300 + i : -1});
      tokens.push_back(first_token + i);
    }
    Batch batch;
    batch.rows = rows;
    run_step(cache, ctx, data, data.params(), batch, tokens, out);
  };
  write(kTokens, KvWrite::kAppend);
  write(300, KvWrite::kOverwrite);
  run_chunks(cache, seq, ctx, data, data.params(), 310, kTokens, 100, out);
  for (int64_t t = 300; t < kTokens; ++t) ASSERT_TRUE(same_bits(row(want, t), row(out, t))) << t;
}

TEST_P(TreeTest, ABidirectionalBlockSeesItself) {
  KvCache cache(config(32));
  const SeqId seq = cache.create();
  std::vector<float> out;
  run_chunks(cache, seq, ctx, data, data.params(), 0, 250, 64, out);
  std::vector<Row> rows;
  std::vector<int64_t> tokens;
  BlockMask mask(16);
  for (int32_t i = 0; i < 16; ++i) {
    rows.push_back({0, 250 + i, seq});
    tokens.push_back(250 + i);
    for (int32_t j = 0; j < 16; ++j) mask.set(i, j);
  }
  Batch batch;
  batch.rows = rows;
  batch.mask = &mask;
  run_step(cache, ctx, data, data.params(), batch, tokens, out);
  const std::vector<double> want =
      attention_oracle(data, data.params(), GetParam(), GetParam(),
                       [](int64_t i, int64_t j) { return i < 250 ? j <= i : j < 266; });
  for (size_t i = 250 * 6 * 64; i < 266 * 6 * 64; ++i) ASSERT_NEAR(out[i], want[i], 3e-5);
}

TEST_P(TreeTest, ARowThatSeesAPositionTwiceIsAnError) {
  KvCache cache(config(32));
  const SeqId seq = cache.create();
  std::vector<float> out;
  run_chunks(cache, seq, ctx, data, data.params(), 0, 10, 10, out);
  const std::vector<Row> twins = {{0, 10, seq}, {0, 10, seq}}, old = {{0, 9, seq}};
  Batch batch;
  batch.rows = twins;
  const Status twice = cache.begin_step(batch);
  ASSERT_FALSE(twice);
  EXPECT_EQ(twice.error().message(), "batch row 1: sees position 10 twice");
  batch.rows = old;
  EXPECT_FALSE(cache.begin_step(batch));
  EXPECT_EQ(cache.length(seq), 10);
}

INSTANTIATE_TEST_SUITE_P(Codecs, TreeTest, ::testing::Values(KvType::kF16, KvType::kBF16, KvType::kQ8_0),
                         [](const auto& test) { return std::string(kv_codec_name(test.param)); });

}  // namespace
}  // namespace mete
