// Panels of F32, F16 and BF16 weights: element k of row `lane` is at index k * 16 + lane.
#include <cstring>

#include "quant/pack.h"
#include "quant/pack_types.h"

namespace mete {
namespace {

template <typename Word>
void pack_words(const uint8_t* source, int rows, int64_t cols, uint8_t* panel) {
  const size_t row = static_cast<size_t>(cols) * sizeof(Word);
  for (int64_t k = 0; k < cols; ++k) {
    Word lanes[kPanelRows] = {};
    for (int lane = 0; lane < rows; ++lane)
      std::memcpy(&lanes[lane],
                  source + static_cast<size_t>(lane) * row + static_cast<size_t>(k) * sizeof(Word),
                  sizeof(Word));
    std::memcpy(panel + static_cast<size_t>(k) * sizeof(lanes), lanes, sizeof(lanes));
  }
}

template <typename Word>
void unpack_words(const uint8_t* panel, int lane, int64_t cols, uint8_t* row) {
  for (int64_t k = 0; k < cols; ++k)
    std::memcpy(row + static_cast<size_t>(k) * sizeof(Word),
                panel + (static_cast<size_t>(k) * kPanelRows + static_cast<size_t>(lane)) * sizeof(Word),
                sizeof(Word));
}

}  // namespace

void pack_panel_float(DType type, const uint8_t* source, int rows, int64_t cols, uint8_t* panel) {
  const size_t used = row_bytes(type, cols) * kPanelRows;
  std::memset(panel + used, 0, panel_bytes(type, cols) - used);
  if (type == DType::kF32) {
    pack_words<uint32_t>(source, rows, cols, panel);
  } else {
    pack_words<uint16_t>(source, rows, cols, panel);
  }
}

void unpack_row_float(DType type, const uint8_t* panel, int lane, int64_t cols, uint8_t* row) {
  if (type == DType::kF32) {
    unpack_words<uint32_t>(panel, lane, cols, row);
  } else {
    unpack_words<uint16_t>(panel, lane, cols, row);
  }
}

}  // namespace mete
