#include "weights/replay.h"

#include <algorithm>
#include <limits>

#include "weights/replace/choose.h"

namespace mete {
namespace {

constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

std::vector<ExpertDemand> demands_of(const RoutingTrace& t, size_t first, int64_t rows) {
  std::vector<int32_t> rows_of(static_cast<size_t>(t.experts), 0);
  for (size_t i = 0; i < static_cast<size_t>(rows * t.used); ++i) ++rows_of[t.ids[first + i]];
  std::vector<ExpertDemand> out;
  for (int32_t e = 0; e < t.experts; ++e) {
    const int32_t n = rows_of[static_cast<size_t>(e)];
    if (n > 0) out.push_back({e, n});
  }
  return out;
}

/// For each key of a pool the visits (counted over the pool) that use it, and a cursor behind the past ones.
class Future {
 public:
  Future(const std::vector<ReplayEvent>& events, const PoolShape& shape, int32_t first_layer)
      : uses_(static_cast<size_t>(shape.keys())), next_(uses_.size(), 0) {
    int64_t visit = 0;
    for (const ReplayEvent& event : events) {
      const int32_t layer = event.layer - first_layer;
      if (event.hint || layer < 0 || layer >= shape.layers) continue;
      for (const ExpertDemand& d : event.demands) {
        uses_[static_cast<size_t>(layer * shape.experts + d.expert)].push_back(visit);
      }
      ++visit;
    }
  }
  /// The next visit uses `keys`.
  void advance(std::span<const int32_t> keys) {
    for (const int32_t key : keys) ++next_[static_cast<size_t>(key)];
    ++now_;
  }
  int64_t next_use(int32_t key) const {
    const auto i = static_cast<size_t>(key);
    return next_[i] < uses_[i].size() ? uses_[i][next_[i]] : kNever;
  }
  int64_t last_use(int32_t key) const {
    const auto i = static_cast<size_t>(key);
    return next_[i] > 0 ? uses_[i][next_[i] - 1] : -1;
  }
  /// Uses within the next m visits.
  int64_t uses_within(int32_t key, int64_t m) const {
    const auto i = static_cast<size_t>(key);
    const auto begin = uses_[i].begin() + static_cast<std::ptrdiff_t>(next_[i]);
    return std::lower_bound(begin, uses_[i].end(), now_ + m) - begin;
  }
  int64_t now() const { return now_; }  ///< visits so far

 private:
  std::vector<std::vector<int64_t>> uses_;
  std::vector<size_t> next_;
  int64_t now_ = 0;
};

/// m == 0: Belady; else SCH(m).
class Oracle final : public ReplacePolicy {
 public:
  Oracle(Future future, int64_t m) : future_(std::move(future)), m_(m) {}
  void use(std::span<const int32_t> keys) noexcept override { future_.advance(keys); }
  void choose(std::span<const int32_t> candidates, std::span<int32_t> victims) noexcept override {
    choose_highest(candidates, victims, scratch_, [this](int32_t key) {
      if (m_ == 0) return static_cast<double>(future_.next_use(key));
      const auto age = static_cast<double>(future_.now() - future_.last_use(key));
      return age - 1e12 * static_cast<double>(future_.uses_within(key, m_));
    });
  }

 private:
  Future future_;
  int64_t m_;
  std::vector<std::pair<double, int32_t>> scratch_;
};

ExpertCounts replay_oracle(const std::vector<ReplayEvent>& events, ExpertCacheConfig config, int64_t m) {
  config.replace.custom = [&events, m](const PoolShape& shape, int32_t first_layer) {
    return std::make_unique<Oracle>(Future(events, shape, first_layer), m);
  };
  return replay(events, config);
}

}  // namespace

std::vector<ReplayEvent> steps_of(const RoutingTrace& t) {
  std::vector<ReplayEvent> events;
  for (const RoutingTrace::Record& r : t.records) {
    if (r.kind == RoutingTrace::Kind::kVisit && r.count > 0) {
      events.push_back({r.layer, false, demands_of(t, r.first, r.count)});
    } else if (r.kind == RoutingTrace::Kind::kHint) {
      ReplayEvent event{r.layer, true, {}};
      for (size_t i = 0; i < static_cast<size_t>(r.count); ++i) {
        event.demands.push_back({t.hints[r.first + i].expert, t.hints[r.first + i].rows});
      }
      events.push_back(std::move(event));
    }
  }
  return events;
}

std::vector<ReplayEvent> tokens_of(const RoutingTrace& t) {
  std::vector<ReplayEvent> events;
  std::vector<const RoutingTrace::Record*> step;  // visits of one step, layers ascending
  const auto flush = [&] {
    for (int32_t row = 0; !step.empty() && row < step.front()->count; ++row) {
      for (const RoutingTrace::Record* r : step) {
        if (row >= r->count) continue;
        const size_t first = r->first + static_cast<size_t>(row) * static_cast<size_t>(t.used);
        events.push_back({r->layer, false, demands_of(t, first, 1)});
      }
    }
    step.clear();
  };
  for (const RoutingTrace::Record& r : t.records) {
    if (r.kind != RoutingTrace::Kind::kVisit) continue;
    if (!step.empty() && r.layer <= step.back()->layer) flush();
    step.push_back(&r);
  }
  flush();
  return events;
}

ExpertCounts replay(const std::vector<ReplayEvent>& events, const ExpertCacheConfig& config) {
  ExpertCache cache(config);
  bool open = false;
  for (const ReplayEvent& event : events) {
    if (event.hint) {
      cache.hint(event.layer, event.demands);
      continue;
    }
    if (open) cache.end();
    cache.begin(event.layer, event.demands);
    open = true;
  }
  return cache.counts();
}

ExpertCounts replay_belady(const std::vector<ReplayEvent>& events, const ExpertCacheConfig& config) {
  return replay_oracle(events, config, 0);
}

ExpertCounts replay_sch(const std::vector<ReplayEvent>& events, const ExpertCacheConfig& config, int64_t m) {
  return replay_oracle(events, config, m);
}

ExpertCounts replay_belady_bypass(const std::vector<ReplayEvent>& events, const ExpertCacheConfig& config) {
  ExpertCounts counts;
  const int32_t pools = config.shared ? 1 : config.layers;
  for (int32_t p = 0; p < pools; ++p) {
    const PoolShape shape{config.shared ? config.layers : 1, config.experts, 0};
    const int64_t extra = !config.shared && p < config.slots % config.layers ? 1 : 0;
    const auto quota =
        static_cast<size_t>(config.shared ? config.slots : config.slots / config.layers + extra);
    Future future(events, shape, p);
    std::vector<int32_t> resident, keys;  // ascending
    for (const ReplayEvent& event : events) {
      const int32_t layer = event.layer - p;
      if (event.hint || layer < 0 || layer >= shape.layers) continue;
      keys.clear();
      for (const ExpertDemand& d : event.demands) keys.push_back(layer * config.experts + d.expert);
      std::vector<int32_t> all;
      std::set_union(resident.begin(), resident.end(), keys.begin(), keys.end(), std::back_inserter(all));
      const auto misses = static_cast<int64_t>(all.size() - resident.size());
      counts.misses += misses;
      counts.hits += static_cast<int64_t>(keys.size()) - misses;
      future.advance(keys);
      std::sort(all.begin(), all.end(), [&](int32_t a, int32_t b) {
        const int64_t x = future.next_use(a), y = future.next_use(b);
        return x != y ? x < y : a < b;
      });
      if (all.size() > quota) all.resize(quota);
      std::sort(all.begin(), all.end());
      resident = std::move(all);
    }
  }
  return counts;
}

SegmentScore segment_score(const std::vector<ReplayEvent>& tokens, int32_t layers, int32_t experts,
                           int64_t m) {
  std::vector<int64_t> windows_with(static_cast<size_t>(m) + 1,
                                    0);  // n_f, by uses f of an expert in a window
  std::vector<std::vector<std::vector<uint8_t>>> active(static_cast<size_t>(layers));
  for (const ReplayEvent& event : tokens) {
    if (event.hint) continue;
    auto& rows = active[static_cast<size_t>(event.layer)];
    rows.emplace_back(static_cast<size_t>(experts), 0);
    for (const ExpertDemand& d : event.demands) rows.back()[static_cast<size_t>(d.expert)] = 1;
  }
  for (const auto& rows : active) {
    for (size_t e = 0; e < static_cast<size_t>(experts); ++e) {
      int64_t uses = 0;
      for (size_t t = 0; t < rows.size(); ++t) {
        uses += rows[t][e];
        if (t >= static_cast<size_t>(m)) uses -= rows[t - static_cast<size_t>(m)][e];
        if (t + 1 >= static_cast<size_t>(m)) ++windows_with[static_cast<size_t>(uses)];
      }
    }
  }
  double all = 0;  // A: active decisions
  for (int64_t f = 0; f <= m; ++f) all += static_cast<double>(f * windows_with[static_cast<size_t>(f)]);
  SegmentScore best;
  double matched = 0, predicted = 0;
  for (int64_t a = m; a >= 1 && all > 0; --a) {
    matched += static_cast<double>(a * windows_with[static_cast<size_t>(a)]);
    predicted += static_cast<double>(m * windows_with[static_cast<size_t>(a)]);
    const double f1 = 2 * matched / (predicted + all);
    if (f1 > best.srp) best = {f1, predicted / all};
  }
  return best;
}

std::vector<LayerVisits> visits_of(const std::vector<ReplayEvent>& events, int32_t layers) {
  std::vector<LayerVisits> out(static_cast<size_t>(layers));
  for (const ReplayEvent& event : events) {
    if (event.hint) continue;
    std::vector<int32_t>& visit = out[static_cast<size_t>(event.layer)].emplace_back();
    for (const ExpertDemand& d : event.demands) visit.push_back(d.expert);
  }
  return out;
}

}  // namespace mete
