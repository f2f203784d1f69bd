// One peak loop per tier. C-only header.
#pragma once

#include "kernels/cpu/peak.h"

namespace mete {
namespace generic {
int64_t int8_peak(int64_t rounds) noexcept;
}
namespace avx2 {
int64_t int8_peak(int64_t rounds) noexcept;
}
namespace avx2_vnni {
int64_t int8_peak(int64_t rounds) noexcept;
}
namespace avx512 {
int64_t int8_peak(int64_t rounds) noexcept;
}
namespace avx512_vnni {
int64_t int8_peak(int64_t rounds) noexcept;
}
}  // namespace mete
