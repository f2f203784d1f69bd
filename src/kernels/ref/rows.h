// Row-wise operations in double, from their textbook definitions. Rows of n elements; out may be x.
#pragma once

#include <cstdint>

namespace mete {

/// x / sqrt(mean(x^2) + eps) * weight; weight may be null (ones).
void rms_norm_ref(const float* x, const float* weight, double eps, int64_t n, double* out);
/// (x - mean) / sqrt(variance + eps) * weight + bias; variance over n; weight and bias may be null.
void layer_norm_ref(const float* x, const float* weight, const float* bias, double eps, int64_t n,
                    double* out);
/// exp(x - max) / sum; all entries minus infinity: zeros.
void softmax_ref(const double* x, int64_t n, double* out);
/// log(sum(exp(x))); all entries minus infinity: minus infinity.
double log_sum_exp_ref(const double* x, int64_t n);

/// x / (1 + exp(-x)).
double silu_ref(double x);
/// The tanh approximation: x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))).
double gelu_tanh_ref(double x);
/// x/2 (1 + erf(x / sqrt(2))).
double gelu_erf_ref(double x);
/// cap * tanh(x / cap).
double softcap_ref(double x, double cap);

/// Rotates the first 2 * half elements of a head in place by angles position * frequencies[i], i < half;
/// pairs (i, i + half) if neox, else (2i, 2i + 1). cos and sin are multiplied by `magnitude`.
void rope_ref(double* head, int64_t half, double position, const double* frequencies, double magnitude,
              bool neox);

}  // namespace mete
