// Panels of the 256-element super-block types. A panel is a sequence of super-blocks, each holding the bytes
// of its 16 rows field by field: unit u of a field (1, 2 or 4 bytes) of all 16 rows side by side, row = lane.
// So scales of a sub-block are 16 neighbouring bytes, and 64 bytes of quants are 4 neighbouring bytes of each
// row. Q3_K and Q6_K keep the 16 float16 d of every super-block behind the last one, which leaves the bodies
// multiples of 64 bytes. Field offsets in the file: the GGUF block formats.
#include <cstring>

#include "base/error.h"
#include "quant/pack_types.h"

namespace mete {
namespace {

struct Field {
  int source;    // byte offset in a row's super-block
  int unit;      // bytes
  int count;     // units
  int dest;      // byte offset in the panel's super-block, or in the tail
  bool in_tail;  // 32 bytes per super-block behind the bodies
};

struct Layout {
  int source_bytes;  // of one row's super-block
  int body_bytes;    // of the panel's super-block without the tail
  const Field* fields;
  int field_count;
};

constexpr Field kQ2K[] = {
    {0, 1, 16, 0, false}, {80, 2, 1, 256, false}, {82, 2, 1, 288, false}, {16, 4, 16, 320, false}};
constexpr Field kQ3K[] = {
    {96, 1, 12, 0, false}, {0, 4, 8, 192, false}, {32, 4, 16, 704, false}, {108, 2, 1, 0, true}};
constexpr Field kQ4K[] = {
    {0, 2, 1, 0, false}, {2, 2, 1, 32, false}, {4, 1, 12, 64, false}, {16, 4, 32, 256, false}};
constexpr Field kQ5K[] = {{0, 2, 1, 0, false},
                          {2, 2, 1, 32, false},
                          {4, 1, 12, 64, false},
                          {16, 4, 8, 256, false},
                          {48, 4, 32, 768, false}};
// Four chunks of 64 elements (half h, 16-element part u): low nibbles' two groups, then the high bits.
constexpr Field kQ6K[] = {
    {192, 1, 16, 0, false},                                                       // scales
    {0, 4, 4, 256, false},   {32, 4, 4, 512, false},   {128, 4, 4, 768, false},   // h 0, u 0
    {16, 4, 4, 1024, false}, {48, 4, 4, 1280, false},  {144, 4, 4, 1536, false},  // h 0, u 1
    {64, 4, 4, 1792, false}, {96, 4, 4, 2048, false},  {160, 4, 4, 2304, false},  // h 1, u 0
    {80, 4, 4, 2560, false}, {112, 4, 4, 2816, false}, {176, 4, 4, 3072, false},  // h 1, u 1
    {208, 2, 1, 0, true}};
constexpr Field kIQ4XS[] = {
    {0, 2, 1, 0, false}, {2, 2, 1, 32, false}, {4, 1, 4, 64, false}, {8, 4, 32, 128, false}};

template <int n>
constexpr Layout make_layout(int source_bytes, int body_bytes, const Field (&fields)[n]) {
  return Layout{source_bytes, body_bytes, fields, n};
}

Layout layout(DType type) {
  switch (type) {
    case DType::kQ2_K:
      return make_layout(84, 1344, kQ2K);
    case DType::kQ3_K:
      return make_layout(110, 1728, kQ3K);
    case DType::kQ4_K:
      return make_layout(144, 2304, kQ4K);
    case DType::kQ5_K:
      return make_layout(176, 2816, kQ5K);
    case DType::kQ6_K:
      return make_layout(210, 3328, kQ6K);
    default:
      METE_CHECK(type == DType::kIQ4_XS);
      return make_layout(136, 2176, kIQ4XS);
  }
}

template <int unit>
void scatter(const uint8_t* source, int count, uint8_t* dest) {
  for (int u = 0; u < count; ++u) std::memcpy(dest + u * unit * kPanelRows, source + u * unit, unit);
}

template <int unit>
void gather(const uint8_t* panel, int count, uint8_t* row) {
  for (int u = 0; u < count; ++u) std::memcpy(row + u * unit, panel + u * unit * kPanelRows, unit);
}

uint8_t* field_at(const Layout& l, const Field& f, uint8_t* panel, int64_t block, int64_t blocks, int lane) {
  const int64_t base = f.in_tail ? blocks * l.body_bytes + block * 32 : block * l.body_bytes;
  return panel + base + f.dest + lane * f.unit;
}

}  // namespace

void pack_panel_k(DType type, const uint8_t* source, int rows, int64_t cols, uint8_t* panel) {
  const Layout l = layout(type);
  const int64_t blocks = cols / 256;
  const size_t used = row_bytes(type, cols) * kPanelRows;
  std::memset(panel + used, 0, panel_bytes(type, cols) - used);
  if (rows < kPanelRows) std::memset(panel, 0, used);
  const int64_t row_size = blocks * l.source_bytes;
  for (int64_t b = 0; b < blocks; ++b)
    for (int lane = 0; lane < rows; ++lane) {
      const uint8_t* from = source + lane * row_size + b * l.source_bytes;
      for (int i = 0; i < l.field_count; ++i) {
        const Field& f = l.fields[i];
        uint8_t* to = field_at(l, f, panel, b, blocks, lane);
        if (f.unit == 4) {
          scatter<4>(from + f.source, f.count, to);
        } else if (f.unit == 2) {
          scatter<2>(from + f.source, f.count, to);
        } else {
          scatter<1>(from + f.source, f.count, to);
        }
      }
    }
}

void unpack_row_k(DType type, const uint8_t* panel, int lane, int64_t cols, uint8_t* row) {
  const Layout l = layout(type);
  const int64_t blocks = cols / 256;
  for (int64_t b = 0; b < blocks; ++b)
    for (int i = 0; i < l.field_count; ++i) {
      const Field& f = l.fields[i];
      const uint8_t* from = field_at(l, f, const_cast<uint8_t*>(panel), b, blocks, lane);
      uint8_t* to = row + b * l.source_bytes + f.source;
      if (f.unit == 4) {
        gather<4>(from, f.count, to);
      } else if (f.unit == 2) {
        gather<2>(from, f.count, to);
      } else {
        gather<1>(from, f.count, to);
      }
    }
}

}  // namespace mete
