#include "engine/forecast.h"

#include <algorithm>

#include "format/machine_profile.h"

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
    out = fmt::format("{} of {} experts of each layer in memory: hit rate {:.0f} % if routing were even, ",
                      plan.slots_per_layer, model.experts.experts, 100 * hit_rate);
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

Forecast make_forecast(const ModelConfig& model, const MemoryPlan& plan, const KvConfig& kv, int threads) {
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
    const double expert_bytes = static_cast<double>(model.expert_bytes) / experts;  // one of each layer
    f.disk_bytes_per_token = (1 - f.hit_rate) * static_cast<double>(model.experts.used) * expert_bytes;
  }
  return f;
}

}  // namespace mete
