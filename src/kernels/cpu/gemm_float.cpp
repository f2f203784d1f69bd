// Which float matmul kernel each tier uses.
#include "kernels/cpu/gemm_float.h"

#include "kernels/cpu/table.h"

namespace mete {

void fill_gemm_float(CpuTier tier, KernelTable& table) {
  GemmFn f32 = gemm_f32_generic, f16 = gemm_f16_generic, bf16 = gemm_bf16_generic;
  if (tier >= CpuTier::kAvx512) {
    f32 = gemm_f32_avx512, f16 = gemm_f16_avx512, bf16 = gemm_bf16_avx512;
  } else if (tier >= CpuTier::kAvx2) {
    f32 = gemm_f32_avx2, f16 = gemm_f16_avx2, bf16 = gemm_bf16_avx2;
  }
  table.gemm[static_cast<int>(DType::kF32)] = f32;
  table.gemm[static_cast<int>(DType::kF16)] = f16;
  table.gemm[static_cast<int>(DType::kBF16)] = bf16;
}

}  // namespace mete
