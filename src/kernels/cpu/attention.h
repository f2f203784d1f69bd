// Attention kernels. C-only header: tier files include it. Definitions in docs/numerics.md.
#pragma once

#include <stdint.h>

namespace mete {

struct AttentionKernels {
  int placeholder;
};

}  // namespace mete
