// Kernels of the float weight types; panel layout in quant/pack_float.cpp. C-only header.
#pragma once

#include "kernels/cpu/matmul.h"

namespace mete {

void gemm_f32_generic(const GemmArgs& args) noexcept;
void gemm_f16_generic(const GemmArgs& args) noexcept;
void gemm_bf16_generic(const GemmArgs& args) noexcept;
void gemm_f32_avx2(const GemmArgs& args) noexcept;
void gemm_f16_avx2(const GemmArgs& args) noexcept;
void gemm_bf16_avx2(const GemmArgs& args) noexcept;
void gemm_f32_avx512(const GemmArgs& args) noexcept;
void gemm_f16_avx512(const GemmArgs& args) noexcept;
void gemm_bf16_avx512(const GemmArgs& args) noexcept;

}  // namespace mete
