#include "engine/routing_recorder.h"

namespace mete {
namespace {

const ExpertDeclaration& experts_of(const ModelConfig& model) {
  if (model.experts.layers.empty()) throw bad_usage("routing trace: the model has no routed experts");
  return model.experts;
}

}  // namespace

RoutingRecorder::RoutingRecorder(const std::string& path, const ModelConfig& model)
    : writer_(path, static_cast<int32_t>(experts_of(model).layers.size()),
              static_cast<int32_t>(model.experts.experts), static_cast<int32_t>(model.experts.used),
              expert_slot_bytes(model.experts)) {}

void RoutingRecorder::routed(int layer, int64_t rows, int64_t used, const int32_t* ids,
                             const float* weights) {
  writer_.visit(layer, rows, used, ids, weights);
}

void RoutingRecorder::demanded(int layer, std::span<const ExpertDemand> demands,
                               std::span<const ExpertCache::Item> plan) noexcept {
  served_.clear();
  for (const ExpertCache::Item& item : plan) {
    served_.push_back({demands[static_cast<size_t>(item.demand)].expert, item.hit, item.after});
  }
  writer_.served(layer, served_);
}

void RoutingRecorder::hinted(int layer, std::span<const ExpertDemand> demands) noexcept {
  hints_.clear();
  for (const ExpertDemand& d : demands) hints_.push_back({d.expert, d.rows});
  writer_.hint(layer, hints_);
}

}  // namespace mete
