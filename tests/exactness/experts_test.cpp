// Routed experts: whatever order and waves a source gives them in, the bits are those of the resident run; a
// failing source ends the step with its error and nothing else.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <numeric>

#include "base/rng.h"
#include "exactness/machine.h"
#include "models/float_kv.h"
#include "testing/tiny_models.h"
#include "text/tokenizer.h"
#include "weights/resident_experts.h"

namespace mete::testing {
namespace {

/// What a source saw, for all layers and steps.
struct Seen {
  std::vector<std::vector<ExpertDemand>> demands, hints;  // one entry per begin() and hint()
  std::vector<int> layers, hint_layers;
  bool open = false;
};

/// Gives resident experts in shuffled waves of at most `wave`, from a copy that dies with the next wave;
/// fails at the `fail_at`-th call of next() (never: -1).
class WaveSource final : public ExpertSource {
 public:
  WaveSource(std::unique_ptr<ExpertSource> all, size_t wave, int fail_at, Seen* seen)
      : all_(std::move(all)), wave_(wave), fail_at_(fail_at), seen_(seen) {}
  void begin(int layer, std::span<const ExpertDemand> demands) noexcept override {
    EXPECT_FALSE(seen_->open);
    seen_->open = true;
    seen_->layers.push_back(layer);
    seen_->demands.emplace_back(demands.begin(), demands.end());
    all_->begin(layer, demands);
    const std::span<const Ready> ready = all_->next().value();
    left_.assign(ready.begin(), ready.end());
    for (size_t i = left_.size(); i > 1; --i) {
      std::swap(left_[i - 1], left_[random_bits(7, calls_++, Purpose::kTest) % i]);
    }
  }
  Result<std::span<const Ready>> next() noexcept override {
    if (fail_at_ >= 0 && fail_at_-- == 0) return run_failure("the drive is gone");
    given_.clear();
    for (size_t i = 0; i < wave_ && !left_.empty(); ++i, left_.pop_back()) given_.push_back(left_.back());
    return std::span<const Ready>(given_);
  }
  void end() noexcept override {
    seen_->open = false;
    all_->end();
  }
  void hint(int layer, std::span<const ExpertDemand> demands) noexcept override {
    EXPECT_TRUE(seen_->open);
    seen_->hint_layers.push_back(layer);
    seen_->hints.emplace_back(demands.begin(), demands.end());
  }
  bool wants_hints() const noexcept override { return true; }

 private:
  std::unique_ptr<ExpertSource> all_;
  size_t wave_;
  int fail_at_;
  Seen* seen_;
  uint64_t calls_ = 0;
  std::vector<Ready> left_, given_;
};

MakeExperts waves(size_t wave, int fail_at, Seen* seen) {
  return [=](Context& ctx, const GgufFile& file, const ExpertDeclaration& declaration, const LoadOptions&) {
    return std::make_unique<WaveSource>(
        std::make_unique<ResidentExperts>(ctx, file, declaration, ReadOptions{}), wave, fail_at, seen);
  };
}

class TinyExperts : public ::testing::TestWithParam<const char*> {
 protected:
  TinyExperts()
      : bytes_(named_tiny_model_gguf(GetParam(), DType::kQ8_0)), file_(GgufFile::parse(bytes_).value()) {}
  std::vector<uint8_t> bytes_;
  GgufFile file_;
};

TEST_P(TinyExperts, WavesAndTheirOrderDoNotMatter) {
  Machine resident(file_, {});
  const std::vector<int32_t> tokens = some_tokens(90, resident.vocab());
  const uint64_t expected = hash_of(run_logits(resident, tokens, 40));
  for (const size_t wave : {1, 2, 3, 100}) {
    for (const int64_t chunk : {1, 9, 90}) {
      Seen seen;
      MachineConfig config;
      config.make_experts = waves(wave, -1, &seen);
      Machine m(file_, config);
      EXPECT_EQ(hash_of(run_logits(m, tokens, chunk)), expected)
          << "waves of " << wave << ", chunk " << chunk;
      EXPECT_FALSE(seen.open);
    }
  }
}

struct Recorder final : RoutingTap {
  void routed(int layer, int64_t rows, int64_t used, const int32_t* ids, const float* weights) override {
    layers.push_back(layer);
    rows_seen.push_back(rows);
    all_ids.emplace_back(ids, ids + rows * used);
    all_weights.insert(all_weights.end(), weights, weights + rows * used);
  }
  std::vector<int> layers;
  std::vector<int64_t> rows_seen;
  std::vector<std::vector<int32_t>> all_ids;
  std::vector<float> all_weights;
};

TEST_P(TinyExperts, DemandsAreWhatTheRouterChose) {
  Seen seen;
  MachineConfig config;
  config.make_experts = waves(2, -1, &seen);
  Machine m(file_, config);
  Recorder recorder;
  m.routing = &recorder;
  run_logits(m, some_tokens(50, m.vocab()), 20);
  const ExpertDeclaration& e = m.config().experts;
  const auto layers = static_cast<int>(e.layers.size());
  ASSERT_EQ(seen.layers, recorder.layers);
  ASSERT_EQ(seen.layers.size(), static_cast<size_t>(3 * layers));  // 20, 20 and 10 rows
  for (size_t i = 0; i < seen.demands.size(); ++i) {
    EXPECT_EQ(seen.layers[i], static_cast<int>(i) % layers);
    std::vector<int32_t> rows(static_cast<size_t>(e.experts), 0);
    for (const int32_t id : recorder.all_ids[i]) ++rows[static_cast<size_t>(id)];
    int32_t last = -1;
    for (const ExpertDemand& demand : seen.demands[i]) {
      EXPECT_GT(demand.expert, last);
      last = demand.expert;
      EXPECT_EQ(demand.rows, rows[static_cast<size_t>(demand.expert)]);
      rows[static_cast<size_t>(demand.expert)] = 0;
    }
    EXPECT_EQ(std::accumulate(rows.begin(), rows.end(), 0), 0) << "an expert was chosen and not demanded";
    for (size_t k = 0; k < recorder.all_ids[i].size(); k += static_cast<size_t>(e.used)) {
      std::vector<int32_t> ids(recorder.all_ids[i].begin() + static_cast<int64_t>(k),
                               recorder.all_ids[i].begin() + static_cast<int64_t>(k) + e.used);
      std::sort(ids.begin(), ids.end());
      EXPECT_EQ(std::adjacent_find(ids.begin(), ids.end()), ids.end());
    }
  }
  for (size_t i = 0; i < recorder.all_weights.size(); i += static_cast<size_t>(e.used)) {
    for (int64_t rank = 1; rank < e.used; ++rank) {
      EXPECT_GE(recorder.all_weights[i + static_cast<size_t>(rank) - 1],
                recorder.all_weights[i + static_cast<size_t>(rank)]);
    }
  }
}

TEST_P(TinyExperts, HintsNameTheNextLayerAndGuessBetterThanChance) {
  Seen seen;
  MachineConfig config;
  config.make_experts = waves(100, -1, &seen);
  Machine m(file_, config);
  run_logits(m, some_tokens(200, m.vocab()), 1);
  const ExpertDeclaration& e = m.config().experts;
  const size_t layers = e.layers.size();
  ASSERT_EQ(seen.hints.size(), seen.demands.size() / layers * (layers - 1));
  int64_t right = 0, all = 0;
  for (size_t i = 0; i < seen.hints.size(); ++i) {
    const size_t step = i / (layers - 1), layer = i % (layers - 1) + 1;
    EXPECT_EQ(seen.hint_layers[i], static_cast<int>(layer));
    for (const ExpertDemand& guess : seen.hints[i]) {
      ++all;
      for (const ExpertDemand& demand : seen.demands[step * layers + layer])
        right += demand.expert == guess.expert;
    }
  }
  EXPECT_GT(static_cast<double>(right) / static_cast<double>(all),
            1.1 * static_cast<double>(e.used) / static_cast<double>(e.experts));
}

TEST_P(TinyExperts, AFailingSourceEndsTheStepAndTheNextOneIsRight) {
  Machine resident(file_, {});
  const std::vector<int32_t> tokens = some_tokens(30, resident.vocab());
  const uint64_t expected = hash_of(run_logits(resident, tokens, 30));
  for (const int fail_at : {0, 1, 4}) {
    Seen seen;
    MachineConfig config;
    config.make_experts = waves(2, fail_at, &seen);
    Machine m(file_, config);
    try {
      run_logits(m, tokens, 30);
      FAIL() << "no error";
    } catch (const Error& error) {
      EXPECT_EQ(error.message(), "the drive is gone");
      EXPECT_EQ(error.code(), Code::kRuntime);
    }
    EXPECT_FALSE(seen.open);
    EXPECT_EQ(hash_of(run_logits(m, tokens, 30)), expected);
  }
}

// Independent arithmetic on a real file: 3.695 nats per token over the first 255 predictions, computed in
// float32 NumPy with unquantised activations by the file's maker.
TEST(SlowRealExperts, CrossEntropyIsThatOfFloat32Arithmetic) {
  const std::string path = model_path("smolmoe-268m-a81m-q4_0.gguf");
  const char* data = std::getenv("METE_DATA_DIR");
  std::ifstream text(std::string(data == nullptr ? "." : data) + "/wikitext2-valid.txt");
  if (!std::filesystem::exists(path) || !text) GTEST_SKIP() << "no SmolMoE, or no wikitext2-valid.txt";
  const GgufFile file = GgufFile::open(path).value();
  std::string start(8192, ' ');
  text.read(start.data(), static_cast<std::streamsize>(start.size()));
  std::vector<int32_t> tokens = Tokenizer::create(file.metadata()).value()->encode(start, false);
  ASSERT_GE(tokens.size(), 300u);
  tokens.resize(256);

  const KernelTable kernels = make_kernel_table(choose_cpu_tier());
  ThreadPool pool(2);
  Context ctx{pool, kernels, NumericMode::kReference};
  LoadOptions options;
  options.max_rows = 256;
  const std::unique_ptr<Model> model = load_model(ctx, file, options);
  FloatKv kv(model->config());
  std::vector<Row> rows;
  std::vector<int32_t> wanted;
  for (int32_t i = 0; i < 256; ++i) rows.push_back({tokens[static_cast<size_t>(i)], i, 0});
  for (int32_t i = 0; i < 255; ++i) wanted.push_back(i);
  std::vector<float> logits(wanted.size() * static_cast<size_t>(model->config().vocab));
  std::vector<RowStats> stats(wanted.size());
  Batch batch;
  batch.rows = rows;
  batch.logits_rows = wanted;
  batch.want_stats = true;
  Outputs outputs;
  outputs.logits = logits.data();
  outputs.stats = stats.data();
  kv.open(rows);
  model->forward(ctx, batch, kv, outputs);
  double sum = 0;
  for (size_t i = 0; i < wanted.size(); ++i) {
    const auto next = static_cast<size_t>(tokens[i + 1]);
    sum += stats[i].log_sum_exp - logits[i * static_cast<size_t>(model->config().vocab) + next];
  }
  EXPECT_NEAR(sum / 255, 3.695, 0.001);
}

INSTANTIATE_TEST_SUITE_P(All, TinyExperts, ::testing::Values("mixtral", "qwen2moe", "qwen3moe", "olmoe"),
                         [](const auto& tested) { return std::string(tested.param); });

}  // namespace
}  // namespace mete::testing
