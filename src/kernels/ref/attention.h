// Attention in double, one query row and head at a time, from the definition.
#pragma once

#include <cstdint>
#include <vector>

namespace mete {

struct AttentionRef {
  int64_t heads;  ///< query heads; head h reads KV head h / (heads / kv_heads)
  int64_t kv_heads;
  int64_t head_dim;  ///< of queries and keys
  double scale;
  int32_t window = 0;    ///< > 0: a key at position p is visible to a query at P only if p > P - window
  double softcap = 0.0;  ///< > 0: score = cap * tanh(score / cap), after the scale
  const float* sinks = nullptr;  ///< [heads]: logits that take probability and give no value, or null
  const uint8_t* mask =
      nullptr;  ///< [rows][keys], non-zero = visible; null = causal (key position <= query's)
  const float* log_weights = nullptr;  ///< [keys]: added to the scores after the soft-cap, or null
  int64_t value_dim = 0;               ///< of values and outputs; 0: head_dim
};

/// q: [rows][heads][head_dim]; k: [keys][kv_heads][head_dim]; v: [keys][kv_heads][value_dim];
/// out: [rows][heads][value_dim], zero where no key is visible; lse: [rows][heads], the log-sum-exp of the
/// visible scores and the sink, or null.
void attention_ref(const AttentionRef& params, const float* q, const std::vector<int32_t>& query_positions,
                   const float* k, const float* v, const std::vector<int32_t>& key_positions, double* out,
                   double* lse);

}  // namespace mete
