// Alternating updates (AltUp, arXiv 2301.13310; Gemma 3n): several residual streams, of which a layer reads
// and computes one and corrects all. All arrays are contiguous; streams are [rows][n] each.
#pragma once

#include <array>
#include <cstdint>

#include "ops/context.h"

namespace mete {

inline constexpr int64_t kMaxAltupStreams = 8;

struct AltupStreams {
  int64_t count = 0;  ///< 1 to kMaxAltupStreams
  std::array<float*, kMaxAltupStreams> at{};
};

/// predictions[i] = streams[i] + sum over j of coefs[r][i * count + j] * streams[j].
/// coefs: [rows][count * count].
void altup_predict(Context& ctx, const AltupStreams& streams, const float* coefs, int64_t rows, int64_t n,
                   const AltupStreams& predictions) noexcept;
/// streams[i] = predictions[i] + (coefs[r][i] + 1) * (activated - predictions[active]). coefs: [rows][count].
void altup_correct(Context& ctx, const AltupStreams& predictions, int64_t active, const float* activated,
                   const float* coefs, int64_t rows, int64_t n, const AltupStreams& streams) noexcept;
/// out = the streams' mean; out may be one of them.
void altup_mean(Context& ctx, const AltupStreams& streams, int64_t rows, int64_t n, float* out) noexcept;
/// x = x * sqrt(mean(like^2)) / sqrt(max(mean(x^2), 1e-5)), row by row.
void match_magnitude(Context& ctx, const float* like, int64_t rows, int64_t n, float* x) noexcept;

}  // namespace mete
