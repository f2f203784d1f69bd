// Routed experts: where a mixture-of-experts layer gets their weights from. ResidentExperts keeps all in
// memory; ExpertStore keeps some in a fixed arena and reads the rest from the file. Both give the same bits.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "format/gguf.h"
#include "ops/matmul.h"

namespace mete {

/// The three matrices of one expert, in packed panels. Biases, where an architecture has them, stay resident
/// with the model and are set in `bias`.
struct ExpertWeights {
  Linear gate, up, down;  ///< [ffn][d_model], [ffn][d_model], [d_model][ffn]
};

/// The routed experts of one layer in the file: three stacked tensors [experts][rows][cols].
struct ExpertLayer {
  const GgufTensor* gate = nullptr;  ///< null if gate and up lie in one tensor, gate rows first (`up`)
  const GgufTensor* up = nullptr;
  const GgufTensor* down = nullptr;
  const float *gate_bias = nullptr, *up_bias = nullptr;  ///< [experts][ffn], or null
  const float* down_bias = nullptr;                      ///< [experts][d_model], or null
};

/// What a model declares: the layers that have routed experts, in order; all of one shape, types may differ.
struct ExpertDeclaration {
  int64_t experts = 0;  ///< per layer
  int64_t used = 0;     ///< per token, k
  int64_t d_model = 0;
  int64_t ffn = 0;  ///< of one expert
  std::vector<ExpertLayer> layers;
};

/// Checks the stacked tensors of every layer against the declared shape; fused gate and up have 2 * ffn rows.
/// Throws Error(kBadModel) naming the tensor.
void check_experts(const ExpertDeclaration& declaration);
/// Bytes of one expert's three matrices in packed panels (quant/pack.h), each matrix from a new panel on.
int64_t packed_expert_bytes(const ExpertDeclaration& declaration, const ExpertLayer& layer);
/// Bytes of one expert's matrices in the file.
int64_t stored_expert_bytes(const ExpertDeclaration& declaration, const ExpertLayer& layer);
/// Sets the biases of expert `expert`, null where the layer has none.
void set_expert_biases(const ExpertDeclaration& declaration, const ExpertLayer& layer, int64_t expert,
                       ExpertWeights* weights);

/// One routed expert that a layer needs in this step.
struct ExpertDemand {
  int32_t expert;
  int32_t rows;  ///< rows of the step that chose it, >= 1
};

/// Serves one MoE layer at a time, from the engine's thread: begin, then next until every demanded expert was
/// given, then end. Decisions (hit, victim, prefetch) depend on the sequence of calls alone, never on when a
/// read completes.
class ExpertSource {
 public:
  virtual ~ExpertSource() = default;

  /// `layer` counts MoE layers from 0. `demands`: distinct experts, ascending by id.
  virtual void begin(int layer, std::span<const ExpertDemand> demands) noexcept = 0;

  struct Ready {
    int32_t demand;         ///< index into `demands`
    ExpertWeights weights;  ///< valid until the next call of next() or end()
  };
  /// Experts that are in memory now and were not given yet, at least one (waits for a read if need be); empty
  /// when all were given. An Error after the retries of a failing read; the layer is then over (call end).
  virtual Result<std::span<const Ready>> next() noexcept = 0;
  virtual void end() noexcept = 0;

  /// A guess at what `layer` will demand, best first; may start reads, never changes a bit. `rows` as above.
  /// A model calls it for the next MoE layer after begin() and before the first next() of the one before.
  virtual void hint(int layer, std::span<const ExpertDemand> demands) noexcept = 0;
  /// Whether hint() does anything: a model need not run its next router for nothing.
  virtual bool wants_hints() const noexcept = 0;
  /// Bytes of experts that are in the process's memory now.
  virtual int64_t resident() const { return 0; }
};

}  // namespace mete
