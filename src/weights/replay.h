// Replay of routing traces: hit rates of replacement policies and of bounds that know the future, and two
// measures of a router's locality. Definitions and sources: docs/experts.md.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "format/routing_trace.h"
#include "weights/expert_cache.h"
#include "weights/replace/learned_rule.h"

namespace mete {

/// One visit of a layer, or a hint.
struct ReplayEvent {
  int32_t layer;
  bool hint;
  std::vector<ExpertDemand> demands;
};

/// The trace as the engine went through it: one visit per layer and step, with hints.
std::vector<ReplayEvent> steps_of(const RoutingTrace& trace);
/// The trace as if every token had been a step of its own: token by token, layer by layer, without hints.
std::vector<ReplayEvent> tokens_of(const RoutingTrace& trace);

/// Counts of a cache with this configuration, cold at the start: exactly those of a live run that made the
/// same calls.
ExpertCounts replay(const std::vector<ReplayEvent>& events, const ExpertCacheConfig& config);

/// Belady's optimum if every miss takes a slot.
ExpertCounts replay_belady(const std::vector<ReplayEvent>& events, const ExpertCacheConfig& config);
/// Belady's optimum if a miss need not take a slot.
ExpertCounts replay_belady_bypass(const std::vector<ReplayEvent>& events, const ExpertCacheConfig& config);
/// SCH(m): the policy that sees the next `m` visits of the pool's layers: the victim has the fewest uses in
/// them, then the oldest last use. With a shared pool a token is `layers` visits.
ExpertCounts replay_sch(const std::vector<ReplayEvent>& events, const ExpertCacheConfig& config, int64_t m);

/// SRP(m), segment routing best performance: the best F1 of predicting an expert active for all of a window
/// of m tokens, one threshold for all experts and layers (arXiv 2505.16056).
struct SegmentScore {
  double srp = 0;
  double size_ratio = 0;  ///< predicted / active at the best threshold: the cache size, in units of k
};
SegmentScore segment_score(const std::vector<ReplayEvent>& tokens, int32_t layers, int32_t experts,
                           int64_t m);

/// Visits per layer, for training.
std::vector<LayerVisits> visits_of(const std::vector<ReplayEvent>& events, int32_t layers);

}  // namespace mete
