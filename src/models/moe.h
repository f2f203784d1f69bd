// The routed experts of a layer: router, grouped forward, sum in rank order (docs/numerics.md, "Experts").
#pragma once

#include <cstdint>
#include <vector>

#include "base/aligned.h"
#include "models/model.h"
#include "ops/matmul_grouped.h"
#include "ops/route.h"
#include "weights/experts.h"

namespace mete {

/// What a layer with routed experts keeps in memory.
struct MoeLayer {
  int index = 0;                          ///< among the MoE layers
  const float* norm = nullptr;            ///< [d_model], of the RMSNorm before the router
  Linear router;                          ///< [experts][d_model]
  const float* selection_bias = nullptr;  ///< [experts] or null
};

/// act(gate, up): what lies between the matrices of an expert; out may be gate. rows of n.
using GatedActivation = void (*)(Context& ctx, const float* gate, const float* up, int64_t rows, int64_t n,
                                 float* out) noexcept;

/// One call: the experts' part of one layer for all rows of a step.
struct MoeCall {
  const MoeLayer* layer;
  const MoeLayer* next;  ///< the MoE layer after it, or null
  const float* x;        ///< [rows][d_model] residual; what the next layer's router is guessed from
  const float* normed;   ///< [rows][d_model]
  int64_t rows;          ///< 1 .. max_rows
  float* out;            ///< [rows][d_model] = sum over ranks of weight * expert(normed)
};

class Moe {
 public:
  /// `eps` is that of the layers' norms.
  Moe(const ExpertDeclaration& experts, const RouterParams& router, GatedActivation activation, float eps);

  /// Bytes that allocate() takes for steps of at most max_rows.
  int64_t bytes(int64_t max_rows) const;
  void allocate(Context& ctx, int64_t max_rows);
  int64_t resident() const { return activations_.resident() + input_.resident() + inner_.resident(); }

  /// An Error if the source fails; `out` is then undefined. Same bits whatever waves and order `source` gives
  /// its experts in.
  Status forward(Context& ctx, ExpertSource& source, const MoeCall& call, RoutingTap* tap) noexcept;

 private:
  /// Rows of each expert from ids_: demands_, first_, rows_of_, ranks_of_.
  void group(int64_t rows) noexcept;
  void look_ahead(Context& ctx, ExpertSource& source, const MoeCall& call) noexcept;
  /// Computes the experts of one wave into slots [slot, ..); returns the slot behind them.
  int64_t run_wave(Context& ctx, std::span<const ExpertSource::Ready> wave, int64_t slot) noexcept;
  int64_t activation_floats(int64_t max_rows) const;
  /// Of a row as gate and up read it; those of the down products lie side by side and are not gathered.
  size_t gathered_row_bytes() const;

  int64_t d_, ffn_;
  bool outer_kinds_[3] = {}, inner_kinds_[3] = {};  // by ActivationKind: does a gate, up or down read it?
  RouterParams router_;
  GatedActivation activation_;
  float eps_;

  AlignedBuffer activations_;
  float* logits_ = nullptr;                // [rows][experts]
  float* guess_normed_ = nullptr;          // [rows][d_model], in down_'s memory
  float *gate_ = nullptr, *up_ = nullptr;  // [rows * used][ffn], by slot
  float* down_ = nullptr;                  // [rows * used][d_model], by slot
  GroupedInput input_, inner_;
  std::vector<int32_t> ids_, guess_ids_;        // [rows][used]
  std::vector<float> weights_, guess_weights_;  // [rows][used]
  std::vector<ExpertDemand> guesses_;
  std::vector<int32_t> guess_ranks_;  // by expert: best rank in any row
  std::vector<ExpertDemand> demands_;
  std::vector<int32_t> first_;      // per expert (+ 1): its part of rows_of_
  std::vector<int32_t> rows_of_;    // rows by expert, ascending
  std::vector<int32_t> places_of_;  // beside it: row * used + rank
  std::vector<int32_t> slot_of_;    // [rows][used]
  std::vector<int32_t> slots_;      // 0, 1, ..: row lists of the down products
  std::vector<MatmulGroup> groups_;
};

}  // namespace mete
