#include "engine/receipt.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <nlohmann/json.hpp>
#include <numeric>

#include "engine/engine.h"
#include "testing/tiny_models.h"

namespace mete {
namespace {

int64_t g_reads = 0;
/// Each look at the clock takes a microsecond: every time in the ledger counts looks, so sums are exact.
int64_t counting_clock() { return 1000 * ++g_reads; }

class ReceiptTest : public ::testing::Test {
 protected:
  ReceiptTest() {
    const std::vector<uint8_t> bytes = testing::named_tiny_model_gguf("llama", DType::kQ4_0);
    path_ = ::testing::TempDir() + "receipt_test_" + std::to_string(::getpid()) + ".gguf";
    std::FILE* file = std::fopen(path_.c_str(), "wb");
    std::fwrite(bytes.data(), 1, bytes.size(), file);
    std::fclose(file);
    RuntimeConfig config;
    config.model_path = path_;
    config.threads = 2;
    config.context = 64;
    config.max_rows = 8;
    config.max_seqs = 2;
    config.ledger_clock = counting_clock;
    runtime_ = std::make_unique<Runtime>(config);
  }
  ~ReceiptTest() override { std::remove(path_.c_str()); }
  static Request request(int length, int64_t max_tokens) {
    Request r;
    for (int i = 0; i < length; ++i) r.prompt.push_back((i * 31) % 300);
    r.max_tokens = max_tokens;
    r.ignore_eos = true;
    r.sampling.temperature = 0;
    return r;
  }
  std::string path_;
  std::unique_ptr<Runtime> runtime_;
};

TEST_F(ReceiptTest, PartsOfARunAddUpToItsWallTime) {
  Engine engine(*runtime_);
  const SeqId seq = engine.submit(request(20, 6)).value();
  while (!engine.idle()) engine.step();
  const SequenceLedger& ledger = engine.ledger(seq);
  int64_t parts = 0;
  for (size_t i = 0; i < kPartCount; ++i) parts += ledger.at_last.ticks[i] - ledger.at_submit.ticks[i];
  EXPECT_EQ(parts, ledger.at_last.clock_ns - ledger.at_submit.clock_ns);

  const LedgerReport prefill = ledger.prefill(), decode = ledger.decode(), spent = ledger.spent();
  EXPECT_DOUBLE_EQ(prefill.wall_s + decode.wall_s, spent.wall_s);
  EXPECT_EQ(prefill.count(Counter::kSteps), 3);  // 8 + 8 + 4 rows
  EXPECT_EQ(prefill.count(Counter::kRows), 20);
  EXPECT_EQ(prefill.count(Counter::kPromptTokens), 20);
  EXPECT_EQ(prefill.count(Counter::kGeneratedTokens), 1);
  EXPECT_EQ(decode.count(Counter::kGeneratedTokens), 5);
  for (const Part part : {Part::kSchedule, Part::kEmbed, Part::kElementwise, Part::kMatmul, Part::kKvStore,
                          Part::kAttention, Part::kLogits, Part::kSample}) {
    EXPECT_GT(prefill.seconds_in(part), 0) << name(part);
    EXPECT_GT(decode.seconds_in(part), 0) << name(part);
  }
  EXPECT_EQ(spent.seconds_in(Part::kExperts), 0);
}

TEST_F(ReceiptTest, BytesAreThoseOfTheModel) {
  Engine engine(*runtime_);
  const SeqId seq = engine.submit(request(3, 5)).value();
  while (!engine.idle()) engine.step();
  const LedgerReport decode = engine.ledger(seq).decode();
  const ModelConfig& m = runtime_->model_config();
  // bytes_per_token counts the norms too, which no op reports.
  const int64_t weights = (decode.bytes_in(Part::kMatmul) + decode.bytes_in(Part::kLogits)) / 4;
  EXPECT_EQ((decode.bytes_in(Part::kMatmul) + decode.bytes_in(Part::kLogits)) % 4, 0);
  EXPECT_LE(weights, m.bytes_per_token);
  EXPECT_GT(weights, m.bytes_per_token * 9 / 10);
  // Steps at positions 3, 4, 5, 6 see 4, 5, 6, 7 keys.
  const KvLayout& layout = runtime_->kv().layout();
  const auto slot = static_cast<int64_t>(layout.key_tile() + layout.value_tile()) / kTileSlots;
  EXPECT_EQ(decode.bytes_in(Part::kAttention), (4 + 5 + 6 + 7) * m.kv_heads * m.layers * slot);
  EXPECT_EQ(decode.count(Counter::kKvBytesWritten), 4 * m.kv_heads * m.layers * slot);
}

TEST_F(ReceiptTest, JsonAndTextShowTheParts) {
  Engine engine(*runtime_);
  const SeqId seq = engine.submit(request(3, 2)).value();
  while (!engine.idle()) engine.step();
  const LedgerReport spent = engine.ledger(seq).spent();
  const nlohmann::ordered_json json = to_json(spent);
  double sum = 0;
  for (const auto& [key, part] : json["parts"].items()) sum += part["s"].get<double>();
  EXPECT_NEAR(sum, json["wall_s"].get<double>(), 1e-12);
  EXPECT_FALSE(json["parts"].contains("experts"));
  EXPECT_EQ(json["generated_tokens"], 2);
  EXPECT_GT(json["reports"], 20);  // two steps over the parts of a layer
  const std::string text = describe("all", spent);
  EXPECT_NE(text.find("  attention "), std::string::npos);
  EXPECT_EQ(text.find("experts"), std::string::npos);
}

TEST_F(ReceiptTest, NothingGeneratedIsAnEmptyReport) {
  Engine engine(*runtime_);
  const SeqId seq = engine.submit(request(3, 2)).value();
  engine.cancel(seq);
  EXPECT_EQ(engine.ledger(seq).spent().wall_s, 0);
  EXPECT_EQ(describe("all", engine.ledger(seq).spent()), "");
}

}  // namespace
}  // namespace mete
