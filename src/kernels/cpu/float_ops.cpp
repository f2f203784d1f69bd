// The generic tier of the float kernels, and the choice of tier.
#include "kernels/cpu/float_ops.h"

#include "kernels/cpu/float_ops_impl.h"
#include "kernels/cpu/table.h"

namespace mete {

void fill_floats_avx2(FloatKernels& floats);
void fill_floats_avx512(FloatKernels& floats);

void fill_floats(CpuTier tier, KernelTable& table) {
  if (tier >= CpuTier::kAvx512) {
    fill_floats_avx512(table.floats);
  } else if (tier >= CpuTier::kAvx2) {
    fill_floats_avx2(table.floats);
  } else {
    fill(table.floats);
  }
}

}  // namespace mete
