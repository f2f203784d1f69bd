#include "kernels/cpu/gemm_q32.h"

#include "kernels/cpu/table.h"

namespace mete {

#define METE_FILL_GEMM_Q32(tier)                                       \
  do {                                                                 \
    table.gemm[static_cast<int>(DType::kQ4_0)] = gemm_q4_0_##tier;     \
    table.gemm[static_cast<int>(DType::kQ4_1)] = gemm_q4_1_##tier;     \
    table.gemm[static_cast<int>(DType::kQ5_0)] = gemm_q5_0_##tier;     \
    table.gemm[static_cast<int>(DType::kQ5_1)] = gemm_q5_1_##tier;     \
    table.gemm[static_cast<int>(DType::kQ8_0)] = gemm_q8_0_##tier;     \
    table.gemm[static_cast<int>(DType::kIQ4_NL)] = gemm_iq4_nl_##tier; \
    table.gemm[static_cast<int>(DType::kMXFP4)] = gemm_mxfp4_##tier;   \
    table.quantize_q8_16 = quantize_q8_16_##tier;                      \
  } while (false)

void fill_gemm_q32(CpuTier tier, KernelTable& table) {
  switch (tier) {
    case CpuTier::kGeneric:
      METE_FILL_GEMM_Q32(generic);
      break;
    case CpuTier::kAvx2:
      METE_FILL_GEMM_Q32(avx2);
      break;
    case CpuTier::kAvx2Vnni:
      METE_FILL_GEMM_Q32(avx2_vnni);
      break;
    case CpuTier::kAvx512:
      METE_FILL_GEMM_Q32(avx512);
      break;
    case CpuTier::kAvx512Vnni:
    case CpuTier::kAvx512Bf16:
      METE_FILL_GEMM_Q32(avx512_vnni);
      break;
  }
}

}  // namespace mete
