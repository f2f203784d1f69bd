#include "kernels/cpu/attention_impl.h"

namespace mete {

void fill_attention_avx512(AttentionKernels& attention);
void fill_attention_avx512(AttentionKernels& attention) { fill(attention); }

}  // namespace mete
