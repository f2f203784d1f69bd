// Attention over keys and values kept in float32, computed in double: for tests that must not see what a KV
// codec rounds away. One sequence, appended rows, causal by batch order.
#pragma once

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "ops/context.h"
#include "request/batch.h"
#include "request/kv_access.h"

namespace mete::testing {

class FloatKv final : public KvAccess {
 public:
  FloatKv(int64_t layers, int64_t kv_heads, int64_t head_dim)
      : kv_heads_(kv_heads), head_dim_(head_dim), layers_(static_cast<size_t>(layers)) {}

  /// Before each forward.
  void open(std::span<const Row> rows) {
    committed_ = positions_.size();
    for (const Row& row : rows) positions_.push_back(row.position);
  }

  void store(Context&, int layer, const float* k, const float* v) noexcept override {
    const size_t floats = (positions_.size() - committed_) * static_cast<size_t>(kv_heads_ * head_dim_);
    Layer& l = layers_[static_cast<size_t>(layer)];
    l.k.insert(l.k.end(), k, k + floats);
    l.v.insert(l.v.end(), v, v + floats);
  }

  void attend(Context& ctx, int layer, const float* q, const AttentionParams& params,
              float* out) noexcept override {
    const Layer& l = layers_[static_cast<size_t>(layer)];
    const auto rows = static_cast<int64_t>(positions_.size() - committed_);
    ctx.pool.parallel_for(rows * params.heads, 1, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) {
        const size_t row = committed_ + static_cast<size_t>(i / params.heads);
        const int64_t kv_head = i % params.heads / (params.heads / kv_heads_);
        attend_one(l, row, kv_head, q + i * head_dim_, params, out + i * head_dim_);
      }
    });
  }

 private:
  struct Layer {
    std::vector<float> k, v;  // [slots][kv_heads][head_dim]
  };

  void attend_one(const Layer& l, size_t row, int64_t kv_head, const float* q, const AttentionParams& params,
                  float* out) const {
    std::vector<double> weights(row + 1, 0.0), sum(static_cast<size_t>(head_dim_), 0.0);
    std::vector<double> scores(row + 1, -INFINITY);
    double total = 0, max = -INFINITY;
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
    for (size_t slot = 0; slot <= row; ++slot) {
      weights[slot] = std::exp(scores[slot] - max);
      total += weights[slot];
    }
    for (size_t slot = 0; slot <= row; ++slot) {
      if (weights[slot] == 0) continue;
      const float* v = l.v.data() + (static_cast<int64_t>(slot) * kv_heads_ + kv_head) * head_dim_;
      for (int64_t i = 0; i < head_dim_; ++i) sum[static_cast<size_t>(i)] += weights[slot] * v[i];
    }
    for (int64_t i = 0; i < head_dim_; ++i) out[i] = static_cast<float>(sum[static_cast<size_t>(i)] / total);
  }

  int64_t kv_heads_, head_dim_;
  size_t committed_ = 0;
  std::vector<int32_t> positions_;  // by slot
  std::vector<Layer> layers_;
};

}  // namespace mete::testing
