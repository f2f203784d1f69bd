#include "base/size.h"

#include <cmath>
#include <cstdlib>

namespace mete {
namespace {

/// Bytes of a unit in lower case; 0 if there is no such unit.
double unit_bytes(std::string_view unit) {
  if (unit.empty() || unit == "b") return 1;
  const size_t power = std::string_view("kmgt").find(unit[0]);
  if (power == std::string_view::npos) return 0;
  const std::string_view rest = unit.substr(1);
  const double base = rest == "b" ? 1000 : rest.empty() || rest == "ib" ? 1024 : 0;
  return std::pow(base, static_cast<double>(power + 1));
}

}  // namespace

Result<int64_t> parse_size(std::string_view text) {
  std::string number, unit;
  size_t at = 0;
  while (at < text.size() && ((text[at] >= '0' && text[at] <= '9') || text[at] == '.')) number += text[at++];
  while (at < text.size() && text[at] == ' ') ++at;
  for (; at < text.size(); ++at) {
    const char c = text[at];
    unit += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  }
  char* end = nullptr;
  const double value = number.empty() || number == "." ? 0 : std::strtod(number.c_str(), &end);
  const double bytes = value * unit_bytes(unit);
  if (end == nullptr || *end != '\0' || !(bytes >= 1) || bytes >= 0x1p62) {
    return bad_usage("found '{}', expected a size such as 6GiB, 512M or 800MB", text);
  }
  return static_cast<int64_t>(bytes);
}

std::string size_text(int64_t bytes) {
  const auto value = static_cast<double>(bytes);
  if (bytes >= int64_t{10} << 30) return fmt::format("{:.2f} GiB", value / 0x1p30);
  return fmt::format("{:.1f} MiB", value / 0x1p20);
}

}  // namespace mete
