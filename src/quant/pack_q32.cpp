// Panels of the 32-block types: the 16 rows' blocks b side by side, b ascending, no gaps. One panel block is
//   d     16 halves (MXFP4: 16 exponent bytes), by lane
//   m     16 halves, Q4_1 and Q5_1 only
//   high  64 bytes, Q5_0 and Q5_1 only: byte 4 * lane + j, bit g = fifth bit of element 4g + j
//   q     4-bit types: 4 x 64 bytes: byte 4 * lane + j of vector v = byte 4v + j of the row's nibbles, so
//         its low nibble is element 4v + j and its high nibble element 16 + 4v + j
//         Q8_0: 8 x 64 bytes: byte 4 * lane + j of vector g = element 4g + j
// so that one 32-bit SIMD lane holds four consecutive elements of one row.
#include <cstring>

#include "quant/pack_types.h"

namespace mete {
namespace {

/// Bytes of the fields of one row's block, in file order: scale, minimum, high bits, quants.
struct Fields {
  size_t scale, min, high, quants;
};

Fields fields(DType type) {
  switch (type) {
    case DType::kQ4_1:
      return {2, 2, 0, 16};
    case DType::kQ5_0:
      return {2, 0, 4, 16};
    case DType::kQ5_1:
      return {2, 2, 4, 16};
    case DType::kQ8_0:
      return {2, 0, 0, 32};
    case DType::kMXFP4:
      return {1, 0, 0, 16};
    default:
      return {2, 0, 0, 16};  // Q4_0, IQ4_NL
  }
}

uint32_t load_u32(const uint8_t* p) {
  uint32_t value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

/// Row bits (bit 4g + j) to panel bytes (byte j, bit g), or back: an 8 x 4 bit transposition.
void spread_bits(const uint8_t* row, uint8_t* panel) {
  const uint32_t bits = load_u32(row);
  for (int j = 0; j < 4; ++j) {
    uint32_t byte = (bits >> j) & 0x11111111u;  // every fourth bit, squeezed together in three steps
    byte = (byte | byte >> 3) & 0x03030303u;
    byte = (byte | byte >> 6) & 0x000f000fu;
    panel[j] = static_cast<uint8_t>(byte | byte >> 12);
  }
}

void gather_bits(const uint8_t* panel, uint8_t* row) {
  uint32_t bits = 0;
  for (int j = 0; j < 4; ++j) {
    for (int g = 0; g < 8; ++g) bits |= ((panel[j] >> g) & 1u) << (4 * g + j);
  }
  std::memcpy(row, &bits, sizeof bits);
}

}  // namespace

void pack_panel_q32(DType type, const uint8_t* source, int rows, int64_t cols, uint8_t* panel) {
  const Fields f = fields(type);
  const size_t stride = row_bytes(type, cols), block_bytes = static_cast<size_t>(info(type).bytes);
  if (rows < kPanelRows) std::memset(panel, 0, panel_bytes(type, cols));
  uint8_t* out = panel;
  for (int64_t b = 0; b < cols / 32; ++b) {
    for (int lane = 0; lane < rows; ++lane) {
      const size_t i = static_cast<size_t>(lane);
      const uint8_t* in = source + i * stride + static_cast<size_t>(b) * block_bytes;
      uint8_t* to = out;
      std::memcpy(to + i * f.scale, in, f.scale);
      in += f.scale, to += kPanelRows * f.scale;
      std::memcpy(to + i * f.min, in, f.min);
      in += f.min, to += kPanelRows * f.min;
      if (f.high != 0) spread_bits(in, to + i * 4);
      in += f.high, to += kPanelRows * f.high;
      for (size_t v = 0; v < f.quants / 4; ++v) std::memcpy(to + v * 64 + i * 4, in + v * 4, 4);
    }
    out += kPanelRows * block_bytes;
  }
  std::memset(out, 0, static_cast<size_t>(panel + panel_bytes(type, cols) - out));
}

void unpack_row_q32(DType type, const uint8_t* panel, int lane, int64_t cols, uint8_t* row) {
  const Fields f = fields(type);
  const size_t i = static_cast<size_t>(lane);
  for (int64_t b = 0; b < cols / 32; ++b) {
    std::memcpy(row, panel + i * f.scale, f.scale);
    row += f.scale, panel += kPanelRows * f.scale;
    std::memcpy(row, panel + i * f.min, f.min);
    row += f.min, panel += kPanelRows * f.min;
    if (f.high != 0) gather_bits(panel + i * 4, row);
    row += f.high, panel += kPanelRows * f.high;
    for (size_t v = 0; v < f.quants / 4; ++v) std::memcpy(row + v * 4, panel + v * 64 + i * 4, 4);
    row += f.quants, panel += kPanelRows * f.quants;
  }
}

}  // namespace mete
