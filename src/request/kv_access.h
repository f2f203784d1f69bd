// How a model reaches KV memory: two calls per attention layer, implemented by src/kv. A layer may own no KV,
// or use another layer's (pass that layer's index to attend).
#pragma once

#include <cstdint>

namespace mete {

struct Context;

struct AttentionParams {
  int64_t heads;         ///< query heads
  float scale;           ///< multiplies q.k
  int32_t window = 0;    ///< > 0: key at position p is visible to a query at P if p > P - window
  float softcap = 0.0f;  ///< > 0: score = cap * tanh(score / cap), after the scale
  const float* sinks =
      nullptr;  ///< [heads] logits of attention sinks merged through the log-sum-exp, or null
};

/// Valid during one step, whose batch it was opened with. Calls come from the engine's thread.
class KvAccess {
 public:
  virtual ~KvAccess() = default;
  /// Writes K and V of the step's rows for `layer`: k is [rows][kv_heads * head_dim], after RoPE; v is
  /// [rows][kv_heads * value_dim], not read (null) if values are the first elements of keys.
  virtual void store(Context& ctx, int layer, const float* k, const float* v) noexcept = 0;
  /// q: [rows][heads * head_dim]; out: [rows][heads * value_dim]. Reads back what store wrote, through the
  /// codec.
  virtual void attend(Context& ctx, int layer, const float* q, const AttentionParams& params,
                      float* out) noexcept = 0;
};

}  // namespace mete
