// Tiny models against Hugging Face transformers, layer by layer (tests/golden/models/make.py).
#include <gtest/gtest.h>

#include "models/float_kv.h"
#include "models/model.h"
#include "testing/tiny_models.h"

namespace mete {
namespace {

using testing::FloatKv;
using testing::TinyModel;

struct GoldenTest : ::testing::TestWithParam<const char*> {
  GoldenTest() {
    fill_gemm_float(choose_cpu_tier(), table);
    fill_floats(choose_cpu_tier(), table);
  }
  ThreadPool pool{2};
  KernelTable table{};
  Context ctx{pool, table};
};

struct RunResult {
  std::vector<float> taps;    // [layers][rows][d_model]
  std::vector<float> logits;  // [wanted][vocab]
};

/// All tokens of the golden run in batches of at most `chunk` rows; taps of every layer if `tapped`.
RunResult run(Context& ctx, const nlohmann::json& json, DType type, const std::vector<int32_t>& wanted,
              int64_t chunk, bool tapped) {
  const std::vector<uint8_t> bytes = testing::tiny_model_gguf(json, type);
  const GgufFile file = GgufFile::parse(bytes).value();
  LoadOptions options;
  options.context = json["context"];
  options.max_rows = chunk;
  const std::unique_ptr<Model> model = load_model(ctx, file, options);
  const ModelConfig& config = model->config();
  const auto tokens = json["tokens"].get<std::vector<int32_t>>();
  const auto count = static_cast<int64_t>(tokens.size());
  FloatKv kv(config);
  RunResult out;
  out.taps.resize(tapped ? static_cast<size_t>(config.layers * count * config.d_model) : 0);
  out.logits.resize(wanted.size() * static_cast<size_t>(config.vocab));
  std::vector<int32_t> layers;
  for (int32_t i = 0; tapped && i < config.layers; ++i) layers.push_back(i);
  size_t next_wanted = 0;
  for (int64_t begin = 0; begin < count; begin += chunk) {
    const int64_t end = std::min(count, begin + chunk);
    std::vector<Row> rows;
    std::vector<int32_t> logits_rows;
    const size_t first_wanted = next_wanted;
    for (int64_t i = begin; i < end; ++i) {
      Row row{};
      row.token = tokens[static_cast<size_t>(i)];
      row.position = static_cast<int32_t>(i);
      rows.push_back(row);
      if (next_wanted < wanted.size() && wanted[next_wanted] == i) {
        logits_rows.push_back(static_cast<int32_t>(i - begin));
        ++next_wanted;
      }
    }
    Batch batch;
    batch.rows = rows;
    batch.logits_rows = logits_rows;
    batch.tap_layers = layers;
    std::vector<float> taps(layers.size() * rows.size() * static_cast<size_t>(config.d_model));
    Outputs outputs;
    outputs.logits = out.logits.data() + first_wanted * static_cast<size_t>(config.vocab);
    outputs.taps = taps.data();
    kv.open(rows);
    model->forward(ctx, batch, kv, outputs);
    const size_t floats = rows.size() * static_cast<size_t>(config.d_model);
    for (size_t l = 0; l < layers.size(); ++l) {
      std::copy_n(taps.begin() + static_cast<int64_t>(l * floats), floats,
                  out.taps.begin() + (static_cast<int64_t>(l) * count + begin) * config.d_model);
    }
  }
  return out;
}

/// ||a - b|| / ||b||.
double relative_error(const float* a, const float* b, int64_t n) {
  double difference = 0, norm = 0;
  for (int64_t i = 0; i < n; ++i) {
    difference += std::pow(static_cast<double>(a[i]) - b[i], 2);
    norm += std::pow(static_cast<double>(b[i]), 2);
  }
  return std::sqrt(difference / norm);
}

/// Largest relative error over the dumped rows: of each layer's residual stream, and of the logits (last).
std::vector<double> golden_errors(const TinyModel& model, const RunResult& run) {
  const auto rows = model.json["rows"].get<std::vector<int64_t>>();
  const int64_t layers = model.json["layers"], d = model.json["d_model"], vocab = model.json["vocab"];
  const auto count = static_cast<int64_t>(model.json["tokens"].size());
  std::vector<double> errors(static_cast<size_t>(layers) + 1, 0.0);
  const float* golden = model.golden.data();
  for (size_t r = 0; r < rows.size(); ++r) {
    for (int64_t l = 0; l < layers; ++l, golden += d) {
      double& e = errors[static_cast<size_t>(l)];
      e = std::max(e, relative_error(run.taps.data() + (l * count + rows[r]) * d, golden, d));
    }
    const float* logits = run.logits.data() + static_cast<int64_t>(r) * vocab;
    errors.back() = std::max(errors.back(), relative_error(logits, golden, vocab));
    golden += vocab;
  }
  return errors;
}

TEST_P(GoldenTest, EveryLayerAndTheLogitsMatchTransformers) {
  const TinyModel model = testing::read_tiny_model(GetParam());
  const auto rows = model.json["rows"].get<std::vector<int32_t>>();
  for (const DType type : {DType::kF32, DType::kF16}) {
    const RunResult result = run(ctx, model.json, type, rows, 64, true);
    const std::vector<double> errors = golden_errors(model, result);
    for (size_t i = 0; i < errors.size(); ++i) {
      // Both sides compute in float32 in different orders: 64 to 256 terms of 2^-24 each, through 3 to 7
      // layers.
      EXPECT_LT(errors[i], 5e-6) << GetParam() << " " << name(type) << ", "
                                 << (i + 1 == errors.size() ? "logits" : "layer " + std::to_string(i));
    }
  }
}

TEST_P(GoldenTest, ChunksAndUnwantedRowsDoNotChangeTheBits) {
  const TinyModel model = testing::read_tiny_model(GetParam());
  const auto rows = model.json["rows"].get<std::vector<int32_t>>();
  const RunResult whole = run(ctx, model.json, DType::kF16, rows, 64, true);
  for (const int64_t chunk : {1, 7, 64}) {
    const RunResult tapped = run(ctx, model.json, DType::kF16, rows, chunk, true);
    EXPECT_EQ(whole.taps, tapped.taps) << "chunks of " << chunk;
    const RunResult plain = run(ctx, model.json, DType::kF16, rows, chunk, false);
    EXPECT_EQ(whole.logits, plain.logits) << "chunks of " << chunk;
    const RunResult last = run(ctx, model.json, DType::kF16, {rows.back()}, chunk, false);
    EXPECT_TRUE(std::equal(last.logits.begin(), last.logits.end(),
                           whole.logits.end() - model.json["vocab"].get<int>()));
  }
}

INSTANTIATE_TEST_SUITE_P(Tiny, GoldenTest, ::testing::ValuesIn(testing::kTinyModels),
                         [](const auto& param) { return std::string(param.param); });

/// What the golden data must be sensitive to: without the key, the error shows.
struct Sensitivity {
  const char* model;
  const char* key;
  nlohmann::json value;  // null: remove the key
};

TEST_F(GoldenTest, GoldenDataNoticesEveryHyperParameter) {
  const nlohmann::json none;
  const Sensitivity cases[] = {
      {"mistral", "llama.attention.sliding_window", none},
      {"mistral", "llama.attention.sliding_window", {"u32", 9}},
      {"llama_linear", "llama.rope.scaling.factor", none},
      {"llama_yarn", "llama.rope.scaling.yarn_beta_fast", none},
      {"llama_yarn", "llama.rope.scaling.original_context_length", none},
      {"qwen2_yarn", "qwen2.rope.scaling.yarn_attn_factor", none},
      {"gemma3", "gemma3.attention.sliding_window", {"u32", 9}},
      {"gemma3", "gemma3.attention.sliding_window_pattern", {"u32", 5}},
      {"gemma3", "gemma3.rope.freq_base", none},
      {"gemma3", "gemma3.rope.freq_base_swa", {"f32", 1000000.0}},
      {"gemma3_scaled", "gemma3.final_logit_softcapping", none},
      {"gemma3_scaled", "gemma3.rope.scaling.factor", none},
      {"phi3", "phi3.attention.sliding_window", none},
      {"phi3_long", "phi3.rope.scaling.attn_factor", none},
      {"phi3_long", "phi3.rope.dimension_count", none},
      {"mixtral", "llama.expert_used_count", {"u32", 3}},
      {"mixtral", "llama.expert_weights_norm", {"bool", false}},
      {"qwen2moe", "qwen2moe.expert_weights_norm", {"bool", true}},
      {"qwen3moe", "qwen3moe.expert_weights_norm", {"bool", false}},
      {"olmoe", "olmoe.expert_weights_norm", {"bool", true}},
      {"olmoe", "olmoe.expert_weights_scale", {"f32", 1.5f}},
      {"llama", "llama.attention.layer_norm_rms_epsilon", {"f32", 1e-3}},
      {"deepseek2", "deepseek2.expert_group_used_count", {"u32", 3}},
      {"deepseek2", "deepseek2.expert_weights_scale", none},
      {"deepseek2_lite", "deepseek2.rope.scaling.yarn_log_multiplier", none},
      {"deepseek2_lite", "deepseek2.rope.scaling.yarn_log_multiplier", {"f32", 0.1}},
      {"deepseek2_lite", "deepseek2.expert_weights_norm", {"bool", true}},
      {"deepseek3", "deepseek2.rope.scaling.yarn_beta_fast", none},
      {"deepseek3", "deepseek2.rope.scaling.factor", {"f32", 4.0}},
      {"deepseek3", "deepseek2.expert_weights_norm", none},
      {"deepseek3", "deepseek2.expert_weights_scale", {"f32", 1.0}},
      {"deepseek3", "deepseek2.expert_gating_func", {"u32", 1}},
      {"deepseek3", "deepseek2.expert_group_used_count", {"u32", 3}},
      {"gemma3n", "gemma3n.attention.sliding_window", {"u32", 9}},
      {"gemma3n", "gemma3n.attention.shared_kv_layers", {"u32", 4}},
      {"gemma3n", "gemma3n.rope.freq_base", none},
      {"gemma3n", "gemma3n.rope.freq_base_swa", {"f32", 1000000.0}},
      {"gemma3n", "gemma3n.altup.active_idx", {"u32", 1}},
      {"gemma3n", "gemma3n.activation_sparsity_scale", none},
      {"gemma3n", "gemma3n.final_logit_softcapping", none},
      {"gpt_oss", "gpt-oss.attention.sliding_window", {"u32", 9}},
      {"gpt_oss", "gpt-oss.attention.sliding_window_pattern", {"u32", 3}},
      {"gpt_oss", "gpt-oss.expert_used_count", {"u32", 3}},
      {"gpt_oss", "gpt-oss.rope.scaling.factor", {"f32", 4.0}},
  };
  for (const Sensitivity& c : cases) {
    TinyModel model = testing::read_tiny_model(c.model);
    if (c.value.is_null()) {
      ASSERT_EQ(model.json["metadata"].erase(c.key), 1u) << c.key;
    } else {
      model.json["metadata"][c.key] = c.value;
    }
    if (std::string_view(c.key) == "phi3.rope.dimension_count") {  // 8 divisors for 16 dimensions
      for (auto& tensor : model.json["tensors"]) {
        if (tensor.contains("values")) tensor["values"] = std::vector<float>(8, 1.5f);
      }
    }
    const auto rows = model.json["rows"].get<std::vector<int32_t>>();
    const std::vector<double> errors =
        golden_errors(model, run(ctx, model.json, DType::kF32, rows, 64, true));
    EXPECT_GT(errors.back(), 1e-4) << c.model << " without " << c.key;
  }
}

}  // namespace
}  // namespace mete
