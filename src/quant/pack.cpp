#include "quant/pack.h"

#include "quant/pack_types.h"

namespace mete {

void pack_panel(DType type, const uint8_t* source, int rows, int64_t cols, uint8_t* panel) {
  switch (info(type).block) {
    case 32:
      return pack_panel_q32(type, source, rows, cols, panel);
    case 256:
      return pack_panel_k(type, source, rows, cols, panel);
    default:
      return pack_panel_float(type, source, rows, cols, panel);
  }
}

void unpack_row(DType type, const uint8_t* panel, int lane, int64_t cols, uint8_t* row) {
  switch (info(type).block) {
    case 32:
      return unpack_row_q32(type, panel, lane, cols, row);
    case 256:
      return unpack_row_k(type, panel, lane, cols, row);
    default:
      return unpack_row_float(type, panel, lane, cols, row);
  }
}

}  // namespace mete
