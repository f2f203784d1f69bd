// Writes what routers choose and what the expert store does to a routing trace.
#pragma once

#include <string>
#include <vector>

#include "format/routing_trace.h"
#include "models/model.h"
#include "weights/expert_store.h"

namespace mete {

class RoutingRecorder final : public RoutingTap, public ExpertStoreLog {
 public:
  /// Throws Error(kRuntime) if the file cannot be written; kUsage if the model has no routed experts.
  RoutingRecorder(const std::string& path, const ModelConfig& model);
  void sequence() { writer_.sequence(); }  ///< a new text starts
  void close() { writer_.close(); }        ///< throws Error(kRuntime)

  void routed(int layer, int64_t rows, int64_t used, const int32_t* ids, const float* weights) override;
  void demanded(int layer, std::span<const ExpertDemand> demands,
                std::span<const ExpertCache::Item> plan) noexcept override;
  void hinted(int layer, std::span<const ExpertDemand> demands) noexcept override;

 private:
  RoutingTraceWriter writer_;
  std::vector<RoutingTrace::Served> served_;
  std::vector<RoutingTrace::Hint> hints_;
};

}  // namespace mete
