#include "text/grammar/integer_range.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

namespace mete {
namespace {

constexpr int64_t kMost = 9999999999999999;  // 16 digits

std::string digits(int64_t count) { return count == 0 ? "" : fmt::format(" [0-9]{{{}}}", count); }

/// Numbers from `low` to `high`, written with the same number of digits (leading zeros allowed).
std::string same_length(const std::string& low, const std::string& high) {
  if (low.empty()) return "\"\"";
  if (low == high) return fmt::format("\"{}\"", low);
  const auto rest = static_cast<int64_t>(low.size()) - 1;
  const std::string zeros(static_cast<size_t>(rest), '0'), nines(static_cast<size_t>(rest), '9');
  const std::string low_rest = low.substr(1), high_rest = high.substr(1);
  if (low[0] == high[0]) return fmt::format("\"{}\" ({})", low[0], same_length(low_rest, high_rest));
  std::vector<std::string> all;
  char first = low[0], last = high[0];
  if (low_rest != zeros) {
    all.push_back(fmt::format("\"{}\" ({})", first, same_length(low_rest, nines)));
    ++first;
  }
  std::string top;
  if (high_rest != nines) {
    top = fmt::format("\"{}\" ({})", last, same_length(zeros, high_rest));
    --last;
  }
  if (first <= last) all.push_back(fmt::format("[{}-{}]{}", first, last, digits(rest)));
  if (!top.empty()) all.push_back(top);
  return fmt::format("{}", fmt::join(all, " | "));
}

/// 0 <= low; empty if high < low.
std::string unsigned_range(int64_t low, int64_t high) {
  std::vector<std::string> all;
  for (int64_t begin = 0, end = 9; begin <= high && begin <= kMost; begin = end + 1, end = end * 10 + 9) {
    const int64_t a = std::max(low, begin), b = std::min(high, end);
    if (a <= b) all.push_back(same_length(std::to_string(a), std::to_string(b)));
  }
  return fmt::format("{}", fmt::join(all, " | "));
}

void add(std::vector<std::string>& all, const std::string& before, const std::string& range,
         const char* behind) {
  if (!range.empty()) all.push_back(fmt::format("{}({}){}", before, range, behind));
}

/// Numbers of one sign by magnitude, from `low` (left out if `open_low`) to `high`, with decimals.
void magnitudes(std::vector<std::string>& all, const char* sign, int64_t low, bool open_low, int64_t high,
                bool open_high) {
  if (low > high) return;
  const int64_t whole = open_low ? low + 1 : low;  // these may have any decimals, up to high - 1
  add(all, sign, unsigned_range(whole, high - 1), " (\".\" [0-9]{1,16})?");
  if (open_low && low < high) {
    add(all, sign, fmt::format("\"{}.\" [0-9]{{0,15}} [1-9]", low), "");
  }
  if (!open_high && (high > low || !open_low))
    add(all, sign, fmt::format("\"{}\"", high), " (\".\" \"0\"{1,16})?");
}

struct Limits {
  int64_t low = -kMost, high = kMost;
  bool open_low = false, open_high = false;
};

Limits limits_of(const NumberBounds& b) {
  Limits out;
  if (b.minimum) out.low = *b.minimum;
  if (b.exclusive_minimum && (!b.minimum || *b.exclusive_minimum >= *b.minimum)) {
    out.low = *b.exclusive_minimum;
    out.open_low = true;
  }
  if (b.maximum) out.high = *b.maximum;
  if (b.exclusive_maximum && (!b.maximum || *b.exclusive_maximum <= *b.maximum)) {
    out.high = *b.exclusive_maximum;
    out.open_high = true;
  }
  return out;
}

}  // namespace

std::string integer_range_gbnf(const NumberBounds& bounds) {
  const Limits limits = limits_of(bounds);
  const int64_t low = limits.low + (limits.open_low ? 1 : 0), high = limits.high - (limits.open_high ? 1 : 0);
  std::vector<std::string> all;
  add(all, "\"-\" ", unsigned_range(std::max<int64_t>(1, -high), -low), "");
  add(all, "", unsigned_range(std::max<int64_t>(0, low), high), "");
  return all.empty() ? "" : fmt::format("({})", fmt::join(all, " | "));
}

std::string number_range_gbnf(const NumberBounds& bounds) {
  const Limits l = limits_of(bounds);
  std::vector<std::string> all;
  if (l.low < 0) {
    const bool below_zero = l.high < 0;
    magnitudes(all, "\"-\" ", below_zero ? -l.high : 0, below_zero ? l.open_high : true, -l.low, l.open_low);
  }
  if (l.high >= 0) {
    const bool above_zero = l.low >= 0;
    magnitudes(all, "", above_zero ? l.low : 0, above_zero && l.open_low, l.high, l.open_high);
  }
  return all.empty() ? "" : fmt::format("({})", fmt::join(all, " | "));
}

}  // namespace mete
