// Matmul with F32, F16 and BF16 weights: the definition. For each output, one float32 accumulator:
// acc = fma(float(w[k]), x[k], acc) in ascending k. A NaN result is the canonical quiet NaN.
#include <bit>
#include <cmath>
#include <cstring>

#include "base/half.h"
#include "kernels/cpu/gemm_float.h"
#include "quant/pack.h"

namespace mete {
namespace {

struct F32 {
  float value;
};
float to_float(F32 x) { return x.value; }

template <typename Word>
void gemm(const GemmArgs& a) noexcept {
  for (int64_t p = a.panel_begin; p < a.panel_end; ++p) {
    const uint8_t* panel = a.panels + static_cast<size_t>(p) * a.panel_stride;
    const int64_t row0 = p * kPanelRows;
    const int64_t lanes = a.rows - row0 < kPanelRows ? a.rows - row0 : kPanelRows;
    for (int64_t t = 0; t < a.tokens; ++t) {
      const auto* x = reinterpret_cast<const float*>(a.acts + static_cast<size_t>(t) * a.act_stride);
      float acc[kPanelRows] = {};
      for (int64_t k = 0; k < a.cols; ++k) {
        Word w[kPanelRows];
        std::memcpy(w, panel + static_cast<size_t>(k) * sizeof(w), sizeof(w));
        for (int lane = 0; lane < kPanelRows; ++lane)
          acc[lane] = std::fmaf(to_float(w[lane]), x[k], acc[lane]);
      }
      float* out = a.out + t * a.out_stride + row0;
      for (int64_t lane = 0; lane < lanes; ++lane)
        out[lane] = std::isnan(acc[lane]) ? std::bit_cast<float>(0x7fc00000u) : acc[lane];
    }
  }
}

}  // namespace

void gemm_f32_generic(const GemmArgs& args) noexcept { gemm<F32>(args); }
void gemm_f16_generic(const GemmArgs& args) noexcept { gemm<Half>(args); }
void gemm_bf16_generic(const GemmArgs& args) noexcept { gemm<BFloat16>(args); }

}  // namespace mete
