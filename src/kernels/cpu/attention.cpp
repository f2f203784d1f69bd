// The generic tier of the attention kernels, and the choice of tier.
#include "kernels/cpu/attention.h"

#include "kernels/cpu/attention_impl.h"
#include "kernels/cpu/table.h"

namespace mete {

void fill_attention_avx2(AttentionKernels& attention);
void fill_attention_avx512(AttentionKernels& attention);

void fill_attention(CpuTier tier, KernelTable& table) {
  if (tier >= CpuTier::kAvx512) {
    fill_attention_avx512(table.attention);
  } else if (tier >= CpuTier::kAvx2) {
    fill_attention_avx2(table.attention);
  } else {
    fill(table.attention);
  }
}

}  // namespace mete
