// Random attention problems, a double oracle, and a driver of the KV cache, for tests.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <vector>

#include "base/half.h"
#include "base/rng.h"
#include "kernels/cpu/table.h"
#include "kv/kv_cache.h"
#include "ops/context.h"

namespace mete {

inline KernelTable attention_table(CpuTier tier) {
  KernelTable table{};
  fill_floats(tier, table);
  fill_attention(tier, table);
  return table;
}

/// q, k, v of `tokens` tokens; k is scaled so that scores spread over several units.
struct AttentionData {
  int64_t heads, kv_heads, head_dim, tokens;
  std::vector<float> q, k, v;
  int64_t value_dim;

  AttentionData(int64_t heads_, int64_t kv_heads_, int64_t head_dim_, int64_t tokens_, uint64_t seed = 1,
                int64_t value_dim_ = 0)
      : heads(heads_),
        kv_heads(kv_heads_),
        head_dim(head_dim_),
        tokens(tokens_),
        value_dim(value_dim_ > 0 ? value_dim_ : head_dim_) {
    const auto fill = [&](std::vector<float>& x, int64_t width, uint64_t purpose) {
      x.resize(static_cast<size_t>(tokens * width));
      for (size_t i = 0; i < x.size(); ++i) {
        x[i] = static_cast<float>(4.0 * random_unit(seed * 8 + purpose, i, Purpose::kTest) - 2.0);
      }
    };
    fill(q, heads * head_dim, 1);
    fill(k, kv_heads * head_dim, 2);
    fill(v, kv_heads * value_dim, 3);
  }
  /// Makes each value the first value_dim elements of its key.
  void take_values_from_keys() {
    for (int64_t i = 0; i < tokens * kv_heads; ++i) {
      std::copy_n(k.begin() + i * head_dim, value_dim, v.begin() + i * value_dim);
    }
  }
  AttentionParams params() const {
    AttentionParams p{};
    p.heads = heads;
    p.scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
    return p;
  }
};

/// What a codec makes of a head vector.
inline std::vector<double> through_codec(KvType type, const float* x, int64_t head_dim) {
  std::vector<double> y(static_cast<size_t>(head_dim));
  for (int64_t d = 0; d < head_dim; ++d) {
    double& out = y[static_cast<size_t>(d)];
    if (type == KvType::kF16) out = to_float(to_half(x[d]));
    if (type == KvType::kBF16) out = to_float(to_bfloat16(x[d]));
    if (type == KvType::kQ8_0) {
      const float* block = x + d / 32 * 32;
      float amax = 0.0f;
      for (int i = 0; i < 32; ++i) amax = std::max(amax, std::fabs(block[i]));
      out = std::nearbyint(x[d] * (127.0f / amax)) * static_cast<double>(to_float(to_half(amax / 127.0f)));
    }
  }
  return y;
}

/// Attention of token i over tokens for which visible(i, j), in double, through the codecs.
inline std::vector<double> attention_oracle(const AttentionData& a, const AttentionParams& p, KvType key,
                                            KvType value,
                                            const std::function<bool(int64_t, int64_t)>& visible) {
  std::vector<double> out(static_cast<size_t>(a.tokens * a.heads * a.value_dim), 0.0);
  const int64_t group = a.heads / a.kv_heads;
  for (int64_t h = 0; h < a.heads; ++h) {
    std::vector<std::vector<double>> keys, values;
    for (int64_t j = 0; j < a.tokens; ++j) {
      const int64_t at = j * a.kv_heads + h / group;
      keys.push_back(through_codec(key, a.k.data() + at * a.head_dim, a.head_dim));
      values.push_back(through_codec(value, a.v.data() + at * a.value_dim, a.value_dim));
    }
    for (int64_t i = 0; i < a.tokens; ++i) {
      const float* q = a.q.data() + (i * a.heads + h) * a.head_dim;
      double* o = out.data() + (i * a.heads + h) * a.value_dim;
      std::vector<double> s(static_cast<size_t>(a.tokens), -std::numeric_limits<double>::infinity());
      double top = p.sinks != nullptr ? p.sinks[h] : -std::numeric_limits<double>::infinity();
      for (int64_t j = 0; j < a.tokens; ++j) {
        if (!visible(i, j)) continue;
        double dot = 0.0;
        for (int64_t d = 0; d < a.head_dim; ++d)
          dot += q[d] * keys[static_cast<size_t>(j)][static_cast<size_t>(d)];
        dot *= p.scale;
        if (p.softcap > 0.0f) dot = p.softcap * std::tanh(dot / p.softcap);
        s[static_cast<size_t>(j)] = dot;
        top = std::max(top, dot);
      }
      double sum = p.sinks != nullptr ? std::exp(p.sinks[h] - top) : 0.0;
      for (int64_t j = 0; j < a.tokens; ++j) {
        if (!visible(i, j)) continue;
        const double w = std::exp(s[static_cast<size_t>(j)] - top);
        sum += w;
        for (int64_t d = 0; d < a.value_dim; ++d)
          o[d] += w * values[static_cast<size_t>(j)][static_cast<size_t>(d)];
      }
      for (int64_t d = 0; d < a.value_dim && sum > 0.0; ++d) o[d] /= sum;
    }
  }
  return out;
}

/// Runs one step of a cache for the given rows: row r of the batch takes q, k, v of token tokens[r]; its
/// output goes to the token's place in `out`.
inline void run_step(KvCache& cache, Context& ctx, const AttentionData& a, const AttentionParams& p,
                     const Batch& batch, const std::vector<int64_t>& tokens, std::vector<float>& out) {
  cache.begin_step(batch).or_throw();
  const auto pick = [&](const std::vector<float>& x, int64_t width) {
    std::vector<float> rows;
    for (int64_t t : tokens) rows.insert(rows.end(), x.begin() + t * width, x.begin() + (t + 1) * width);
    return rows;
  };
  const std::vector<float> q = pick(a.q, a.heads * a.head_dim), k = pick(a.k, a.kv_heads * a.head_dim),
                           v = pick(a.v, a.kv_heads * a.value_dim);
  const size_t width = static_cast<size_t>(a.heads * a.value_dim);
  std::vector<float> o(tokens.size() * width);
  for (int64_t layer = 0; layer < cache.config().kv_layers; ++layer) {
    cache.access().store(ctx, static_cast<int>(layer), k.data(),
                         cache.config().value_in_key ? nullptr : v.data());
    cache.access().attend(ctx, static_cast<int>(layer), q.data(), p, o.data());
  }
  cache.end_step();
  out.resize(static_cast<size_t>(a.tokens) * width);
  for (size_t r = 0; r < tokens.size(); ++r) {
    std::memcpy(out.data() + static_cast<size_t>(tokens[r]) * width, o.data() + r * width,
                width * sizeof(float));
  }
}

/// Appends tokens [begin, end) of `a` to a sequence in chunks; outputs of the tokens in `out`.
inline void run_chunks(KvCache& cache, SeqId seq, Context& ctx, const AttentionData& a,
                       const AttentionParams& p, int64_t begin, int64_t end, int64_t chunk,
                       std::vector<float>& out) {
  for (int64_t first = begin; first < end; first += chunk) {
    std::vector<Row> rows;
    std::vector<int64_t> tokens;
    for (int64_t t = first; t < std::min(end, first + chunk); ++t) {
      rows.push_back({0, static_cast<int32_t>(t), seq});
      tokens.push_back(t);
    }
    Batch batch;
    batch.rows = rows;
    run_step(cache, ctx, a, p, batch, tokens, out);
  }
}

inline bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

}  // namespace mete
