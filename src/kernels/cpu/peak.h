// Register-only loops that run at the core's integer multiply-add peak: the yardstick for matmul. C-only
// header.
#pragma once

#include <stdint.h>

namespace mete {

/// Runs `rounds` rounds and returns the int8 operations done (a multiply and an add are two).
using PeakFn = int64_t (*)(int64_t rounds) noexcept;

}  // namespace mete
