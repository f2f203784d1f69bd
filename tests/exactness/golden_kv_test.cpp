// Tiny models through the real KV cache: each layer is within what the codec rounds away of transformers'
// results (tests/models/golden_test.cpp has the bound without a codec, 5e-6).
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "exactness/machine.h"
#include "models/float_kv.h"
#include "testing/tiny_models.h"

namespace mete::testing {
namespace {

double relative_error(const float* a, const float* b, int64_t n) {
  double difference = 0, norm = 0;
  for (int64_t i = 0; i < n; ++i) {
    difference += std::pow(static_cast<double>(a[i]) - b[i], 2);
    norm += std::pow(static_cast<double>(b[i]), 2);
  }
  return std::sqrt(difference / norm);
}

/// Which experts each row of each MoE layer took, in no order.
struct Routes final : RoutingTap {
  void routed(int layer, int64_t rows, int64_t used, const int32_t* ids, const float*) override {
    if (layers.size() <= static_cast<size_t>(layer)) layers.resize(static_cast<size_t>(layer) + 1);
    auto& sets = layers[static_cast<size_t>(layer)];
    for (int64_t r = 0; r < rows; ++r) sets.emplace_back(ids + r * used, ids + (r + 1) * used);
  }
  std::vector<std::vector<std::set<int32_t>>> layers;
};

class GoldenKv : public ::testing::TestWithParam<const char*> {};

TEST_P(GoldenKv, CodecExplainsTheErrorOfEveryLayer) {
  const TinyModel model = read_tiny_model(GetParam());
  const std::vector<uint8_t> bytes = tiny_model_gguf(model.json, DType::kF16);
  const GgufFile file = GgufFile::parse(bytes).value();
  const ModelConfig config = read_model_config(file);
  const auto tokens = model.json["tokens"].get<std::vector<int32_t>>();
  const auto wanted = model.json["rows"].get<std::vector<int32_t>>();
  std::vector<int32_t> layers;
  for (int32_t i = 0; i < config.layers; ++i) layers.push_back(i);
  Routes exact;  // without a codec
  {
    ThreadPool pool(2);
    const KernelTable kernels = make_kernel_table(supported_tiers().back());
    Context ctx{pool, kernels};
    LoadOptions options;
    options.context = model.json["context"];
    const std::unique_ptr<Model> reference = load_model(ctx, file, options);
    FloatKv kv(config);
    std::vector<Row> rows;
    for (size_t i = 0; i < tokens.size(); ++i) rows.push_back({tokens[i], static_cast<int32_t>(i), 0});
    const std::vector<int32_t> last = {static_cast<int32_t>(config.layers) - 1};
    std::vector<float> taps(tokens.size() * static_cast<size_t>(config.d_model));
    std::vector<float> logits(wanted.size() * static_cast<size_t>(config.vocab));
    Batch batch;
    batch.rows = rows;
    batch.logits_rows = wanted;
    batch.tap_layers = last;
    Outputs outputs;
    outputs.logits = logits.data();
    outputs.taps = taps.data();
    outputs.routing = &exact;
    kv.open(rows);
    reference->forward(ctx, batch, kv, outputs);
  }
  struct Case {
    KvType codec;
    double bound;
  };
  // A rounded key or value is off by up to 2^-11 (f16), 2^-8 (bf16), 2^-8 of its block's largest (q8_0); keys
  // count more than once, through scores of several nats.
  for (const Case& c : {Case{KvType::kF16, 1.5e-3}, Case{KvType::kBF16, 1.2e-2}, Case{KvType::kQ8_0, 3e-2}}) {
    if (c.codec == KvType::kQ8_0 && config.head_dim % 32 != 0) continue;
    MachineConfig setup;
    setup.codec = c.codec;
    setup.context = model.json["context"];
    Machine machine(file, setup);
    const SeqId seq = machine.kv().create();
    std::vector<Row> rows;
    for (size_t i = 0; i < tokens.size(); ++i) rows.push_back({tokens[i], static_cast<int32_t>(i), seq});
    Batch batch;
    batch.rows = rows;
    batch.logits_rows = wanted;
    batch.tap_layers = layers;
    std::vector<float> taps;
    Routes routes;
    const std::vector<float> logits = machine.step(batch, &taps, &routes);
    // A rounded key may tip a router's choice; from that layer on another function is computed.
    const auto moe_layers = static_cast<int64_t>(exact.layers.size());
    int64_t compared = config.layers;
    for (int64_t l = moe_layers - 1; l >= 0; --l) {
      if (routes.layers[static_cast<size_t>(l)] == exact.layers[static_cast<size_t>(l)]) continue;
      compared = config.layers - moe_layers + l;
    }
    if (c.codec == KvType::kF16) {
      EXPECT_EQ(compared, config.layers) << GetParam();
    }
    const float* golden = model.golden.data();
    double worst = 0;
    for (size_t r = 0; r < wanted.size(); ++r) {
      for (int64_t l = 0; l < config.layers; ++l, golden += config.d_model) {
        if (l >= compared) continue;
        const int64_t row = l * static_cast<int64_t>(tokens.size()) + wanted[r];
        worst = std::max(worst, relative_error(taps.data() + row * config.d_model, golden, config.d_model));
      }
      const float* ours = logits.data() + static_cast<int64_t>(r) * config.vocab;
      if (compared == config.layers) worst = std::max(worst, relative_error(ours, golden, config.vocab));
      golden += config.vocab;
    }
    RecordProperty(kv_codec_name(c.codec), std::to_string(worst));
    if (compared == 0) continue;
    EXPECT_LT(worst, c.bound) << GetParam() << " " << kv_codec_name(c.codec);
    EXPECT_GT(worst, c.bound / 100) << GetParam() << " " << kv_codec_name(c.codec) << ": rounds nothing?";
  }
}

INSTANTIATE_TEST_SUITE_P(Tiny, GoldenKv, ::testing::ValuesIn(kTinyModels),
                         [](const auto& param) { return std::string(param.param); });

}  // namespace
}  // namespace mete::testing
