// Which super-block kernels each tier uses.
#include "kernels/cpu/gemm_k.h"

#include "kernels/cpu/table.h"

namespace mete {
namespace {

struct KFunctions {
  GemmFn q2_k, q3_k, q4_k, q5_k, q6_k, iq4_xs;
  QuantizeActivationFn quantize;
};
constexpr KFunctions kGeneric = {gemm_q2_k_generic,    gemm_q3_k_generic, gemm_q4_k_generic,
                                 gemm_q5_k_generic,    gemm_q6_k_generic, gemm_iq4_xs_generic,
                                 quantize_q8_k_generic};
constexpr KFunctions kAvx2 = {gemm_q2_k_avx2, gemm_q3_k_avx2,   gemm_q4_k_avx2,    gemm_q5_k_avx2,
                              gemm_q6_k_avx2, gemm_iq4_xs_avx2, quantize_q8_k_avx2};
constexpr KFunctions kAvx2Vnni = {gemm_q2_k_avx2_vnni, gemm_q3_k_avx2_vnni, gemm_q4_k_avx2_vnni,
                                  gemm_q5_k_avx2_vnni, gemm_q6_k_avx2_vnni, gemm_iq4_xs_avx2_vnni,
                                  quantize_q8_k_avx2};
constexpr KFunctions kAvx512 = {gemm_q2_k_avx512, gemm_q3_k_avx512,   gemm_q4_k_avx512,    gemm_q5_k_avx512,
                                gemm_q6_k_avx512, gemm_iq4_xs_avx512, quantize_q8_k_avx512};
constexpr KFunctions kAvx512Vnni = {gemm_q2_k_avx512_vnni, gemm_q3_k_avx512_vnni, gemm_q4_k_avx512_vnni,
                                    gemm_q5_k_avx512_vnni, gemm_q6_k_avx512_vnni, gemm_iq4_xs_avx512_vnni,
                                    quantize_q8_k_avx512};

const KFunctions& functions(CpuTier tier) {
  switch (tier) {
    case CpuTier::kAvx2:
      return kAvx2;
    case CpuTier::kAvx2Vnni:
      return kAvx2Vnni;
    case CpuTier::kAvx512:
      return kAvx512;
    case CpuTier::kAvx512Vnni:
    case CpuTier::kAvx512Bf16:
      return kAvx512Vnni;
    default:
      return kGeneric;
  }
}

}  // namespace

void fill_gemm_k(CpuTier tier, KernelTable& table) {
  const KFunctions& f = functions(tier);
  table.quantize_q8_k = f.quantize;
  table.gemm[static_cast<int>(DType::kQ2_K)] = f.q2_k;
  table.gemm[static_cast<int>(DType::kQ3_K)] = f.q3_k;
  table.gemm[static_cast<int>(DType::kQ4_K)] = f.q4_k;
  table.gemm[static_cast<int>(DType::kQ5_K)] = f.q5_k;
  table.gemm[static_cast<int>(DType::kQ6_K)] = f.q6_k;
  table.gemm[static_cast<int>(DType::kIQ4_XS)] = f.iq4_xs;
}

}  // namespace mete
