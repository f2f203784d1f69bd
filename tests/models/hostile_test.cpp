// Random absurd values in metadata and weights: a file is refused with an Error of one line, or it runs.
#include <gtest/gtest.h>

#include "base/rng.h"
#include "models/float_kv.h"
#include "models/model.h"
#include "testing/tiny_models.h"

namespace mete {
namespace {

constexpr uint32_t kIntegers[] = {
    0,  1,  2,   3,   4,   5,   7,    8,     12,    16,       31,          33,          63,
    64, 96, 128, 255, 256, 512, 1024, 65535, 65536, 1u << 20, 2147483647u, 2147483648u, 4294967295u};
constexpr float kFloats[] = {0.0f, -0.0f, -1.0f,  1e-38f, 1e-30f, 1e-5f,   0.3f,     0.5f,      1.0f, 1.5f,
                             2.0f, 4.0f,  100.0f, 1e6f,   1e12f,  3.4e38f, INFINITY, -INFINITY, NAN};

class Dice {
 public:
  explicit Dice(uint64_t seed) : seed_(seed) {}
  uint64_t roll(uint64_t sides) { return random_bits(seed_, count_++, Purpose::kTest) % sides; }

 private:
  uint64_t seed_, count_ = 0;
};

/// Changes one to three numbers of the architecture's own keys.
void spoil_metadata(nlohmann::json& metadata, Dice& dice) {
  std::vector<std::string> keys;
  for (const auto& [key, typed] : metadata.items()) {
    const bool number = typed[0] == "u32" || typed[0] == "f32";
    if (number && key.rfind("tokenizer.", 0) != 0) keys.push_back(key);
  }
  for (uint64_t n = 1 + dice.roll(3); n > 0; --n) {
    nlohmann::json& typed = metadata[keys[dice.roll(keys.size())]];
    if (typed[0] == "u32") {
      typed[1] = kIntegers[dice.roll(std::size(kIntegers))];
    } else {
      typed[1] = 0;
      typed[0] = "f32bits";
      typed[1] = std::bit_cast<uint32_t>(kFloats[dice.roll(std::size(kFloats))]);
    }
  }
}

/// The file with some of its last bytes, which are weights, replaced.
void spoil_weights(std::vector<uint8_t>& bytes, Dice& dice) {
  for (int i = 0; i < 20; ++i) {
    const size_t place = bytes.size() / 2 + dice.roll(bytes.size() / 2);
    bytes[place] = static_cast<uint8_t>(dice.roll(256));
  }
}

TEST(HostileModel, IsRefusedOrRuns) {
  ThreadPool pool(2);
  KernelTable table{};
  fill_gemm_float(choose_cpu_tier(), table);
  fill_gemm_q32(choose_cpu_tier(), table);
  fill_floats(choose_cpu_tier(), table);
  Context ctx{pool, table};
  int refused = 0, ran = 0;
  for (const char* name : {"llama3", "mistral", "qwen2_yarn", "qwen3", "gemma3_scaled", "gemma3n",
                           "phi3_long", "deepseek2_lite", "deepseek3", "gpt_oss"}) {
    const nlohmann::json original = testing::read_tiny_model(name).json;
    for (uint64_t seed = 0; seed < 60; ++seed) {
      Dice dice(seed);
      nlohmann::json json = original;
      if (seed % 4 != 0) spoil_metadata(json["metadata"], dice);
      std::vector<uint8_t> bytes = testing::tiny_model_gguf(json, seed % 2 == 0 ? DType::kF16 : DType::kQ8_0);
      if (seed % 4 == 0) spoil_weights(bytes, dice);
      try {
        const GgufFile file = GgufFile::parse(bytes).value();
        LoadOptions options;
        options.max_rows = 4;
        options.context = static_cast<int64_t>(dice.roll(100));
        const std::unique_ptr<Model> model = load_model(ctx, file, options);
        const ModelConfig& config = model->config();
        testing::FloatKv kv(config);
        std::vector<Row> rows(4);
        for (size_t i = 0; i < rows.size(); ++i) {
          rows[i].token = static_cast<int32_t>(i * 100);
          rows[i].position = i == 3 ? 1 << 20 : static_cast<int32_t>(i);
        }
        const std::vector<int32_t> wanted = {3};
        std::vector<float> logits(static_cast<size_t>(config.vocab));
        RowStats stats{};
        Batch batch;
        batch.rows = rows;
        batch.logits_rows = wanted;
        batch.want_stats = true;
        Outputs outputs;
        outputs.logits = logits.data();
        outputs.stats = &stats;
        kv.open(rows);
        model->forward(ctx, batch, kv, outputs);
        EXPECT_GE(stats.argmax, 0);
        EXPECT_LT(stats.argmax, config.vocab);
        ++ran;
      } catch (const Error& error) {
        EXPECT_NE(error.code(), Code::kUsage) << error.message();
        EXPECT_EQ(error.message().find('\n'), std::string::npos);
        ++refused;
      }
    }
  }
  EXPECT_GT(ran, 60);
  EXPECT_GT(refused, 60);
}

}  // namespace
}  // namespace mete
