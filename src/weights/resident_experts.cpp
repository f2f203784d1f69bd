#include "weights/resident_experts.h"

namespace mete {

ResidentExperts::ResidentExperts(Context& ctx, const GgufFile& file, const ExpertDeclaration& declaration,
                                 const ReadOptions& options)
    : experts_(declaration.experts),
      weights_(file),
      table_(declaration.layers.size() * static_cast<size_t>(declaration.experts)) {
  const int64_t ffn = declaration.ffn, d = declaration.d_model;
  ExpertWeights* w = table_.data();
  for (const ExpertLayer& layer : declaration.layers) {
    for (int64_t e = 0; e < experts_; ++e, ++w) {
      const bool fused = layer.gate == nullptr;  // gate rows first
      weights_.stacked_part(fused ? *layer.up : *layer.gate, fused ? 2 * e * ffn : e * ffn, ffn, &w->gate);
      weights_.stacked_part(*layer.up, fused ? (2 * e + 1) * ffn : e * ffn, ffn, &w->up);
      weights_.stacked_part(*layer.down, e * d, d, &w->down);
      set_expert_biases(declaration, layer, e, w);
    }
  }
  ready_.reserve(static_cast<size_t>(experts_));
  weights_.load(ctx, 0, options);
}

void ResidentExperts::begin(int layer, std::span<const ExpertDemand> demands) noexcept {
  ready_.clear();
  for (size_t i = 0; i < demands.size(); ++i) {
    const int64_t index = layer * experts_ + demands[i].expert;
    ready_.push_back({static_cast<int32_t>(i), table_[static_cast<size_t>(index)]});
  }
}

Result<std::span<const ExpertSource::Ready>> ResidentExperts::next() noexcept {
  const std::span<const Ready> all = ready_;
  // A second call answers that all were given; the entries stay where they are until begin().
  ready_.clear();
  return all;
}

}  // namespace mete
