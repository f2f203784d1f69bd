#include "sample/dry.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>

#include "kernels/cpu/scalar_math.h"

namespace mete {

std::vector<DryBreaker> find_dry_breakers(
    std::span<const std::string> strings, int32_t vocab,
    const std::function<std::string_view(int32_t)>& piece,
    const std::function<std::vector<int32_t>(std::string_view)>& encode) {
  constexpr size_t kMaxBytes = 40;
  constexpr size_t kMaxTail = 20;
  std::vector<DryBreaker> found;
  for (const std::string& whole : strings) {
    const std::string_view text = std::string_view(whole).substr(0, kMaxBytes);
    if (text.empty()) continue;
    for (int32_t id = 0; id < vocab; ++id) {
      const std::string_view word = piece(id);
      if (word.find(text) != std::string_view::npos) {
        found.push_back({id, {}});
        continue;
      }
      for (size_t at = word.find(text[0]); at != std::string_view::npos; at = word.find(text[0], at + 1)) {
        const size_t shared = word.size() - at;
        if (shared >= text.size() || word.substr(at) != text.substr(0, shared)) continue;
        std::vector<int32_t> tail = encode(text.substr(shared));
        if (tail.size() > kMaxTail) tail.resize(kMaxTail);
        found.push_back({id, std::move(tail)});
      }
    }
  }
  const auto key = [](const DryBreaker& b) { return std::tie(b.head, b.tail); };
  std::sort(found.begin(), found.end(), [&](const auto& a, const auto& b) { return key(a) < key(b); });
  found.erase(
      std::unique(found.begin(), found.end(), [&](const auto& a, const auto& b) { return key(a) == key(b); }),
      found.end());
  return found;
}

Dry::Dry(const DrySettings& settings, std::vector<DryBreaker> breakers, int32_t vocab)
    : settings_(settings), breakers_(std::move(breakers)), longest_(static_cast<size_t>(vocab), -1) {}

std::span<const DryBreaker> Dry::breakers_of(int32_t head) const {
  const auto begin = std::lower_bound(breakers_.begin(), breakers_.end(), head,
                                      [](const DryBreaker& b, int32_t id) { return b.head < id; });
  auto end = begin;
  while (end != breakers_.end() && end->head == head) ++end;
  return {begin, end};
}

/// Tokens after the last breaker of the window.
int64_t Dry::repeat_limit(std::span<const int32_t> window) const {
  const auto from_end = [&](size_t i) { return window[window.size() - 1 - i]; };
  for (size_t i = 0; i < window.size(); ++i) {
    int64_t longest = -1;
    for (const DryBreaker& breaker : breakers_of(from_end(i))) {
      const size_t length = breaker.tail.size();
      if (length > i || static_cast<int64_t>(length) <= longest) continue;
      bool match = true;
      for (size_t k = 0; match && k < length; ++k) match = breaker.tail[k] == from_end(i - 1 - k);
      if (match) longest = static_cast<int64_t>(length);
    }
    if (longest >= 0) return static_cast<int64_t>(i) - longest;
  }
  return static_cast<int64_t>(window.size());
}

/// repeats_[k]: length of the common suffix of the window and the window without its last k tokens.
void Dry::find_repeats(std::span<const int32_t> window) {
  const size_t n = window.size();
  const auto from_end = [&](size_t i) { return window[n - 1 - i]; };
  repeats_.assign(n, 0);
  size_t left = 0;
  size_t right = 0;  // one past the rightmost match found so far
  for (size_t k = 1; k < n; ++k) {
    size_t length = k < right ? std::min(right - k, static_cast<size_t>(repeats_[k - left])) : 0;
    while (k + length < n && from_end(length) == from_end(k + length)) ++length;
    repeats_[k] = static_cast<int64_t>(length);
    if (k + length > right) {
      left = k;
      right = k + length;
    }
  }
}

void Dry::apply(Candidates* list, std::span<const int32_t> window) {
  if (settings_.multiplier == 0.0f || settings_.base < 1.0f) return;
  if (static_cast<int64_t>(window.size()) <= settings_.allowed_length) return;
  const int64_t limit = repeat_limit(window);
  if (limit < settings_.allowed_length) return;
  find_repeats(window);
  touched_.clear();
  for (size_t k = 1; k < window.size(); ++k) {
    const auto length = static_cast<int32_t>(std::min(repeats_[k], limit));
    if (length < settings_.allowed_length) continue;
    const int32_t next = window[window.size() - k];
    int32_t& longest = longest_[static_cast<size_t>(next)];
    if (longest < 0) touched_.push_back(next);
    longest = std::max(longest, length);
  }
  // The power stays finite: 88.7228391 is ln of the largest float.
  const double log_base = log_double(settings_.base);
  const double most = settings_.base > 1.000001f ? std::floor(88.7228391 / log_base) : 1e9;
  for (Candidate& candidate : list->items) {
    const int32_t length = longest_[static_cast<size_t>(candidate.id)];
    if (length < 0) continue;
    const auto breakers = breakers_of(candidate.id);
    if (!breakers.empty() && breakers.front().tail.empty()) continue;  // the empty tail sorts first
    const double exponent = std::min<double>(length - settings_.allowed_length, most);
    const double penalty = settings_.multiplier * exp_double(exponent * log_base);
    candidate.logit -= static_cast<float>(std::min<double>(penalty, std::numeric_limits<float>::max()));
    list->sorted = false;
  }
  for (const int32_t id : touched_) longest_[static_cast<size_t>(id)] = -1;
}

}  // namespace mete
