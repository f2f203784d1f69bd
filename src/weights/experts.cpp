#include "weights/experts.h"

#include "base/error.h"
#include "quant/pack.h"

namespace mete {
namespace {

void check(const GgufTensor& tensor, int64_t cols, int64_t rows, int64_t experts) {
  const auto& d = tensor.dims;
  if (d[0] == cols && d[1] == rows && d[2] == experts && d[3] == 1) return;
  throw bad_model("tensor \"{}\" is {} x {} x {}, expected {} x {} x {}", tensor.name, d[0], d[1],
                  d[2] * d[3], cols, rows, experts);
}

int64_t packed_bytes(DType type, int64_t rows, int64_t cols) {
  return panel_count(rows) * static_cast<int64_t>(panel_bytes(type, cols));
}

}  // namespace

void check_experts(const ExpertDeclaration& e) {
  for (const ExpertLayer& layer : e.layers) {
    if (layer.gate != nullptr) check(*layer.gate, e.d_model, e.ffn, e.experts);
    check(*layer.up, e.d_model, layer.gate == nullptr ? 2 * e.ffn : e.ffn, e.experts);
    check(*layer.down, e.ffn, e.d_model, e.experts);
  }
}

int64_t packed_expert_bytes(const ExpertDeclaration& e, const ExpertLayer& layer) {
  const GgufTensor& gate = layer.gate == nullptr ? *layer.up : *layer.gate;
  return packed_bytes(gate.type, e.ffn, e.d_model) + packed_bytes(layer.up->type, e.ffn, e.d_model) +
         packed_bytes(layer.down->type, e.d_model, e.ffn);
}

int64_t stored_expert_bytes(const ExpertDeclaration& e, const ExpertLayer& layer) {
  const uint64_t bytes =
      (layer.gate == nullptr ? 0 : layer.gate->bytes) + layer.up->bytes + layer.down->bytes;
  return static_cast<int64_t>(bytes) / e.experts;
}

void set_expert_biases(const ExpertDeclaration& e, const ExpertLayer& layer, int64_t expert,
                       ExpertWeights* weights) {
  const auto at = [expert](const float* base, int64_t n) {
    return base == nullptr ? base : base + expert * n;
  };
  weights->gate.bias = at(layer.gate_bias, e.ffn);
  weights->up.bias = at(layer.up_bias, e.ffn);
  weights->down.bias = at(layer.down_bias, e.d_model);
}

}  // namespace mete
