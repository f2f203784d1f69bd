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

}  // namespace mete
