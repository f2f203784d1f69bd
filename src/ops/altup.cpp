#include "ops/altup.h"

#include <algorithm>
#include <cmath>

#include "ops/over_rows.h"

namespace mete {
namespace {

/// Row r of each stream.
std::array<const float*, kMaxAltupStreams> rows_of(const AltupStreams& streams, int64_t r, int64_t n) {
  std::array<const float*, kMaxAltupStreams> rows{};
  for (int64_t i = 0; i < streams.count; ++i) {
    rows[static_cast<size_t>(i)] = streams.at[static_cast<size_t>(i)] + r * n;
  }
  return rows;
}

}  // namespace

void altup_predict(Context& ctx, const AltupStreams& streams, const float* coefs, int64_t rows, int64_t n,
                   const AltupStreams& predictions) noexcept {
  const int64_t count = streams.count;
  over_rows(ctx, rows, n * count, [&](int64_t r) {
    const auto x = rows_of(streams, r, n);
    for (int64_t i = 0; i < count; ++i) {
      std::array<float, kMaxAltupStreams> weights;
      std::copy_n(coefs + (r * count + i) * count, count, weights.begin());
      weights[static_cast<size_t>(i)] += 1.0f;
      float* out = predictions.at[static_cast<size_t>(i)] + r * n;
      ctx.kernels.floats.weighted_sum(x.data(), weights.data(), count, n, out);
    }
  });
}

void altup_correct(Context& ctx, const AltupStreams& predictions, int64_t active, const float* activated,
                   const float* coefs, int64_t rows, int64_t n, const AltupStreams& streams) noexcept {
  const int64_t count = predictions.count;
  over_rows(ctx, rows, n * count, [&](int64_t r) {
    const auto x = rows_of(predictions, r, n);
    for (int64_t i = 0; i < count; ++i) {
      const float gain = coefs[r * count + i] + 1.0f;
      const float* const terms[] = {x[static_cast<size_t>(i)], activated + r * n,
                                    x[static_cast<size_t>(active)]};
      const float weights[] = {1.0f, gain, -gain};
      float* out = streams.at[static_cast<size_t>(i)] + r * n;
      ctx.kernels.floats.weighted_sum(terms, weights, 3, n, out);
    }
  });
}

void altup_mean(Context& ctx, const AltupStreams& streams, int64_t rows, int64_t n, float* out) noexcept {
  std::array<float, kMaxAltupStreams> weights;
  weights.fill(1.0f / static_cast<float>(streams.count));
  over_rows(ctx, rows, n, [&](int64_t r) {
    const auto x = rows_of(streams, r, n);
    ctx.kernels.floats.weighted_sum(x.data(), weights.data(), streams.count, n, out + r * n);
  });
}

void match_magnitude(Context& ctx, const float* like, int64_t rows, int64_t n, float* x) noexcept {
  over_rows(ctx, rows, n, [&](int64_t r) {
    const float wanted = std::sqrt(ctx.kernels.floats.mean_square(like + r * n, n));
    const float found = std::sqrt(std::max(ctx.kernels.floats.mean_square(x + r * n, n), 1e-5f));
    ctx.kernels.floats.scale(x + r * n, wanted / found, n, x + r * n);
  });
}

}  // namespace mete
