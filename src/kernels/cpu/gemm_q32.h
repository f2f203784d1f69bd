// Kernels of the 32-block weight types (Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 IQ4_NL MXFP4) and the quantiser of their
// activation rows. Panel layout in quant/pack_q32.cpp, definition of the bits in docs/numerics.md. C-only
// header.
#pragma once

#include "kernels/cpu/matmul.h"

#define METE_DECLARE_GEMM_Q32(tier)                       \
  void gemm_q4_0_##tier(const GemmArgs& args) noexcept;   \
  void gemm_q4_1_##tier(const GemmArgs& args) noexcept;   \
  void gemm_q5_0_##tier(const GemmArgs& args) noexcept;   \
  void gemm_q5_1_##tier(const GemmArgs& args) noexcept;   \
  void gemm_q8_0_##tier(const GemmArgs& args) noexcept;   \
  void gemm_iq4_nl_##tier(const GemmArgs& args) noexcept; \
  void gemm_mxfp4_##tier(const GemmArgs& args) noexcept;  \
  void quantize_q8_16_##tier(const float* x, int64_t cols, uint8_t* row) noexcept;

/// The functions of a tier from the templates in its namespace (gemm_q32_tiles.h).
#define METE_DEFINE_GEMM_Q32(tier)                                                           \
  void gemm_q4_0_##tier(const GemmArgs& args) noexcept { tier::gemm<tier::Q4_0>(args); }     \
  void gemm_q4_1_##tier(const GemmArgs& args) noexcept { tier::gemm<tier::Q4_1>(args); }     \
  void gemm_q5_0_##tier(const GemmArgs& args) noexcept { tier::gemm<tier::Q5_0>(args); }     \
  void gemm_q5_1_##tier(const GemmArgs& args) noexcept { tier::gemm<tier::Q5_1>(args); }     \
  void gemm_q8_0_##tier(const GemmArgs& args) noexcept { tier::gemm<tier::Q8_0>(args); }     \
  void gemm_iq4_nl_##tier(const GemmArgs& args) noexcept { tier::gemm<tier::IQ4_NL>(args); } \
  void gemm_mxfp4_##tier(const GemmArgs& args) noexcept { tier::gemm<tier::MXFP4>(args); }   \
  void quantize_q8_16_##tier(const float* x, int64_t cols, uint8_t* row) noexcept {          \
    tier::quantize(x, cols, row);                                                            \
  }

namespace mete {

METE_DECLARE_GEMM_Q32(generic)
METE_DECLARE_GEMM_Q32(avx2)
METE_DECLARE_GEMM_Q32(avx2_vnni)
METE_DECLARE_GEMM_Q32(avx512)
METE_DECLARE_GEMM_Q32(avx512_vnni)

namespace {  // a copy of its own for every tier's file

/// Byte offsets inside an activation row: Q8x16Layout of quant/activation.h without its headers.
struct Q32Offsets {
  int64_t d, s, sum;
};
inline Q32Offsets q32_offsets(int64_t cols) {
  const int64_t d = (cols + 63) / 64 * 64;
  const int64_t s = d + (cols / 32 * 8 + 63) / 64 * 64;
  return {d, s, s + (cols / 32 * 4 + 63) / 64 * 64};
}

/// What IQ4_NL's and MXFP4's four bits stand for (MXFP4: E2M1 doubled, hence the scale 2^(e - 128)).
constexpr int8_t kIq4NlValues[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                     1,    13,   25,  38,  53,  69,  89,  113};
constexpr int8_t kMxfp4Values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

/// Smallest amplitude of a block that is not taken as zero; 127 / amplitude stays finite above it.
constexpr float kQuantizeFloor = 0x1p-120f;

}  // namespace
}  // namespace mete
