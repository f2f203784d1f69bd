#include "ops/rope.h"

#include <algorithm>

#include "kernels/cpu/scalar_math.h"

namespace mete {
namespace {

constexpr double kPi = 3.14159265358979323846;

/// Index of the frequency that turns `turns` times over the original context (YaRN, arXiv 2309.00071, eq.
/// 23).
double yarn_index(const RopeConfig& c, double turns) {
  const double wavelengths = static_cast<double>(c.original_context) / (turns * 2.0 * kPi);
  return static_cast<double>(c.dim) * log_double(wavelengths) / (2.0 * log_double(c.base));
}

double floor_of(double x) {
  const double t = static_cast<double>(static_cast<int64_t>(x));
  return t > x ? t - 1.0 : t;
}

/// Share of the unscaled frequency that YaRN keeps at index i: 1 for fast turns, 0 for slow ones.
double yarn_share(const RopeConfig& c, double i) {
  const double fast = yarn_index(c, c.yarn_beta_fast), slow = yarn_index(c, c.yarn_beta_slow);
  const double low = std::max(0.0, c.yarn_truncate ? floor_of(fast) : fast);
  const double high = std::min(static_cast<double>(c.dim - 1), c.yarn_truncate ? -floor_of(-slow) : slow);
  const double ramp = (i - low) / std::max(0.001, high - low);
  return (1.0 - std::min(1.0, std::max(0.0, ramp))) * c.yarn_ext_factor;
}

}  // namespace

RopeTable::RopeTable(const RopeConfig& config)
    : half_(config.dim / 2), neox_(config.neox), magnitude_(config.magnitude) {
  frequencies_.resize(static_cast<size_t>(half_));
  for (int64_t i = 0; i < half_; ++i) {
    const double exponent = -2.0 * static_cast<double>(i) / static_cast<double>(config.dim);
    double f = pow_double(config.base, exponent);
    if (!config.factors.empty()) f /= static_cast<double>(config.factors[static_cast<size_t>(i)]);
    if (config.scaling == RopeScaling::kLinear) f /= config.factor;
    if (config.scaling == RopeScaling::kYarn) {
      const double share = yarn_share(config, static_cast<double>(i));
      f = f / config.factor * (1.0 - share) + f * share;
    }
    frequencies_[static_cast<size_t>(i)] = f;
  }
  if (config.scaling == RopeScaling::kYarn) {
    magnitude_ *= config.yarn_attn_factor;
    if (config.yarn_ext_factor != 0.0) magnitude_ *= 1.0 + 0.1 * log_double(config.factor);
  }
}

void RopeTable::prepare(Context& ctx, std::span<const int32_t> positions) {
  ctx.enter(Part::kElementwise);
  const size_t needed = positions.size() * static_cast<size_t>(half_);
  if (cos_.size() < needed) {
    cos_.resize(needed);
    sin_.resize(needed);
  }
  ctx.pool.parallel_for(static_cast<int64_t>(positions.size()), 16, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      const double position = positions[static_cast<size_t>(r)];
      for (int64_t i = 0; i < half_; ++i) {
        const SinCos v = sin_cos(position * frequencies_[static_cast<size_t>(i)]);
        cos_[static_cast<size_t>(r * half_ + i)] = static_cast<float>(v.cos * magnitude_);
        sin_[static_cast<size_t>(r * half_ + i)] = static_cast<float>(v.sin * magnitude_);
      }
    }
  });
}

void rope(Context& ctx, float* x, int64_t rows, int64_t heads, int64_t dim, const RopeTable& table) noexcept {
  ctx.enter(Part::kElementwise);
  const int64_t grain = std::max<int64_t>(1, 8192 / (heads * dim));
  ctx.pool.parallel_for(rows, grain, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      ctx.kernels.floats.rope(x + r * heads * dim, heads, dim, table.cos(r), table.sin(r), table.half(),
                              table.neox());
    }
  });
}

}  // namespace mete
