// A model with its own threads, kernels and KV memory, and runs of it that hash logits. The exactness tests
// compare such hashes between ways of running that must not matter.
#pragma once

#include <xxhash.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "engine/budget.h"
#include "kv/kv_cache.h"
#include "models/model.h"
#include "testing/model_path.h"

namespace mete::testing {

/// Everything that must not change a bit, and the KV codec, which may.
struct MachineConfig {
  CpuTier tier = supported_tiers().back();
  int threads = 2;
  int page_slots = 32;
  KvType codec = KvType::kF16;
  int64_t max_rows = 512;
  int64_t context = 2048;
  bool free_hidden = true;  ///< pages that sliding windows hide are freed
  NumericMode mode = NumericMode::kStandard;
  MakeExperts make_experts{};
  bool rows_on_disk = false;
  RowStoreConfig rows{};
};

class Machine {
 public:
  Machine(const GgufFile& file, const MachineConfig& config)
      : kernels_(make_kernel_table(config.tier)),
        pool_(config.threads),
        context_{pool_, kernels_, config.mode} {
    LoadOptions load;
    load.context = config.context;
    load.max_rows = config.max_rows;
    load.make_experts = config.make_experts;
    load.rows_on_disk = config.rows_on_disk;
    load.rows = config.rows;
    model_ = load_model(context_, file, load);
    KvConfig kv = kv_shape(model_->config());
    if (!config.free_hidden) kv.windows.clear();
    kv.key_codec = kv.value_codec = config.codec;
    kv.page_slots = config.page_slots;
    kv.max_slots = config.context * 4;
    kv_ = std::make_unique<KvCache>(kv);
  }
  KvCache& kv() { return *kv_; }
  int64_t vocab() const { return model_->config().vocab; }
  const Model& model() const { return *model_; }
  const ModelConfig& config() const { return model_->config(); }
  RoutingTap* routing = nullptr;  ///< of later steps

  /// One step; returns [wanted][vocab], and fills taps [tap_layers][rows][d_model]. Throws the step's error.
  std::vector<float> step(const Batch& batch, std::vector<float>* taps = nullptr,
                          RoutingTap* step_routing = nullptr) {
    std::vector<float> logits(batch.logits_rows.size() * static_cast<size_t>(vocab()));
    Outputs outputs;
    outputs.logits = logits.data();
    outputs.routing = step_routing != nullptr ? step_routing : routing;
    if (taps != nullptr) {
      taps->resize(batch.tap_layers.size() * batch.rows.size() *
                   static_cast<size_t>(model_->config().d_model));
      outputs.taps = taps->data();
    }
    kv_->begin_step(batch).or_throw();
    model_->forward(context_, batch, kv_->access(), outputs);
    kv_->end_step();
    outputs.status.or_throw();
    return logits;
  }

 private:
  KernelTable kernels_;
  ThreadPool pool_;
  Context context_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<KvCache> kv_;
};

/// Positions whose logits a run keeps: every `stride`-th and the last.
struct Keep {
  int64_t stride = 1;
  bool operator()(int64_t position, int64_t count) const {
    return position % stride == 0 || position + 1 == count;
  }
};

/// Logits of the kept positions of `tokens`, fed in steps of `chunk` rows. `neighbours` other sequences with
/// other tokens share every step, before and after ours.
inline std::vector<float> run_logits(Machine& machine, const std::vector<int32_t>& tokens, int64_t chunk,
                                     int neighbours = 0, Keep keep = {}) {
  const auto count = static_cast<int64_t>(tokens.size());
  const SeqId seq = machine.kv().create();
  std::vector<SeqId> others;
  for (int i = 0; i < neighbours; ++i) others.push_back(machine.kv().create());
  std::vector<float> all;
  for (int64_t begin = 0; begin < count; begin += chunk) {
    const int64_t end = std::min(count, begin + chunk);
    std::vector<Row> rows;
    std::vector<int32_t> wanted;
    const auto add = [&](SeqId id, int32_t shift) {
      for (int64_t i = begin; i < end; ++i) {
        const int32_t token =
            (tokens[static_cast<size_t>(i)] + shift) % static_cast<int32_t>(machine.vocab());
        rows.push_back({token, static_cast<int32_t>(i), id});
      }
    };
    for (size_t i = 0; i < others.size() / 2; ++i) add(others[i], static_cast<int32_t>(i) + 1);
    for (int64_t i = begin; i < end; ++i) {
      if (keep(i, count))
        wanted.push_back(static_cast<int32_t>(static_cast<int64_t>(rows.size()) + i - begin));
    }
    add(seq, 0);
    for (size_t i = others.size() / 2; i < others.size(); ++i) add(others[i], static_cast<int32_t>(i) + 1);
    Batch batch;
    batch.rows = rows;
    batch.logits_rows = wanted;
    const std::vector<float> logits = machine.step(batch);
    all.insert(all.end(), logits.begin(), logits.end());
  }
  machine.kv().release(seq);
  for (const SeqId id : others) machine.kv().release(id);
  return all;
}

inline uint64_t hash_of(const std::vector<float>& logits) {
  return XXH3_64bits(logits.data(), logits.size() * sizeof(float));
}

/// Token ids that are a function of the position alone.
inline std::vector<int32_t> some_tokens(int64_t count, int64_t vocab, uint64_t seed = 1) {
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  for (size_t i = 0; i < tokens.size(); ++i) {
    const uint64_t key[2] = {seed, i};
    tokens[i] = static_cast<int32_t>(XXH3_64bits(key, sizeof key) % static_cast<uint64_t>(vocab));
  }
  return tokens;
}

}  // namespace mete::testing
