// The expert store never changes a bit: every arena from the floor to all experts, every policy, prefetch,
// way of reading, fault that is retried, and change of size. Replay of a live run's trace predicts its
// counts.
#include "weights/expert_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <iterator>
#include <memory>

#include "engine/routing_recorder.h"
#include "exactness/machine.h"
#include "testing/bad_drive.h"
#include "testing/tiny_models.h"
#include "weights/pack_experts.h"
#include "weights/replay.h"

namespace mete::testing {
namespace {

class StoredExperts : public ::testing::TestWithParam<const char*> {
 protected:
  StoredExperts() : path_(::testing::TempDir() + "/mete_stored_" + std::to_string(::getpid()) + GetParam()) {
    const std::vector<uint8_t> bytes = named_tiny_model_gguf(GetParam(), DType::kQ8_0);
    std::ofstream(path_, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    file_ = std::make_unique<GgufFile>(GgufFile::open(path_).value());
    const ExpertDeclaration experts = read_model_config(*file_).experts;
    layers_ = static_cast<int64_t>(experts.layers.size());
    all_ = layers_ * experts.experts;
    rule_ = LearnedRule(std::vector<LearnedNet>(static_cast<size_t>(layers_)));
    config_.replace.learned = &rule_;
    config_.slots = all_ / 2;
    config_.guesses = 2;
    config_.guess_threshold = 0;
    Machine resident(*file_, {});
    tokens_ = some_tokens(24, resident.vocab());
    for (const int64_t chunk : {1, 5, 24}) want_.push_back(hash_of(run_logits(resident, tokens_, chunk)));
    EXPECT_EQ(want_[0], want_[2]);
  }
  ~StoredExperts() override {
    for (const char* tail : {"", ".pack", ".trace"}) std::remove((path_ + tail).c_str());
  }

  std::unique_ptr<Machine> machine() {
    MachineConfig config;
    config.make_experts = [this](Context& ctx, const GgufFile& file, const ExpertDeclaration& declaration,
                                 const LoadOptions&) {
      auto store = std::make_unique<ExpertStore>(ctx, file, declaration, config_);
      store_ = store.get();
      return store;
    };
    return std::make_unique<Machine>(*file_, config);
  }
  void expect_same_bits(Machine& m) {
    size_t i = 0;
    for (const int64_t chunk : {1, 5, 24}) EXPECT_EQ(hash_of(run_logits(m, tokens_, chunk)), want_[i++]);
  }

  std::string path_;
  std::unique_ptr<GgufFile> file_;
  int64_t layers_ = 0, all_ = 0;
  LearnedRule rule_;
  ExpertStoreConfig config_;
  ExpertStore* store_ = nullptr;
  std::vector<int32_t> tokens_;
  std::vector<uint64_t> want_;
};
INSTANTIATE_TEST_SUITE_P(Models, StoredExperts,
                         ::testing::Values("mixtral", "qwen2moe", "qwen3moe", "deepseek2", "gpt_oss"),
                         [](const auto& test) { return std::string(test.param); });

TEST_P(StoredExperts, EveryArena) {
  for (int64_t slots = layers_; slots <= all_; ++slots) {
    config_.slots = slots;
    SCOPED_TRACE(slots);
    const auto m = machine();
    expect_same_bits(*m);
    EXPECT_GT(store_->stats().disk_bytes, 0);
  }
}

TEST_P(StoredExperts, EveryPolicyPoolAndPrefetch) {
  for (const ReplaceKind kind : kAllReplaceKinds) {
    for (const bool shared : {false, true}) {
      for (const int32_t guesses : {0, 1, 4}) {
        config_.replace.kind = kind, config_.shared = shared, config_.guesses = guesses;
        SCOPED_TRACE(name(kind));
        const auto m = machine();
        expect_same_bits(*m);
      }
    }
  }
}

TEST_P(StoredExperts, EveryWayOfReading) {
  ThreadPool pool(1);
  const KernelTable kernels{};
  Context ctx{pool, kernels};
  const ExpertDeclaration experts = read_model_config(*file_).experts;
  ASSERT_TRUE(pack_experts(ctx, *file_, experts, path_ + ".pack", {}));
  for (const bool packed : {false, true}) {
    for (const bool direct : {false, true}) {
      for (const ReadWay way : {ReadWay::kAuto, ReadWay::kThreads}) {
        for (const int threads : {1, 2, 8}) {
          config_.pack_path = packed ? path_ + ".pack" : "";
          config_.direct = direct, config_.way = way, config_.threads = config_.depth = threads;
          const auto m = machine();
          SCOPED_TRACE(store_->how());
          expect_same_bits(*m);
        }
      }
    }
  }
}

TEST_P(StoredExperts, FaultsThatAreRetriedAndADriveThatComesBack) {
  bool gone = false;
  for (const bool cut : {false, true}) {
    config_.wrap_reader = [&](auto reader) {
      return std::make_unique<BadDrive>(std::move(reader), 3, cut, &gone);
    };
    config_.slots = layers_;
    const auto m = machine();
    expect_same_bits(*m);
    EXPECT_TRUE(store_->stats().retries > 0);
    gone = true;
    try {
      run_logits(*m, some_tokens(24, m->vocab(), 7), 5);
      ADD_FAILURE() << "no error";
    } catch (const Error& error) {
      EXPECT_EQ(error.exit_code(), 1);
      EXPECT_THAT(error.message(), ::testing::HasSubstr("cannot read expert"));
    }
    gone = false;
    expect_same_bits(*m);
  }
}

TEST_P(StoredExperts, ResizedWhileRunning) {
  const auto m = machine();
  for (const int64_t slots : {layers_, all_, all_ / 3 + layers_ / 2, all_ / 2}) {
    ASSERT_TRUE(store_->resize(slots));
    expect_same_bits(*m);
  }
}

TEST_P(StoredExperts, ReplayPredictsTheLiveCounts) {
  for (const ReplaceKind kind : kAllReplaceKinds) {
    for (const bool shared : {false, true}) {
      config_.replace.kind = kind, config_.shared = shared;
      const auto m = machine();
      RoutingRecorder recorder(path_ + ".trace", m->config());
      store_->set_log(&recorder);
      m->routing = &recorder;
      recorder.sequence();
      run_logits(*m, tokens_, 5);
      run_logits(*m, some_tokens(40, m->vocab(), 3), 1);
      recorder.close();
      std::ifstream in(path_ + ".trace", std::ios::binary);
      const std::vector<uint8_t> bytes((std::istreambuf_iterator<char>(in)),
                                       std::istreambuf_iterator<char>());
      const auto trace = RoutingTrace::parse(bytes);
      ASSERT_TRUE(trace) << trace.error().message();
      const ExpertCacheConfig cache{trace->layers,   trace->experts,  config_.slots,          shared,
                                    config_.guesses, config_.replace, config_.guess_threshold};
      const ExpertCounts got = replay(steps_of(*trace), cache), want = store_->stats().counts;
      EXPECT_EQ(got.hits, want.hits) << name(kind);
      EXPECT_EQ(got.misses, want.misses) << name(kind);
      EXPECT_EQ(got.guesses, want.guesses) << name(kind);
      EXPECT_EQ(got.useful_guesses, want.useful_guesses) << name(kind);
      EXPECT_GT(want.hits, 0);
    }
  }
}

TEST_P(StoredExperts, ARightGuessIsUseful) {
  config_.guesses = 4;
  config_.slots = layers_;
  const auto m = machine();
  run_logits(*m, tokens_, 1);
  if (layers_ > 1) {
    EXPECT_GT(store_->stats().counts.useful_guesses, 0);
  }
}

}  // namespace
}  // namespace mete::testing
