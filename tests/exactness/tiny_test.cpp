// Same request, same bits: tiny models of every architecture, run in every way that must not matter.
#include <gtest/gtest.h>

#include "exactness/machine.h"
#include "testing/tiny_models.h"

namespace mete::testing {
namespace {

class TinyModels : public ::testing::TestWithParam<const char*> {
 protected:
  TinyModels()
      : bytes_(named_tiny_model_gguf(GetParam(), DType::kQ8_0)), file_(GgufFile::parse(bytes_).value()) {}
  Machine machine(const MachineConfig& config) const { return Machine(file_, config); }
  std::vector<uint8_t> bytes_;
  GgufFile file_;
};

// 700 tokens: three KV splits of 256, the last one partial.
constexpr int64_t kTokens = 700;

TEST_P(TinyModels, BatchSizeAndChunkingDoNotMatter) {
  Machine m = machine({});
  const std::vector<int32_t> tokens = some_tokens(kTokens, m.vocab());
  const uint64_t expected = hash_of(run_logits(m, tokens, kTokens > 512 ? 512 : kTokens));
  for (const int64_t chunk : {1, 2, 3, 8, 17, 64, 257}) {
    EXPECT_EQ(hash_of(run_logits(m, tokens, chunk)), expected) << "chunk " << chunk;
  }
}

TEST_P(TinyModels, ThreadsPagesAndNeighboursDoNotMatter) {
  Machine first = machine({});
  const std::vector<int32_t> tokens = some_tokens(300, first.vocab());
  const uint64_t expected = hash_of(run_logits(first, tokens, 64));
  for (const int threads : {1, 2, 3}) {
    for (const int page_slots : {16, 32}) {
      MachineConfig config;
      config.threads = threads;
      config.page_slots = page_slots;
      Machine m = machine(config);
      EXPECT_EQ(hash_of(run_logits(m, tokens, 50)), expected)
          << threads << " threads, pages of " << page_slots;
      EXPECT_EQ(hash_of(run_logits(m, tokens, 20, 4)), expected)
          << "beside others, " << threads << " threads";
    }
  }
}

TEST_P(TinyModels, FreeingPagesOutsideTheWindowsDoesNotMatter) {
  const std::vector<int32_t> windows = read_model_config(file_).windows;
  if (std::all_of(windows.begin(), windows.end(), [](int32_t w) { return w == 0; })) {
    GTEST_SKIP() << "no layer slides";
  }
  uint64_t hashes[2][2];
  size_t bytes[2];
  for (const bool freed : {false, true}) {
    MachineConfig config;
    config.free_hidden = freed;
    Machine m = machine(config);
    const std::vector<int32_t> tokens = some_tokens(400, m.vocab());
    for (const int64_t chunk : {1, 100}) hashes[freed][chunk > 1] = hash_of(run_logits(m, tokens, chunk));
    const SeqId seq = m.kv().create();
    for (int32_t i = 0; i < 400; ++i) {
      const Row row{tokens[static_cast<size_t>(i)], i, seq};
      Batch batch;
      batch.rows = {&row, 1};
      m.step(batch);
    }
    bytes[freed] = m.kv().bytes();
  }
  for (const bool freed : {false, true}) {
    for (const bool chunked : {false, true}) EXPECT_EQ(hashes[freed][chunked], hashes[0][0]);
  }
  EXPECT_LT(bytes[1], bytes[0]);
}

TEST_P(TinyModels, EveryTierGivesTheSameBits) {
  MachineConfig generic;
  generic.tier = CpuTier::kGeneric;
  Machine first = machine(generic);
  const std::vector<int32_t> tokens = some_tokens(80, first.vocab());
  const uint64_t expected = hash_of(run_logits(first, tokens, 64));
  for (const CpuTier tier : supported_tiers()) {
    MachineConfig config;
    config.tier = tier;
    Machine m = machine(config);
    EXPECT_EQ(hash_of(run_logits(m, tokens, 64)), expected) << name(tier);
    EXPECT_EQ(hash_of(run_logits(m, tokens, 1)), expected) << name(tier) << ", one by one";
  }
}

TEST_P(TinyModels, EveryKvCodecIsExactAndTheyDiffer) {
  std::vector<uint64_t> hashes;
  std::vector<KvType> codecs = {KvType::kF16, KvType::kBF16};
  if (read_model_config(file_).head_dim % 32 == 0)
    codecs.push_back(KvType::kQ8_0);  // its block along the head
  for (const KvType codec : codecs) {
    MachineConfig config;
    config.codec = codec;
    Machine m = machine(config);
    const std::vector<int32_t> tokens = some_tokens(100, m.vocab());
    hashes.push_back(hash_of(run_logits(m, tokens, 100)));
    EXPECT_EQ(hash_of(run_logits(m, tokens, 1)), hashes.back());
    EXPECT_EQ(hash_of(run_logits(m, tokens, 37, 2)), hashes.back());
  }
  for (size_t i = 1; i < hashes.size(); ++i) EXPECT_NE(hashes[0], hashes[i]);
}

// A tree of drafts: the right continuation, a wrong sibling at every depth. The right rows must have the bits
// of plain decoding, and after compaction so must everything that follows.
TEST_P(TinyModels, TreeVerificationThenCompactionEqualsPlainDecoding) {
  Machine m = machine({});
  const int64_t prefix = 270, depth = 6, tail = 12;
  const std::vector<int32_t> tokens = some_tokens(prefix + depth + tail, m.vocab());
  const std::vector<float> plain = run_logits(m, tokens, 64);

  const SeqId seq = m.kv().create();
  std::vector<Row> rows;
  for (int64_t i = 0; i < prefix; ++i)
    rows.push_back({tokens[static_cast<size_t>(i)], static_cast<int32_t>(i), seq});
  Batch batch;
  batch.rows = rows;
  m.step(batch);

  rows.clear();
  BlockMask mask(static_cast<int32_t>(2 * depth));
  std::vector<int32_t> wanted, kept;
  for (int32_t d = 0; d < depth; ++d) {
    const int32_t token = tokens[static_cast<size_t>(prefix + d)],
                  position = static_cast<int32_t>(prefix) + d;
    rows.push_back({(token + 1) % static_cast<int32_t>(m.vocab()), position, seq});  // row 2d: wrong
    rows.push_back({token, position, seq});                                          // row 2d + 1: right
    for (int32_t row : {2 * d, 2 * d + 1}) {
      mask.set(row, row);
      for (int32_t ancestor = 0; ancestor < d; ++ancestor) mask.set(row, 2 * ancestor + 1);
    }
    wanted.push_back(2 * d + 1);
    kept.push_back(static_cast<int32_t>(prefix) + 2 * d + 1);
  }
  batch.rows = rows;
  batch.mask = &mask;
  batch.logits_rows = wanted;
  const std::vector<float> tree = m.step(batch);
  const auto vocab = static_cast<size_t>(m.vocab());
  const auto at = [&](int64_t position) { return plain.data() + static_cast<size_t>(position) * vocab; };
  EXPECT_EQ(0, std::memcmp(tree.data(), at(prefix), tree.size() * sizeof(float)));

  ASSERT_TRUE(m.kv().compact(seq, kept));
  ASSERT_EQ(m.kv().length(seq), prefix + depth);
  for (int64_t i = prefix + depth; i < prefix + depth + tail; ++i) {
    const Row row{tokens[static_cast<size_t>(i)], static_cast<int32_t>(i), seq};
    const int32_t zero = 0;
    Batch one;
    one.rows = {&row, 1};
    one.logits_rows = {&zero, 1};
    const std::vector<float> logits = m.step(one);
    ASSERT_EQ(0, std::memcmp(logits.data(), at(i), logits.size() * sizeof(float))) << "position " << i;
  }
}

TEST_P(TinyModels, ScratchRowsLeaveNothingBehindAndTruncationIsExact) {
  Machine m = machine({});
  const std::vector<int32_t> tokens = some_tokens(40, m.vocab());
  const std::vector<float> plain = run_logits(m, tokens, 40);
  const SeqId seq = m.kv().create();
  const auto feed = [&](int64_t begin, int64_t end, int32_t shift, KvWrite write) {
    std::vector<Row> rows;
    std::vector<int32_t> wanted;
    for (int64_t i = begin; i < end; ++i) {
      const int32_t token = (tokens[static_cast<size_t>(i)] + shift) % static_cast<int32_t>(m.vocab());
      wanted.push_back(static_cast<int32_t>(rows.size()));
      rows.push_back({token, static_cast<int32_t>(i), seq, write});
    }
    Batch batch;
    batch.rows = rows;
    batch.logits_rows = wanted;
    return m.step(batch);
  };
  const auto matches = [&](const std::vector<float>& logits, int64_t begin) {
    const float* expected = plain.data() + static_cast<size_t>(begin * m.vocab());
    return std::memcmp(logits.data(), expected, logits.size() * sizeof(float)) == 0;
  };
  feed(0, 20, 0, KvWrite::kAppend);
  EXPECT_TRUE(matches(feed(20, 30, 0, KvWrite::kScratch), 20));
  EXPECT_EQ(m.kv().length(seq), 20);
  feed(20, 30, 5, KvWrite::kScratch);  // other tokens
  EXPECT_TRUE(matches(feed(20, 28, 0, KvWrite::kAppend), 20));
  feed(28, 35, 9, KvWrite::kAppend);  // a wrong turn, taken back
  ASSERT_TRUE(m.kv().truncate(seq, 28));
  EXPECT_TRUE(matches(feed(28, 40, 0, KvWrite::kAppend), 28));
}

INSTANTIATE_TEST_SUITE_P(All, TinyModels, ::testing::ValuesIn(kTinyModels),
                         [](const auto& tested) { return std::string(tested.param); });

// deepseek2: kv_b in one tensor, or taken apart into a transposed k_b and v_b. Of float weights both hold the
// same numbers, so the bits are the same.
TEST(LatentAttention, WholeAndSplitUpProjectionsGiveTheSameBits) {
  nlohmann::json json = read_tiny_model("deepseek2_lite").json, split = json;
  split["tensors"].clear();
  const int64_t heads = 4, plain = 32, value = 32, latent = 64;
  for (const auto& tensor : json["tensors"]) {
    const std::string name = tensor["name"];
    if (!name.ends_with("attn_kv_b.weight")) {
      split["tensors"].push_back(tensor);
      continue;
    }
    const std::vector<float> whole = tiny_weights(
        name, heads * (plain + value) * latent, tensor["scale"].get<float>(), tensor["offset"].get<float>());
    std::vector<float> k, v;
    for (int64_t h = 0; h < heads; ++h) {
      const float* rows = whole.data() + h * (plain + value) * latent;
      for (int64_t l = 0; l < latent; ++l) {
        for (int64_t i = 0; i < plain; ++i) k.push_back(rows[i * latent + l]);
      }
      v.insert(v.end(), rows + plain * latent, rows + (plain + value) * latent);
    }
    const std::string stem = name.substr(0, name.size() - 11);
    split["tensors"].push_back(
        {{"name", stem + "k_b.weight"}, {"dims", {plain, latent, heads}}, {"values", k}});
    split["tensors"].push_back(
        {{"name", stem + "v_b.weight"}, {"dims", {latent, value, heads}}, {"values", v}});
  }
  const char* kArch = "deepseek2.attention.";
  split["metadata"][std::string(kArch) + "head_count_kv"] = {"u32", 1};
  split["metadata"][std::string(kArch) + "key_length_mla"] = {"u32", 64};
  split["metadata"][std::string(kArch) + "value_length_mla"] = {"u32", 32};
  split["metadata"][std::string(kArch) + "key_length"] = {"u32", 96};
  split["metadata"][std::string(kArch) + "value_length"] = {"u32", 64};
  std::vector<uint64_t> hashes;
  for (const auto& each : {json, split}) {
    const std::vector<uint8_t> bytes = tiny_model_gguf(each, DType::kF32);
    const GgufFile file = GgufFile::parse(bytes).value();
    Machine m(file, {});
    hashes.push_back(hash_of(run_logits(m, some_tokens(70, m.vocab()), 13)));
  }
  EXPECT_EQ(hashes[0], hashes[1]);
}

// A token takes one key of latent and rotated part in each layer, and nothing else.
TEST(LatentAttention, TheCacheHoldsTheLatentOnce) {
  const std::vector<uint8_t> bytes = named_tiny_model_gguf("deepseek3", DType::kQ8_0);
  const GgufFile file = GgufFile::parse(bytes).value();
  Machine m(file, {});
  const SeqId seq = m.kv().create();
  std::vector<Row> rows;
  for (int32_t i = 0; i < 64; ++i) rows.push_back({i, i, seq});
  Batch batch;
  batch.rows = rows;
  m.step(batch);
  EXPECT_EQ(m.kv().bytes(), 64u * 3u * (64u + 32u) * 2u);  // tokens, layers, elements, bytes of f16
}

// Every weight type: chunking, threads and tiers do not matter, and the bits are those that were committed,
// so that two compilers agree.
class WeightTypes : public ::testing::TestWithParam<std::tuple<const char*, DType>> {};

TEST_P(WeightTypes, SameBitsForEveryTierAndChunk) {
  const std::vector<uint8_t> bytes = named_tiny_model_gguf(std::get<0>(GetParam()), std::get<1>(GetParam()));
  const GgufFile file = GgufFile::parse(bytes).value();
  uint64_t expected = 0;
  for (const CpuTier tier : supported_tiers()) {
    MachineConfig config;
    config.tier = tier;
    Machine m(file, config);
    const std::vector<int32_t> tokens = some_tokens(70, m.vocab());
    if (tier == CpuTier::kGeneric) expected = hash_of(run_logits(m, tokens, 70));
    for (const int64_t chunk : {1, 3, 17, 64}) {
      EXPECT_EQ(hash_of(run_logits(m, tokens, chunk)), expected) << name(tier) << ", chunk " << chunk;
    }
  }
}

std::string name_of(const ::testing::TestParamInfo<std::tuple<const char*, DType>>& tested) {
  return std::string(std::get<0>(tested.param)) + "_" + name(std::get<1>(tested.param));
}
INSTANTIATE_TEST_SUITE_P(All, WeightTypes,
                         ::testing::Combine(::testing::Values("llama"), ::testing::ValuesIn(kAllDTypes)),
                         name_of);
INSTANTIATE_TEST_SUITE_P(Experts, WeightTypes,
                         ::testing::Combine(::testing::Values("gpt_oss", "deepseek2_lite"),
                                            ::testing::Values(DType::kMXFP4, DType::kQ4_0, DType::kF16)),
                         name_of);

}  // namespace
}  // namespace mete::testing
