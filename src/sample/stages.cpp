#include "sample/stages.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "kernels/cpu/scalar_math.h"

namespace mete {

namespace {

constexpr float kMasked = -std::numeric_limits<float>::infinity();
constexpr double kLn2 = 0.693147180559945309417;

void keep_first(Candidates* list, size_t count) { list->items.resize(std::min(count, list->items.size())); }

}  // namespace

void apply_logit_bias(Candidates* list, std::span<const std::pair<int32_t, float>> bias) {
  if (bias.empty()) return;
  for (const auto& [id, value] : bias) {
    const auto index = static_cast<size_t>(id);
    // The list is in id order unless an earlier stage changed it.
    if (index < list->size() && list->items[index].id == id) {
      list->items[index].logit = bounded_logit(list->items[index].logit + value);
      continue;
    }
    for (Candidate& candidate : list->items) {
      if (candidate.id == id) candidate.logit = bounded_logit(candidate.logit + value);
    }
  }
  list->sorted = false;
}

void apply_penalties(Candidates* list, std::span<const int32_t> counts, float repeat, float frequency,
                     float presence) {
  if (repeat == 1.0f && frequency == 0.0f && presence == 0.0f) return;
  bool changed = false;
  for (Candidate& candidate : list->items) {
    const int32_t count = counts[static_cast<size_t>(candidate.id)];
    if (count == 0) continue;
    candidate.logit = candidate.logit <= 0.0f ? candidate.logit * repeat : candidate.logit / repeat;
    candidate.logit = bounded_logit(candidate.logit - (static_cast<float>(count) * frequency + presence));
    changed = true;
  }
  if (changed) list->sorted = false;
}

void apply_top_n_sigma(Candidates* list, float n) {
  if (n <= 0.0f || list->size() <= 1) return;
  float highest = kMasked;
  double sum = 0.0;
  int64_t count = 0;
  for (const Candidate& candidate : list->items) {
    if (!std::isfinite(candidate.logit)) continue;
    highest = std::max(highest, candidate.logit);
    sum += candidate.logit;
    ++count;
  }
  if (count == 0) return;
  const double mean = sum / static_cast<double>(count);
  double squares = 0.0;
  for (const Candidate& candidate : list->items) {
    if (!std::isfinite(candidate.logit)) continue;
    const double away = candidate.logit - mean;
    squares += away * away;
  }
  const double bound = highest - n * std::sqrt(squares / static_cast<double>(count));
  for (Candidate& candidate : list->items) {
    if (candidate.logit < bound) candidate.logit = kMasked;
  }
}

void apply_top_k(Candidates* list, int32_t k) {
  if (k <= 0) return;
  const size_t count = std::min(static_cast<size_t>(k), list->size());
  if (!list->sorted) {
    const auto middle = list->items.begin() + static_cast<std::ptrdiff_t>(count);
    std::partial_sort(list->items.begin(), middle, list->items.end(), ranks_before);
  }
  keep_first(list, count);
  list->sorted = true;
}

void apply_top_p(Candidates* list, float p, int32_t min_keep) {
  if (p >= 1.0f || list->size() == 0) return;
  if (!softmax(list)) return;
  auto& items = list->items;
  // Most rows reach p within a few hundred candidates: sort no more than needed.
  double sum = 0.0;
  size_t done = 0;
  for (size_t ready = list->sorted ? items.size() : std::min<size_t>(256, items.size());;
       ready = items.size()) {
    if (!list->sorted) {
      const auto middle = items.begin() + static_cast<std::ptrdiff_t>(ready);
      std::partial_sort(items.begin() + static_cast<std::ptrdiff_t>(done), middle, items.end(), ranks_before);
    }
    for (; done < ready; ++done) {
      sum += items[done].p;
      if (!(sum >= p && done + 1 >= static_cast<size_t>(min_keep))) continue;
      keep_first(list, done + 1);
      list->sorted = true;
      return;
    }
    if (ready == items.size()) break;
  }
  list->sorted = true;
}

void apply_min_p(Candidates* list, float p, int32_t min_keep) {
  if (p <= 0.0f || list->size() == 0) return;
  float highest = kMasked;
  for (const Candidate& candidate : list->items) highest = std::max(highest, candidate.logit);
  const double bound = highest + log_double(p);
  const auto passes = [&](const Candidate& candidate) { return candidate.logit >= bound; };
  const auto kept = std::count_if(list->items.begin(), list->items.end(), passes);
  if (kept >= std::max(min_keep, 1)) {
    list->items.erase(std::remove_if(list->items.begin(), list->items.end(), std::not_fn(passes)),
                      list->items.end());
    return;
  }
  sort(list);
  keep_first(list, static_cast<size_t>(std::max(min_keep, 1)));
}

void apply_typical_p(Candidates* list, float mass, int32_t min_keep) {
  if (mass >= 1.0f || list->size() == 0) return;
  sort(list);
  if (!softmax(list)) return;
  // The score takes the place of the probability while sorting; softmax() restores probabilities afterwards.
  const double h = entropy(*list);
  double highest = list->items[0].logit;
  double weight = 0.0;
  for (const Candidate& candidate : list->items) weight += exp_below_zero(candidate.logit - highest);
  for (Candidate& candidate : list->items) {
    candidate.p =
        candidate.p > 0.0 ? std::fabs(-log_double(candidate.p) - h) : std::numeric_limits<double>::infinity();
  }
  std::sort(list->items.begin(), list->items.end(), [](const Candidate& a, const Candidate& b) {
    return a.p < b.p || (a.p == b.p && ranks_before(a, b));
  });
  list->sorted = false;
  double sum = 0.0;
  for (size_t i = 0; i < list->size(); ++i) {
    sum += exp_below_zero(list->items[i].logit - highest) / weight;
    if (sum > mass && i + 1 >= static_cast<size_t>(min_keep)) return keep_first(list, i + 1);
  }
}

void apply_xtc(Candidates* list, float probability, float threshold, int32_t min_keep, double unit) {
  if (probability <= 0.0f || threshold > 0.5f || list->size() < 2 || unit >= probability) return;
  sort(list);
  if (!softmax(list)) return;
  size_t above = 0;
  while (above < list->size() && list->items[above].p >= threshold) ++above;
  if (above < 2 || list->size() - (above - 1) < static_cast<size_t>(min_keep)) return;
  list->items.erase(list->items.begin(), list->items.begin() + static_cast<std::ptrdiff_t>(above - 1));
}

void apply_temperature(Candidates* list, float temperature, float range, float exponent) {
  if (list->size() == 0) return;
  double t = temperature;
  if (range > 0.0f) {
    if (list->size() == 1) return;
    sort(list);
    if (!softmax(list)) return;
    const double low = std::max(0.0, t - range);
    const double high = t + range;
    const double level = entropy(*list) / log_double(static_cast<double>(list->size()));
    t = low + (high - low) * (exponent == 0.0f ? 1.0 : pow_double(level, exponent));
  }
  if (t <= 0.0) return apply_top_k(list, 1);
  if (t == 1.0) return;
  double highest = -std::numeric_limits<double>::infinity();
  double largest = 0.0;
  for (const Candidate& candidate : list->items) {
    if (candidate.logit == kMasked) continue;
    highest = std::max<double>(highest, candidate.logit);
    largest = std::max<double>(largest, std::fabs(candidate.logit));
  }
  // Where the quotients would leave the range of float, their differences to the best count alone.
  constexpr double kLargest = std::numeric_limits<float>::max();
  const double shift = largest / t <= kLargest ? 0.0 : highest;
  for (Candidate& candidate : list->items) {
    const double scaled = (candidate.logit - shift) / t;
    candidate.logit = scaled < -kLargest ? kMasked : static_cast<float>(scaled);
  }
  list->sorted = false;  // rounding may have made equal what was not
}

void apply_mirostat_1(Candidates* list, int32_t vocab, double mu) {
  constexpr size_t kBest = 100;  // "m" of the paper
  if (list->size() < 2) return;
  sort(list);
  if (!softmax(list)) return;
  double products = 0.0;
  double squares = 0.0;
  for (size_t i = 0; i + 1 < list->size() && i + 1 < kBest && list->items[i + 1].p > 0.0; ++i) {
    const double t = log_double(static_cast<double>(i + 2) / static_cast<double>(i + 1));
    const double b = log_double(list->items[i].p / list->items[i + 1].p);
    products += t * b;
    squares += t * t;
  }
  if (squares == 0.0) return apply_top_k(list, 1);
  const double s = products / squares;
  const double e = s - 1.0;
  // e -> 0 has the limit 2^mu / ln(vocab); s -> 0 a flat head, for which every token stays.
  if (s < 1e-6) return;
  const double log_vocab = log_double(static_cast<double>(vocab));
  const double tail = std::fabs(e) < 1e-9 ? 1.0 / log_vocab : e / (1.0 - exp_double(-e * log_vocab));
  const double k = exp_double((mu * kLn2 + log_double(tail)) / s);
  apply_top_k(list, static_cast<int32_t>(std::clamp(k, 1.0, static_cast<double>(list->size()))));
}

void apply_mirostat_2(Candidates* list, double mu) {
  if (list->size() < 2) return;
  sort(list);
  if (!softmax(list)) return;
  size_t kept = 1;
  while (kept < list->size() && list->items[kept].p > 0.0 && -log_double(list->items[kept].p) / kLn2 <= mu)
    ++kept;
  keep_first(list, kept);
}

}  // namespace mete
