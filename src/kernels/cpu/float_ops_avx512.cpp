#include "kernels/cpu/float_ops_impl.h"

namespace mete {

void fill_floats_avx512(FloatKernels& floats);
void fill_floats_avx512(FloatKernels& floats) { fill(floats); }

}  // namespace mete
