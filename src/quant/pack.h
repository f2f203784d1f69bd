// Packed panels: 16 weight rows side by side so that a SIMD lane is an output row (docs/numerics.md).
// A panel holds exactly the bytes of its 16 rows, rearranged; packing loses nothing and can be undone.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tensor/dtype.h"

namespace mete {

inline constexpr int kPanelRows = 16;

/// Bytes of one panel of 16 rows of `cols` elements, rounded up to 64 so that panels stay aligned.
inline size_t panel_bytes(DType type, int64_t cols) {
  return (row_bytes(type, cols) * kPanelRows + 63) / 64 * 64;
}

/// Number of panels that hold `rows` rows; missing rows of the last panel are zero rows.
inline int64_t panel_count(int64_t rows) { return (rows + kPanelRows - 1) / kPanelRows; }

/// Packs `rows` (1..16) consecutive GGUF rows, each row_bytes(type, cols) long, into `panel` (64-byte
/// aligned).
void pack_panel(DType type, const uint8_t* source, int rows, int64_t cols, uint8_t* panel);

/// Inverse for one row: writes the GGUF bytes of row `lane` (0..15) of the panel.
void unpack_row(DType type, const uint8_t* panel, int lane, int64_t cols, uint8_t* row);

}  // namespace mete
