#include "engine/receipt.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

namespace mete {

nlohmann::ordered_json to_json(const LedgerReport& report) {
  nlohmann::ordered_json parts = nlohmann::ordered_json::object(), json;
  for (size_t i = 0; i < kPartCount; ++i) {
    if (report.seconds[i] <= 0) continue;
    parts[name(static_cast<Part>(i))] = {{"s", report.seconds[i]}, {"bytes", report.bytes[i]}};
  }
  json["wall_s"] = report.wall_s;
  json["parts"] = std::move(parts);
  json["bytes_read"] = report.bytes_read();
  json["reports"] = report.switches;
  for (size_t i = 0; i < kCounterCount; ++i) {
    if (report.counters[i] != 0) json[name(static_cast<Counter>(i))] = report.counters[i];
  }
  return json;
}

std::string describe(const std::string& title, const LedgerReport& report) {
  if (report.wall_s <= 0) return {};
  std::string text = fmt::format("{} {:.3f} s", title, report.wall_s);
  for (size_t i = 0; i < kCounterCount; ++i) {
    if (report.counters[i] != 0)
      text += fmt::format(" | {} {}", name(static_cast<Counter>(i)), report.counters[i]);
  }
  text += '\n';
  for (size_t i = 0; i < kPartCount; ++i) {
    const double s = report.seconds[i];
    if (s <= 0) continue;
    text +=
        fmt::format("  {:<12} {:9.4f} s {:5.1f} %", name(static_cast<Part>(i)), s, 100 * s / report.wall_s);
    if (report.bytes[i] > 0) {
      const auto bytes = static_cast<double>(report.bytes[i]);
      text += fmt::format("  {:10.1f} MB  {:6.1f} GB/s", bytes / 1e6, bytes / s / 1e9);
    }
    text += '\n';
  }
  return text;
}

nlohmann::ordered_json experts_json(const ExpertStore& store, const LedgerReport& report) {
  const ExpertStoreStats stats = store.stats();
  const int64_t hits = report.count(Counter::kExpertHits), misses = report.count(Counter::kExpertMisses);
  return {
      {"slots", store.slots()},
      {"slots_per_layer", static_cast<double>(store.slots()) / store.layers()},
      {"policy", store.policy()},
      {"experts_hit", hits},
      {"experts_missed", misses},
      {"hit_rate", hits + misses > 0 ? static_cast<double>(hits) / static_cast<double>(hits + misses) : 0.0},
      {"disk_bytes", report.count(Counter::kDiskBytes)},
      {"disk_reads", report.count(Counter::kDiskReads)},
      {"stall_s", report.seconds_in(Part::kExpertWait)},
      {"prefetched", stats.counts.guesses},
      {"prefetched_useful", stats.counts.useful_guesses},
      {"read_retries", stats.retries},
      {"io", store.how()}};
}

std::string experts_text(const nlohmann::ordered_json& j) {
  return fmt::format(
      "experts {:.1f} slots per layer, {} | {} hit, {} missed ({:.1f} %) | {:.1f} MB in {} reads, waited "
      "{:.3f} s | "
      "read ahead {}, useful {} | {}",
      j["slots_per_layer"].get<double>(), j["policy"].get<std::string>(), j["experts_hit"].get<int64_t>(),
      j["experts_missed"].get<int64_t>(), 100 * j["hit_rate"].get<double>(),
      j["disk_bytes"].get<double>() / 1e6, j["disk_reads"].get<int64_t>(), j["stall_s"].get<double>(),
      j["prefetched"].get<int64_t>(), j["prefetched_useful"].get<int64_t>(), j["io"].get<std::string>());
}

nlohmann::ordered_json embeddings_json(std::span<RowStore* const> stores, const LedgerReport& report) {
  RowStoreStats stats;
  int64_t cached = 0;
  nlohmann::ordered_json tables = nlohmann::ordered_json::array();
  for (const RowStore* store : stores) {
    stats += store->stats();
    cached += store->cached_rows();
    tables.push_back(store->table().name);
  }
  return {{"tables", tables},
          {"rows_hit", report.count(Counter::kEmbedHits)},
          {"rows_missed", report.count(Counter::kEmbedMisses)},
          {"disk_bytes", report.count(Counter::kEmbedDiskBytes)},
          {"disk_reads", report.count(Counter::kEmbedDiskReads)},
          {"stall_s", report.seconds_in(Part::kEmbedWait)},
          {"cached_rows", cached},
          {"read_retries", stats.retries},
          {"io", stores.front()->how()}};
}

std::string embeddings_text(const nlohmann::ordered_json& j) {
  return fmt::format(
      "embeddings on the drive: {} rows from the cache of {}, {} read | {:.2f} MB in {} reads, waited "
      "{:.3f} s | {}",
      j["rows_hit"].get<int64_t>(), j["cached_rows"].get<int64_t>(), j["rows_missed"].get<int64_t>(),
      j["disk_bytes"].get<double>() / 1e6, j["disk_reads"].get<int64_t>(), j["stall_s"].get<double>(),
      j["io"].get<std::string>());
}

}  // namespace mete
