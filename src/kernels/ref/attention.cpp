#include "kernels/ref/attention.h"

#include <cmath>
#include <limits>

#include "kernels/ref/rows.h"

namespace mete {
namespace {

constexpr double kHidden = -std::numeric_limits<double>::infinity();

bool visible(const AttentionRef& p, int64_t row, int64_t key, int64_t keys, int32_t at, int32_t key_at) {
  if (p.window > 0 && int64_t{key_at} <= int64_t{at} - p.window) return false;
  return p.mask != nullptr ? p.mask[row * keys + key] != 0 : key_at <= at;
}

double score(const AttentionRef& p, const float* q, const float* k) {
  double dot = 0.0;
  for (int64_t i = 0; i < p.head_dim; ++i) dot += static_cast<double>(q[i]) * static_cast<double>(k[i]);
  const double scaled = dot * p.scale;
  return p.softcap > 0.0 ? softcap_ref(scaled, p.softcap) : scaled;
}

}  // namespace

void attention_ref(const AttentionRef& p, const float* q, const std::vector<int32_t>& query_positions,
                   const float* k, const float* v, const std::vector<int32_t>& key_positions, double* out,
                   double* lse) {
  const int64_t rows = static_cast<int64_t>(query_positions.size()),
                keys = static_cast<int64_t>(key_positions.size());
  std::vector<double> scores(key_positions.size() + 1);  // the last is the sink's
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t h = 0; h < p.heads; ++h) {
      const int64_t kv_head = h / (p.heads / p.kv_heads);
      const int64_t value_dim = p.value_dim > 0 ? p.value_dim : p.head_dim;
      const auto kv_row = [&](const float* base, int64_t key, int64_t width) {
        return base + (key * p.kv_heads + kv_head) * width;
      };
      const int64_t place = r * p.heads + h;
      for (int64_t i = 0; i < keys; ++i) {
        const size_t at = static_cast<size_t>(i);
        scores[at] = kHidden;
        if (!visible(p, r, i, keys, query_positions[static_cast<size_t>(r)], key_positions[at])) continue;
        scores[at] = score(p, q + place * p.head_dim, kv_row(k, i, p.head_dim));
        if (p.log_weights != nullptr) scores[at] += static_cast<double>(p.log_weights[i]);
      }
      scores.back() = p.sinks != nullptr ? static_cast<double>(p.sinks[h]) : kHidden;
      if (lse != nullptr) lse[place] = log_sum_exp_ref(scores.data(), keys + 1);
      softmax_ref(scores.data(), keys + 1, scores.data());
      double* o = out + place * value_dim;
      for (int64_t d = 0; d < value_dim; ++d) o[d] = 0.0;
      for (int64_t i = 0; i < keys; ++i) {
        const double weight = scores[static_cast<size_t>(i)];
        if (weight == 0.0) continue;  // hidden keys may hold anything, NaN included
        const float* value = kv_row(v, i, value_dim);
        for (int64_t d = 0; d < value_dim; ++d) o[d] += weight * static_cast<double>(value[d]);
      }
    }
  }
}

}  // namespace mete
