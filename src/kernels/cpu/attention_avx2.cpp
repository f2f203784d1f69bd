#include "kernels/cpu/attention_impl.h"

namespace mete {

void fill_attention_avx2(AttentionKernels& attention);
void fill_attention_avx2(AttentionKernels& attention) { fill(attention); }

}  // namespace mete
