#include "kernels/cpu/table.h"

namespace mete {

KernelTable make_kernel_table(CpuTier tier) {
  KernelTable table{};
  table.tier = tier;
  fill_gemm_q32(tier, table);
  fill_gemm_k(tier, table);
  fill_gemm_float(tier, table);
  fill_gemm_reference(tier, table);
  fill_floats(tier, table);
  fill_attention(tier, table);
  return table;
}

}  // namespace mete
