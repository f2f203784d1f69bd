#include "kernels/cpu/float_ops_impl.h"

namespace mete {

void fill_floats_avx2(FloatKernels& floats);
void fill_floats_avx2(FloatKernels& floats) { fill(floats); }

}  // namespace mete
