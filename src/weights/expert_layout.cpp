#include "weights/expert_layout.h"

#include <algorithm>

#include "format/direct_reader.h"
#include "quant/pack.h"

namespace mete {
namespace {

ExpertPiece make_piece(const GgufTensor& t, int64_t experts) {
  ExpertPiece piece;
  piece.type = t.type;
  piece.part = t.part;
  piece.offset = t.offset;
  piece.bytes = t.bytes / static_cast<uint64_t>(experts);
  piece.cols = t.dims[0];
  piece.rows[0] = t.dims[1];
  return piece;
}

size_t matrix_bytes(DType type, int64_t rows, int64_t cols) {
  return static_cast<size_t>(panel_count(rows)) * panel_bytes(type, cols);
}

}  // namespace

ExpertLayout make_expert_layout(const ExpertDeclaration& d) {
  check_experts(d);
  ExpertLayout layout;
  layout.experts = d.experts;
  for (const ExpertLayer& source : d.layers) {
    ExpertLayerLayout layer;
    METE_CHECK(source.up != nullptr && source.down != nullptr);
    layer.up_type = source.up->type;
    layer.gate_type = source.gate == nullptr ? source.up->type : source.gate->type;
    layer.down_type = source.down->type;
    layer.up = matrix_bytes(layer.gate_type, d.ffn, d.d_model);
    layer.down = layer.up + matrix_bytes(layer.up_type, d.ffn, d.d_model);
    layer.packed_bytes = layer.down + matrix_bytes(layer.down_type, d.d_model, d.ffn);
    ExpertPiece up = make_piece(*source.up, d.experts), down = make_piece(*source.down, d.experts);
    if (source.gate == nullptr) {
      up.matrices = 2;
      up.rows = {d.ffn, d.ffn};
      up.place = {layer.gate, layer.up};
    } else {
      layer.pieces.push_back(make_piece(*source.gate, d.experts));
      up.place[0] = layer.up;
    }
    down.place[0] = layer.down;
    layer.pieces.push_back(up);
    layer.pieces.push_back(down);
    layout.slot_bytes = std::max(layout.slot_bytes, layer.packed_bytes);
    layout.layers.push_back(std::move(layer));
  }
  layout.slot_bytes = (layout.slot_bytes + kReadAlign - 1) / kReadAlign * kReadAlign;
  return layout;
}

int64_t piece_panels(const ExpertPiece& piece) {
  return panel_count(piece.rows[0]) + (piece.matrices == 2 ? panel_count(piece.rows[1]) : 0);
}

void pack_piece_panels(const ExpertPiece& piece, const uint8_t* source, int64_t begin, int64_t count,
                       uint8_t* slot) {
  const size_t row = row_bytes(piece.type, piece.cols), stride = panel_bytes(piece.type, piece.cols);
  const int64_t first = panel_count(piece.rows[0]);
  for (int64_t p = begin; p < begin + count; ++p) {
    const size_t m = p < first ? 0 : 1;
    const int64_t panel = m == 0 ? p : p - first, at = panel * kPanelRows;
    const auto rows = static_cast<int>(std::min<int64_t>(kPanelRows, piece.rows[m] - at));
    const int64_t before = (m == 0 ? 0 : piece.rows[0]) + at;
    pack_panel(piece.type, source + static_cast<size_t>(before) * row, rows, piece.cols,
               slot + piece.place[m] + static_cast<size_t>(panel) * stride);
  }
}

ExpertWeights expert_view(const ExpertDeclaration& d, const ExpertLayout& layout, int layer, int32_t expert,
                          const uint8_t* slot) {
  const ExpertLayerLayout& l = layout.layers[static_cast<size_t>(layer)];
  ExpertWeights weights{{l.gate_type, d.ffn, d.d_model, slot + l.gate},
                        {l.up_type, d.ffn, d.d_model, slot + l.up},
                        {l.down_type, d.d_model, d.ffn, slot + l.down}};
  set_expert_biases(d, d.layers[static_cast<size_t>(layer)], expert, &weights);
  return weights;
}

}  // namespace mete
