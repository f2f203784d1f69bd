// A tiny model behind an engine, and requests run to their end.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "testing/tiny_models.h"

namespace mete::testing {

/// A tiny model in a temporary file, loaded with a context of 64 tokens.
class EngineTest : public ::testing::Test {
 protected:
  EngineTest() {
    config_.model_path = path_ = temporary(".gguf");
    config_.threads = 2;
    config_.context = 64;
    config_.max_rows = 24;
    config_.max_seqs = 8;
    write_model("llama");
    load();
  }
  ~EngineTest() override { std::remove(path_.c_str()); }

  static std::string temporary(const std::string& suffix) {
    return ::testing::TempDir() + "engine_test_" + std::to_string(::getpid()) + suffix;
  }
  void write_model(const std::string& name) {
    const std::vector<uint8_t> bytes = named_tiny_model_gguf(name, DType::kQ4_0);
    std::FILE* file = std::fopen(path_.c_str(), "wb");
    std::fwrite(bytes.data(), 1, bytes.size(), file);
    std::fclose(file);
  }
  void load() {
    runtime_.reset();
    runtime_ = std::make_unique<Runtime>(config_);
  }

  static Request request(std::vector<int32_t> prompt, int64_t max_tokens, float temperature = 0,
                         uint64_t seed = 0) {
    Request r;
    r.prompt = std::move(prompt);
    r.max_tokens = max_tokens;
    r.ignore_eos = true;
    r.sampling.temperature = temperature;
    r.sampling.seed = seed;
    r.top_logprobs = 2;
    return r;
  }
  struct Outcome {
    std::vector<int32_t> tokens;
    FinishReason reason;
    uint64_t hash;
    std::vector<std::pair<int32_t, float>> logprobs;  ///< of each token, then of its likeliest
    bool operator==(const Outcome& o) const {
      return tokens == o.tokens && reason == o.reason && hash == o.hash && logprobs == o.logprobs;
    }
  };
  /// Runs all requests until the engine is idle, `steps` steps after each submission; outcomes in the order
  /// of the requests.
  static std::vector<Outcome> run(Engine& engine, const std::vector<Request>& requests, int steps = 0) {
    std::vector<SeqId> ids;
    std::map<SeqId, Outcome> outcomes;
    const auto step = [&] {
      for (const TokenEvent& e : engine.step()) {
        Outcome& o = outcomes[e.seq];
        o.reason = e.reason;
        o.logprobs.emplace_back(e.token, e.logprob);
        for (const TokenLogprob& t : e.top) o.logprobs.emplace_back(t.token, t.logprob);
      }
    };
    for (const Request& r : requests) {
      ids.push_back(engine.submit(r).value());
      for (int i = 0; i < steps; ++i) step();
    }
    while (!engine.idle()) step();
    std::vector<Outcome> in_order;
    for (const SeqId id : ids) {
      outcomes[id].tokens = engine.tokens(id);
      outcomes[id].hash = engine.logits_hash(id);
      in_order.push_back(outcomes[id]);
      engine.release(id);
    }
    return in_order;
  }

  std::vector<Outcome> run_fresh(const std::vector<Request>& requests) {
    Engine engine(*runtime_);
    return run(engine, requests);
  }

  std::string path_;
  RuntimeConfig config_;
  std::unique_ptr<Runtime> runtime_;
};

}  // namespace mete::testing
