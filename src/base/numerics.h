// The version of docs/numerics.md.
#pragma once

#include <cstdint>

namespace mete {

/// Raised with every change of docs/numerics.md that can change a bit of stored KV.
inline constexpr uint32_t kNumericsVersion = 1;

}  // namespace mete
