// Attention over keys and values kept in float32, computed in double: for tests that must not see what a KV
// codec rounds away. One sequence, appended rows, causal by batch order.
#pragma once

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "models/model.h"
#include "ops/context.h"
#include "request/batch.h"
#include "request/kv_access.h"

namespace mete::testing {

class FloatKv final : public KvAccess {
 public:
  explicit FloatKv(const ModelConfig& config)
      : kv_heads_(config.kv_heads),
        head_dim_(config.head_dim),
        value_dim_(config.value_dim),
        value_in_key_(config.value_in_key),
        layers_(static_cast<size_t>(config.kv_layers)) {}

  /// Before each forward.
  void open(std::span<const Row> rows) {
    committed_ = positions_.size();
    for (const Row& row : rows) positions_.push_back(row.position);
  }

  void store(Context&, int layer, const float* k, const float* v) noexcept override {
    const auto vectors = static_cast<int64_t>(positions_.size() - committed_) * kv_heads_;
    Layer& l = layers_[static_cast<size_t>(layer)];
    l.k.insert(l.k.end(), k, k + vectors * head_dim_);
    for (int64_t i = 0; i < vectors; ++i) {
      const float* value = value_in_key_ ? k + i * head_dim_ : v + i * value_dim_;
      l.v.insert(l.v.end(), value, value + value_dim_);
    }
  }

  void attend(Context& ctx, int layer, const float* q, const AttentionParams& params,
              float* out) noexcept override {
    const Layer& l = layers_[static_cast<size_t>(layer)];
    const auto rows = static_cast<int64_t>(positions_.size() - committed_);
    ctx.pool.parallel_for(rows * params.heads, 1, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) {
        const size_t row = committed_ + static_cast<size_t>(i / params.heads);
        const int64_t kv_head = i % params.heads / (params.heads / kv_heads_);
        attend_one(l, row, kv_head, q + i * head_dim_, params,
                   params.sinks == nullptr ? -INFINITY : static_cast<double>(params.sinks[i % params.heads]),
                   out + i * value_dim_);
      }
    });
  }

 private:
  struct Layer {
    std::vector<float> k, v;  // [slots][kv_heads][head_dim or value_dim]
  };

  void attend_one(const Layer& l, size_t row, int64_t kv_head, const float* q, const AttentionParams& params,
                  double sink, float* out) const {
    std::vector<double> weights(row + 1, 0.0), sum(static_cast<size_t>(value_dim_), 0.0);
    std::vector<double> scores(row + 1, -INFINITY);
    double total = 0, max = sink;
    for (size_t slot = 0; slot <= row; ++slot) {
      if (params.window > 0 && positions_[slot] <= positions_[row] - params.window) continue;
      const float* k = l.k.data() + (static_cast<int64_t>(slot) * kv_heads_ + kv_head) * head_dim_;
      double score = 0;
      for (int64_t i = 0; i < head_dim_; ++i) score += static_cast<double>(q[i]) * k[i];
      score *= params.scale;
      if (params.softcap > 0) score = params.softcap * std::tanh(score / params.softcap);
      scores[slot] = score;
      max = std::max(max, score);
    }
    if (sink > -INFINITY) total = std::exp(sink - max);
    for (size_t slot = 0; slot <= row; ++slot) {
      weights[slot] = std::exp(scores[slot] - max);
      total += weights[slot];
    }
    for (size_t slot = 0; slot <= row; ++slot) {
      if (weights[slot] == 0) continue;
      const float* v = l.v.data() + (static_cast<int64_t>(slot) * kv_heads_ + kv_head) * value_dim_;
      for (int64_t i = 0; i < value_dim_; ++i) sum[static_cast<size_t>(i)] += weights[slot] * v[i];
    }
    for (int64_t i = 0; i < value_dim_; ++i) out[i] = static_cast<float>(sum[static_cast<size_t>(i)] / total);
  }

  int64_t kv_heads_, head_dim_, value_dim_;
  bool value_in_key_;
  size_t committed_ = 0;
  std::vector<int32_t> positions_;  // by slot
  std::vector<Layer> layers_;
};

}  // namespace mete::testing
