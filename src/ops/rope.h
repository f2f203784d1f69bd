// Rotary position embedding: frequency tables (plain, linear, yarn, llama3 factors, longrope) and rotation.
// Angles, cosines and sines are computed in double by kernels/cpu/scalar_math.h, not by libm.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "ops/context.h"

namespace mete {

enum class RopeScaling { kNone, kLinear, kYarn };

/// Everything that determines the rotation, read from the model file.
struct RopeConfig {
  int64_t dim = 0;  ///< rotated elements of a head (even)
  double base = 10000.0;
  bool neox = true;  ///< pairs (i, i + dim/2); else (2i, 2i+1)
  RopeScaling scaling = RopeScaling::kNone;
  double factor = 1.0;  ///< linear and yarn: context extension factor
  int64_t original_context = 0;
  double yarn_ext_factor = 1.0, yarn_attn_factor = 1.0, yarn_beta_fast = 32.0, yarn_beta_slow = 1.0;
  bool yarn_truncate = true;  ///< round the ends of yarn's ramp outwards to whole indices
  std::vector<float>
      factors;             ///< [dim/2] divisors of the frequencies (llama3 rope_freqs, longrope), or empty
  double magnitude = 1.0;  ///< multiplies cos and sin (longrope attention factor)
};

/// Frequencies of a config, and the cosines and sines of a step's rows.
class RopeTable {
 public:
  explicit RopeTable(const RopeConfig& config);
  /// Computes cos and sin for each position (0 .. 2^20), [rows][dim/2] each.
  void prepare(Context& ctx, std::span<const int32_t> positions);
  int64_t half() const { return half_; }
  bool neox() const { return neox_; }
  const float* cos(int64_t row) const { return cos_.data() + row * half_; }
  const float* sin(int64_t row) const { return sin_.data() + row * half_; }

 private:
  int64_t half_;
  bool neox_;
  double magnitude_;
  std::vector<double> frequencies_;
  std::vector<float> cos_, sin_;
};

/// Rotates x [rows][heads][dim] in place with the table's prepared rows.
void rope(Context& ctx, float* x, int64_t rows, int64_t heads, int64_t dim, const RopeTable& table) noexcept;

}  // namespace mete
