#include "kernels/ref/matmul.h"

#include <cmath>
#include <vector>

#include "kernels/ref/dequant.h"

namespace mete {
namespace {

template <typename Term>
void product(DType type, const uint8_t* weight, int64_t rows, int64_t cols, const float* x, int64_t tokens,
             int64_t x_stride, double* out, Term term) {
  std::vector<double> w(static_cast<size_t>(cols));
  for (int64_t n = 0; n < rows; ++n) {
    dequantize_row_ref(type, weight + static_cast<size_t>(n) * row_bytes(type, cols), w.data(), cols);
    for (int64_t t = 0; t < tokens; ++t) {
      double sum = 0.0;
      for (int64_t k = 0; k < cols; ++k) {
        sum += term(static_cast<double>(x[t * x_stride + k]) * w[static_cast<size_t>(k)]);
      }
      out[t * rows + n] = sum;
    }
  }
}

}  // namespace

void gemm_ref(DType type, const uint8_t* weight, int64_t rows, int64_t cols, const float* x, int64_t tokens,
              int64_t x_stride, double* out) {
  product(type, weight, rows, cols, x, tokens, x_stride, out, [](double v) { return v; });
}

void gemm_abs_ref(DType type, const uint8_t* weight, int64_t rows, int64_t cols, const float* x,
                  int64_t tokens, int64_t x_stride, double* out) {
  product(type, weight, rows, cols, x, tokens, x_stride, out, [](double v) { return std::fabs(v); });
}

}  // namespace mete
