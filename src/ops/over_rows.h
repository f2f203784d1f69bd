// How element-wise ops are split over the pool.
#pragma once

#include <algorithm>
#include <cstdint>

#include "ops/context.h"

namespace mete {

// Below this many elements per piece a fork-join costs more than it saves. Never changes a bit.
inline constexpr int64_t kPieceElements = 8192;

/// body(r) for every row; `elements`: what one row costs.
template <typename Body>
void over_rows(Context& ctx, int64_t rows, int64_t elements, Body body) {
  ctx.enter(Part::kElementwise);
  const int64_t grain = std::max<int64_t>(1, kPieceElements / std::max<int64_t>(1, elements));
  ctx.pool.parallel_for(rows, grain, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) body(r);
  });
}

}  // namespace mete
