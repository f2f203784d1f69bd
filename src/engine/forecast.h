// Expected speed of decoding under a plan: the slower of reading the weights from memory and missed experts
// from the drive.
#pragma once

#include <optional>
#include <string>

#include "engine/budget.h"
#include "engine/expert_options.h"
#include "format/routing_trace.h"

namespace mete {

struct Forecast {
  double hit_rate = 1;                ///< of routed experts; slots / experts unless a trace says better
  std::string hit_rate_from;          ///< for people
  double memory_bytes_per_token = 0;  ///< weights, and KV at half the context
  double disk_bytes_per_token = 0;
  double memory_rate = 0, drive_rate = 0;  ///< bytes per second
  std::string rates_from;                  ///< where they come from, for people

  bool bound_by_drive() const {
    return disk_bytes_per_token * memory_rate > memory_bytes_per_token * drive_rate;
  }
  /// Reads from the drive overlap with computing: the slower one counts.
  double tokens_per_s() const;
  /// "hit rate 28 % (9 of 32 experts in memory; even routing) ...".
  std::string text(const ModelConfig& model, const MemoryPlan& plan) const;
};

/// What the planned slots would have hit, had the tokens of a trace been decoded one by one with these
/// options.
struct ReplayedRate {
  double rate = 0;
  std::string policy;
};
/// Throws Error: kUsage if the trace is of a model of another shape, or has no visit; as expert_store_config.
ReplayedRate replay_plan(const RoutingTrace& trace, const ModelConfig& model, const MemoryPlan& plan,
                         const ExpertOptions& options);

/// Rates are those of the kept machine profile (mete bench --machine); without one, stated assumptions.
/// Without `replayed` the hit rate is that of even routing.
Forecast make_forecast(const ModelConfig& model, const MemoryPlan& plan, const KvConfig& kv, int threads,
                       const std::optional<ReplayedRate>& replayed = {});

}  // namespace mete
