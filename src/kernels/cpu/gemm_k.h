// Kernels of the 256-element super-block types; panel layouts in quant/pack_k.cpp. C-only header.
#pragma once

#include "kernels/cpu/matmul.h"

namespace mete {

void gemm_q2_k_generic(const GemmArgs& args) noexcept;
void gemm_q3_k_generic(const GemmArgs& args) noexcept;
void gemm_q4_k_generic(const GemmArgs& args) noexcept;
void gemm_q5_k_generic(const GemmArgs& args) noexcept;
void gemm_q6_k_generic(const GemmArgs& args) noexcept;
void gemm_iq4_xs_generic(const GemmArgs& args) noexcept;

void gemm_q2_k_avx2(const GemmArgs& args) noexcept;
void gemm_q3_k_avx2(const GemmArgs& args) noexcept;
void gemm_q4_k_avx2(const GemmArgs& args) noexcept;
void gemm_q5_k_avx2(const GemmArgs& args) noexcept;
void gemm_q6_k_avx2(const GemmArgs& args) noexcept;
void gemm_iq4_xs_avx2(const GemmArgs& args) noexcept;

void gemm_q2_k_avx2_vnni(const GemmArgs& args) noexcept;
void gemm_q3_k_avx2_vnni(const GemmArgs& args) noexcept;
void gemm_q4_k_avx2_vnni(const GemmArgs& args) noexcept;
void gemm_q5_k_avx2_vnni(const GemmArgs& args) noexcept;
void gemm_q6_k_avx2_vnni(const GemmArgs& args) noexcept;
void gemm_iq4_xs_avx2_vnni(const GemmArgs& args) noexcept;

void gemm_q2_k_avx512(const GemmArgs& args) noexcept;
void gemm_q3_k_avx512(const GemmArgs& args) noexcept;
void gemm_q4_k_avx512(const GemmArgs& args) noexcept;
void gemm_q5_k_avx512(const GemmArgs& args) noexcept;
void gemm_q6_k_avx512(const GemmArgs& args) noexcept;
void gemm_iq4_xs_avx512(const GemmArgs& args) noexcept;

void gemm_q2_k_avx512_vnni(const GemmArgs& args) noexcept;
void gemm_q3_k_avx512_vnni(const GemmArgs& args) noexcept;
void gemm_q4_k_avx512_vnni(const GemmArgs& args) noexcept;
void gemm_q5_k_avx512_vnni(const GemmArgs& args) noexcept;
void gemm_q6_k_avx512_vnni(const GemmArgs& args) noexcept;
void gemm_iq4_xs_avx512_vnni(const GemmArgs& args) noexcept;

void quantize_q8_k_generic(const float* x, int64_t cols, uint8_t* row) noexcept;
void quantize_q8_k_avx2(const float* x, int64_t cols, uint8_t* row) noexcept;
void quantize_q8_k_avx512(const float* x, int64_t cols, uint8_t* row) noexcept;

}  // namespace mete
