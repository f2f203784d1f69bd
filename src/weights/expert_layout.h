// Where the matrices of an expert lie: in the model file, and in a slot of the expert store.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "weights/experts.h"

namespace mete {

/// One contiguous piece of an expert in the model file: gate, up, down, or gate and up as one, then down.
struct ExpertPiece {
  DType type = DType::kF32;
  int part = 0;         ///< of the file
  uint64_t offset = 0;  ///< of expert 0, absolute
  uint64_t bytes = 0;   ///< of one expert; experts follow each other without gaps
  int64_t cols = 0;
  std::array<int64_t, 2> rows{};  ///< of the one or two matrices that the piece holds
  std::array<size_t, 2> place{};  ///< byte offset in the slot of each one's panels
  int matrices = 1;
};

struct ExpertLayerLayout {
  std::vector<ExpertPiece> pieces;  ///< 2 or 3
  DType gate_type, up_type, down_type;
  size_t gate = 0, up = 0, down = 0;  ///< byte offsets in the slot
  size_t packed_bytes = 0;            ///< of an expert's panels
};

struct ExpertLayout {
  std::vector<ExpertLayerLayout> layers;
  int64_t experts = 0;
  size_t slot_bytes = 0;  ///< the largest layer's, rounded up to whole pages: a slot serves any layer
};

/// Throws Error(kBadModel) if a tensor does not have the declared shape.
ExpertLayout make_expert_layout(const ExpertDeclaration& declaration);

/// Packs `count` panels of a piece from `begin` on (counted over its matrices in order) from the piece's
/// bytes.
void pack_piece_panels(const ExpertPiece& piece, const uint8_t* source, int64_t begin, int64_t count,
                       uint8_t* slot);
int64_t piece_panels(const ExpertPiece& piece);

/// The matrices of expert `expert` of layer `layer` whose panels start at `slot`.
ExpertWeights expert_view(const ExpertDeclaration& declaration, const ExpertLayout& layout, int layer,
                          int32_t expert, const uint8_t* slot);

}  // namespace mete
