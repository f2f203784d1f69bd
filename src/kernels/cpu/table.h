// The table of kernels of one CPU tier, filled once at start and const afterwards.
#pragma once

#include "base/cpu.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/float_ops.h"
#include "kernels/cpu/matmul.h"
#include "tensor/dtype.h"

namespace mete {

inline constexpr int kDTypeIdLimit = 40;  ///< ids of supported types are below this

struct KernelTable {
  CpuTier tier;
  QuantizeActivationFn quantize_q8_16;
  QuantizeActivationFn quantize_q8_k;
  GemmFn gemm[kDTypeIdLimit];  ///< by type id; null for ids that are not supported
  /// Dequantised weights, float32 activations, sums in double: the reference numeric mode. By type id.
  GemmFn gemm_reference[kDTypeIdLimit];
  FloatKernels floats;
  AttentionKernels attention;
};

/// The table of a tier. A family without code of its own for a tier uses the best lower tier's: the bits are
/// the same. The tier must be supported by the CPU for its functions to be called.
KernelTable make_kernel_table(CpuTier tier);

// Each family fills its own entries (kernels/cpu/<family>.cpp).
void fill_gemm_q32(CpuTier tier,
                   KernelTable& table);  ///< Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 IQ4_NL MXFP4, quantize_q8_16
void fill_gemm_k(CpuTier tier, KernelTable& table);          ///< Q2_K..Q6_K IQ4_XS, quantize_q8_k
void fill_gemm_float(CpuTier tier, KernelTable& table);      ///< F32 F16 BF16
void fill_gemm_reference(CpuTier tier, KernelTable& table);  ///< gemm_reference of every type
void fill_floats(CpuTier tier, KernelTable& table);
void fill_attention(CpuTier tier, KernelTable& table);

}  // namespace mete
