#include "kernels/ref/rows.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace mete {

void rms_norm_ref(const float* x, const float* weight, double eps, int64_t n, double* out) {
  double squares = 0.0;
  for (int64_t i = 0; i < n; ++i) squares += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  const double scale = 1.0 / std::sqrt(squares / static_cast<double>(n) + eps);
  for (int64_t i = 0; i < n; ++i) {
    out[i] = static_cast<double>(x[i]) * scale * (weight != nullptr ? static_cast<double>(weight[i]) : 1.0);
  }
}

void layer_norm_ref(const float* x, const float* weight, const float* bias, double eps, int64_t n,
                    double* out) {
  double mean = 0.0, variance = 0.0;
  for (int64_t i = 0; i < n; ++i) mean += static_cast<double>(x[i]) / static_cast<double>(n);
  for (int64_t i = 0; i < n; ++i) {
    const double centred = static_cast<double>(x[i]) - mean;
    variance += centred * centred / static_cast<double>(n);
  }
  for (int64_t i = 0; i < n; ++i) {
    const double unit = (static_cast<double>(x[i]) - mean) / std::sqrt(variance + eps);
    out[i] = unit * (weight != nullptr ? static_cast<double>(weight[i]) : 1.0) +
             (bias != nullptr ? static_cast<double>(bias[i]) : 0.0);
  }
}

double log_sum_exp_ref(const double* x, int64_t n) {
  constexpr double kNone = -std::numeric_limits<double>::infinity();
  const double max = n == 0 ? kNone : *std::max_element(x, x + n);
  if (max == kNone) return kNone;
  double sum = 0.0;
  for (int64_t i = 0; i < n; ++i) sum += std::exp(x[i] - max);
  return max + std::log(sum);
}

void softmax_ref(const double* x, int64_t n, double* out) {
  const double total = log_sum_exp_ref(x, n);
  for (int64_t i = 0; i < n; ++i) out[i] = std::isinf(total) && total < 0 ? 0.0 : std::exp(x[i] - total);
}

double silu_ref(double x) { return x / (1.0 + std::exp(-x)); }

double gelu_tanh_ref(double x) {
  constexpr double kRootTwoOverPi = 0.79788456080286535588;
  return 0.5 * x * (1.0 + std::tanh(kRootTwoOverPi * (x + 0.044715 * x * x * x)));
}

double gelu_erf_ref(double x) { return 0.5 * x * (1.0 + std::erf(x / std::sqrt(2.0))); }

double softcap_ref(double x, double cap) { return cap * std::tanh(x / cap); }

void rope_ref(double* head, int64_t half, double position, const double* frequencies, double magnitude,
              bool neox) {
  for (int64_t i = 0; i < half; ++i) {
    const double angle = position * frequencies[i];
    const double c = std::cos(angle) * magnitude, s = std::sin(angle) * magnitude;
    double& a = head[neox ? i : 2 * i];
    double& b = head[neox ? i + half : 2 * i + 1];
    const double rotated = a * c - b * s;
    b = a * s + b * c;
    a = rotated;
  }
}

}  // namespace mete
