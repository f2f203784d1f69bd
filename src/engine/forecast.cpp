#include "engine/forecast.h"

#include <algorithm>

#include "format/machine_profile.h"
#include "weights/replay.h"

namespace mete {
namespace {

// Without a profile: two channels of DDR4, and a SATA-class or virtual drive.
constexpr double kAssumedMemoryRate = 10e9, kAssumedDriveRate = 1e9;

/// KV bytes that decoding at `position` reads, windows honoured.
double kv_bytes(const ModelConfig& model, const KvConfig& kv, double position) {
  const KvLayout layout = kv_layout(kv);
  double slots = 0;
  for (const int32_t window : model.windows)
    slots += window > 0 ? std::min<double>(window, position) : position;
  return slots * static_cast<double>(kv.kv_heads) * static_cast<double>(layout.page_bytes()) /
         static_cast<double>(layout.page_slots);
}

}  // namespace

double Forecast::tokens_per_s() const {
  const double seconds = std::max(memory_bytes_per_token / memory_rate, disk_bytes_per_token / drive_rate);
  return seconds > 0 ? 1 / seconds : 0;
}

std::string Forecast::text(const ModelConfig& model, const MemoryPlan& plan) const {
  std::string out;
  if (!model.experts.layers.empty()) {
    out = fmt::format("{} of {} experts of each layer in memory: hit rate {:.0f} % {}, ",
                      plan.slots_per_layer, model.experts.experts, 100 * hit_rate, hit_rate_from);
  }
  out += fmt::format("{:.1f} MB per token from memory at {:.1f} GB/s", memory_bytes_per_token / 1e6,
                     memory_rate / 1e9);
  if (disk_bytes_per_token > 0) {
    out += fmt::format(", {:.1f} MB from the drive at {:.2f} GB/s", disk_bytes_per_token / 1e6,
                       drive_rate / 1e9);
  }
  return out + fmt::format(" ({}): at most {:.1f} tokens/s in decode, bound by {}", rates_from,
                           tokens_per_s(), bound_by_drive() ? "the drive" : "memory");
}

ReplayedRate replay_plan(const RoutingTrace& trace, const ModelConfig& model, const MemoryPlan& plan,
                         const ExpertOptions& options) {
  const ExpertDeclaration& experts = model.experts;
  const auto layers = static_cast<int64_t>(experts.layers.size());
  if (trace.layers != layers || trace.experts != experts.experts || trace.used != experts.used) {
    throw bad_usage("the trace is of {} layers, {} of {} experts, the model has {} layers, {} of {} experts",
                    trace.layers, trace.used, trace.experts, layers, experts.used, experts.experts);
  }
  LearnedRule rule;
  ExpertOptions planned = options;
  planned.slots_per_layer = plan.slots_per_layer;
  const ExpertStoreConfig store = expert_store_config(planned, experts, &rule);
  ExpertCacheConfig cache = expert_cache_config(experts, store);
  cache.guesses = 0;  // tokens one by one have no hints
  const ExpertCounts counts = replay(tokens_of(trace), cache);
  if (counts.hits + counts.misses == 0) throw bad_usage("the trace holds no visits");
  return {static_cast<double>(counts.hits) / static_cast<double>(counts.hits + counts.misses),
          name(store.replace.kind)};
}

Forecast make_forecast(const ModelConfig& model, const MemoryPlan& plan, const KvConfig& kv, int threads,
                       const std::optional<ReplayedRate>& replayed) {
  Forecast f;
  f.memory_bytes_per_token =
      static_cast<double>(model.bytes_per_token) + kv_bytes(model, kv, static_cast<double>(plan.context) / 2);
  f.memory_rate = kAssumedMemoryRate;
  f.drive_rate = kAssumedDriveRate;
  std::string memory_from = "assumed", drive_from = "assumed";
  if (const Result<MachineProfile> profile = load_profile(profile_path())) {
    const ThreadPoint* point = profile->with_threads(threads);
    if (point == nullptr && !profile->threads.empty()) point = &profile->threads.back();
    if (point != nullptr && point->read_bytes_per_s.median > 0) {
      f.memory_rate = point->read_bytes_per_s.median;
      memory_from = "measured";
    }
    double best = 0;
    for (const DriveRate& rate : profile->drive) {
      if (rate.pattern.direct && rate.pattern.random) best = std::max(best, rate.bytes_per_s.median);
    }
    if (best > 0) {
      f.drive_rate = best;
      drive_from = "measured";
    }
  }
  f.rates_from =
      memory_from == drive_from ? "both " + memory_from : "memory " + memory_from + ", drive " + drive_from;
  if (memory_from == "assumed" || drive_from == "assumed") f.rates_from += "; mete bench --machine measures";
  if (!model.experts.layers.empty()) {
    const double experts = static_cast<double>(model.experts.experts);
    f.hit_rate = std::min(1.0, static_cast<double>(plan.slots_per_layer) / experts);
    f.hit_rate_from = "if routing were even";
    if (replayed && plan.slots_per_layer < model.experts.experts) {
      f.hit_rate = replayed->rate;
      f.hit_rate_from = fmt::format("by the trace with {}, cold misses counted", replayed->policy);
    }
    const double expert_bytes = static_cast<double>(model.expert_bytes) / experts;  // one of each layer
    f.disk_bytes_per_token = (1 - f.hit_rate) * static_cast<double>(model.experts.used) * expert_bytes;
  }
  return f;
}

}  // namespace mete
