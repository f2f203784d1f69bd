// All experts of a model in memory, expert by expert: the matrices of one lie side by side.
#pragma once

#include <span>
#include <vector>

#include "weights/dense.h"
#include "weights/experts.h"

namespace mete {

class ResidentExperts final : public ExpertSource {
 public:
  /// Streams the experts of `file` into packed panels. Throws Error(kRuntime), before any work, if they
  /// exceed the memory available; or if reading fails. Neither argument is needed afterwards.
  ResidentExperts(Context& ctx, const GgufFile& file, const ExpertDeclaration& declaration,
                  const ReadOptions& options);

  void begin(int layer, std::span<const ExpertDemand> demands) noexcept override;
  Result<std::span<const Ready>> next() noexcept override;
  void end() noexcept override {}
  void hint(int, std::span<const ExpertDemand>) noexcept override {}
  bool wants_hints() const noexcept override { return false; }
  int64_t resident() const override { return weights_.resident(); }

 private:
  int64_t experts_;
  DenseWeights weights_;
  std::vector<ExpertWeights> table_;  // [layers][experts]
  std::vector<Ready> ready_;
};

}  // namespace mete
