#include "weights/expert_cache.h"

#include <algorithm>

namespace mete {

ExpertCache::ExpertCache(const ExpertCacheConfig& config)
    : config_(config), guess_record_(config.layers, config.guess_threshold) {
  const int32_t pools = config.shared ? 1 : config.layers;
  METE_CHECK(config.layers > 0 && config.experts > 0 && config.guesses >= 0);
  METE_CHECK(config.slots >= pools && config.slots <= int64_t{config.layers} * config.experts);
  const auto keys = static_cast<size_t>(config.layers) * static_cast<size_t>(config.experts);
  slot_of_.assign(keys, -1);
  demanded_.assign(keys, 0);
  guessed_.assign(keys, 0);
  for (int32_t p = 0; p < pools; ++p) {
    Pool pool;
    pool.keys = config.shared ? static_cast<int32_t>(keys) : config.experts;
    pool.first_key = p * config.experts;
    pool.quota = quota(static_cast<size_t>(p));
    const PoolShape shape{config.shared ? config.layers : 1, config.experts, pool.quota};
    pool.policy = make_replace_policy(config.replace, shape, p);
    pools_.push_back(std::move(pool));
  }
  for (int32_t slot = slot_count() - 1; slot >= 0; --slot) free_.push_back(slot);
  free_.reserve(keys + static_cast<size_t>(config.guesses));
  for (std::vector<int32_t>* list : {&keys_, &candidates_, &victims_, &free_at_end_}) list->reserve(keys);
  guess_keys_.reserve(static_cast<size_t>(config.guesses));
  new_guesses_.reserve(static_cast<size_t>(config.guesses));
  plan_.reserve(static_cast<size_t>(config.experts));
  hinted_.reserve(static_cast<size_t>(config.experts));
}

/// Slots of a pool; what does not divide evenly goes to the first layers.
int32_t ExpertCache::quota(size_t pool) const {
  if (config_.shared) return static_cast<int32_t>(config_.slots);
  const auto extra = static_cast<int64_t>(pool) < config_.slots % config_.layers ? 1 : 0;
  return static_cast<int32_t>(config_.slots / config_.layers + extra);
}

int32_t ExpertCache::take_slot() {
  METE_CHECK(!free_.empty());
  const int32_t slot = free_.back();
  free_.pop_back();
  return slot;
}

void ExpertCache::free_slot(size_t key_index) {
  free_.push_back(slot_of_[key_index]);
  slot_of_[key_index] = -1;
}

/// Guesses that the layer's demands did not confirm.
void ExpertCache::forget_guesses(int layer) {
  const auto stale = [&](int32_t k) { return k / config_.experts == layer; };
  for (const int32_t k : guess_keys_) {
    const auto i = static_cast<size_t>(k);
    if (!stale(k) || guessed_[i] == 0) continue;
    guessed_[i] = 0;
    free_slot(i);
  }
  guess_keys_.erase(std::remove_if(guess_keys_.begin(), guess_keys_.end(), stale), guess_keys_.end());
}

/// Tells the policy, moves confirmed guesses into the pool, counts hits and misses.
void ExpertCache::take_demands(Pool& pool, int layer, std::span<const ExpertDemand> demands) {
  keys_.clear();
  for (const ExpertDemand& d : demands) {
    const size_t k = key(layer, d.expert);
    demanded_[k] = 1;
    keys_.push_back(static_cast<int32_t>(k) - pool.first_key);
    const bool hit = slot_of_[k] >= 0;
    ++(hit ? counts_.hits : counts_.misses);
    if (guessed_[k] != 0) {
      guessed_[k] = 0;
      ++pool.resident;
      ++counts_.useful_guesses;
    }
  }
  if (layer == hinted_layer_) {
    for (const Hinted& h : hinted_) guess_record_.tell(layer, h.place, demanded_[key(layer, h.expert)] != 0);
    hinted_layer_ = -1;
  }
  pool.policy->use(keys_);
  forget_guesses(layer);
}

/// Residents of the pool that this visit does not demand, relative to the pool.
void ExpertCache::list_candidates(const Pool& pool) {
  candidates_.clear();
  for (int32_t k = 0; k < pool.keys; ++k) {
    const auto i = static_cast<size_t>(pool.first_key + k);
    if (slot_of_[i] >= 0 && demanded_[i] == 0 && guessed_[i] == 0) candidates_.push_back(k);
  }
}

void ExpertCache::evict(Pool& pool, std::span<const int32_t> candidates, int32_t count) {
  victims_.resize(static_cast<size_t>(count));
  if (count == static_cast<int32_t>(candidates.size())) {
    std::copy(candidates.begin(), candidates.end(), victims_.begin());
  } else {
    pool.policy->choose(candidates, victims_);
  }
  for (const int32_t k : victims_) free_slot(static_cast<size_t>(pool.first_key + k));
  pool.resident -= count;
}

std::span<const ExpertCache::Item> ExpertCache::begin(int layer,
                                                      std::span<const ExpertDemand> demands) noexcept {
  Pool& pool = pool_of(layer);
  take_demands(pool, layer, demands);
  plan_.clear();
  for (int32_t d = 0; d < static_cast<int32_t>(demands.size()); ++d) {
    const int32_t slot = slot_of(layer, demands[static_cast<size_t>(d)].expert);
    if (slot >= 0) plan_.push_back({d, slot, true, -1});
  }
  const auto hits = static_cast<int32_t>(plan_.size());
  const auto misses = static_cast<int32_t>(demands.size()) - hits;
  const int32_t over = pool.resident + misses - pool.quota;
  if (over > 0) {
    list_candidates(pool);
    evict(pool, candidates_, std::min(over, static_cast<int32_t>(candidates_.size())));
  }
  if (pool.resident + misses <= pool.quota) {
    assign(layer, demands);
    pool.resident += misses;
  } else {
    hand_on(pool, layer, demands, hits);
  }
  for (const ExpertDemand& d : demands) demanded_[key(layer, d.expert)] = 0;
  return plan_;
}

/// Every miss gets a free slot.
void ExpertCache::assign(int layer, std::span<const ExpertDemand> demands) {
  for (int32_t d = 0; d < static_cast<int32_t>(demands.size()); ++d) {
    const size_t k = key(layer, demands[static_cast<size_t>(d)].expert);
    if (slot_of_[k] >= 0) continue;
    slot_of_[k] = take_slot();
    plan_.push_back({d, slot_of_[k], false, -1});
  }
}

/// The layer demands more than the pool holds: misses pass through `lanes` slots, one after the other. The
/// hits keep the others, so that a long prompt does not flush all that decoding needs.
void ExpertCache::hand_on(Pool& pool, int layer, std::span<const ExpertDemand> demands, int32_t hits) {
  constexpr int32_t kLanes = 8;  // reads at a time that keep a drive busy
  const int32_t misses = static_cast<int32_t>(demands.size()) - hits;
  const int32_t wanted = std::min(misses, std::max(1, std::min(kLanes, pool.quota / 2)));
  const int32_t keep = std::min(hits, pool.quota - wanted);
  const int32_t lanes = std::min(misses, pool.quota - keep);
  const int32_t free_lanes = std::max(0, std::min(lanes, pool.quota - hits));

  candidates_.clear();
  for (int32_t i = 0; i < hits; ++i) {
    const ExpertDemand& d = demands[static_cast<size_t>(plan_[static_cast<size_t>(i)].demand)];
    candidates_.push_back(static_cast<int32_t>(key(layer, d.expert)) - pool.first_key);
  }
  victims_.resize(static_cast<size_t>(hits - keep));
  if (keep < hits) pool.policy->choose(candidates_, victims_);
  std::vector<int32_t>& tenants = keys_;  // per lane: plan index of the item whose slot it takes, or -1
  tenants.assign(static_cast<size_t>(lanes), -1);
  int32_t lane = free_lanes;
  for (const int32_t victim : victims_) {
    const auto at = std::lower_bound(candidates_.begin(), candidates_.end(), victim) - candidates_.begin();
    const auto k = static_cast<size_t>(pool.first_key + victim);
    if (lane < lanes) {
      tenants[static_cast<size_t>(lane++)] = static_cast<int32_t>(at);
    } else {
      free_at_end_.push_back(slot_of_[k]);
    }
    slot_of_[k] = -1;
  }

  int32_t served = 0;
  for (int32_t d = 0; d < static_cast<int32_t>(demands.size()); ++d) {
    const bool hit =
        std::any_of(plan_.begin(), plan_.begin() + hits, [d](const Item& i) { return i.demand == d; });
    if (hit) continue;
    const size_t k = key(layer, demands[static_cast<size_t>(d)].expert);
    int32_t& tenant = tenants[static_cast<size_t>(served++ % lanes)];
    Item item{d, 0, false, tenant};
    if (tenant < 0) {
      item.slot = take_slot();
    } else {
      const Item& before = plan_[static_cast<size_t>(tenant)];
      item.slot = before.slot;
      slot_of_[key(layer, demands[static_cast<size_t>(before.demand)].expert)] = -1;
    }
    slot_of_[k] = item.slot;
    tenant = static_cast<int32_t>(plan_.size());
    plan_.push_back(item);
  }
  pool.resident = keep + lanes;
}

void ExpertCache::end() noexcept {
  for (const int32_t slot : free_at_end_) free_.push_back(slot);
  free_at_end_.clear();
}

std::span<const ExpertCache::Guess> ExpertCache::hint(int layer,
                                                      std::span<const ExpertDemand> demands) noexcept {
  new_guesses_.clear();
  hinted_.clear();
  hinted_layer_ = layer;
  for (size_t i = 0; i < demands.size() && config_.guesses > 0; ++i) {
    const ExpertDemand& d = demands[i];
    const size_t k = key(layer, d.expert);
    if (slot_of_[k] >= 0) continue;
    const int32_t place = GuessRecord::place(static_cast<int32_t>(i), d.rows);
    hinted_.push_back({d.expert, place});
    if (!guess_record_.worth(layer, place)) continue;
    if (static_cast<int32_t>(guess_keys_.size()) == config_.guesses) {
      const int32_t oldest = guess_keys_.front();
      if (oldest / config_.experts == layer) break;  // all slots taken by this hint
      guess_keys_.erase(guess_keys_.begin());
      guessed_[static_cast<size_t>(oldest)] = 0;
      free_slot(static_cast<size_t>(oldest));
    }
    if (free_.empty()) break;  // the open layer still needs slots that it will give up
    guess_keys_.push_back(static_cast<int32_t>(k));
    guessed_[k] = 1;
    slot_of_[k] = take_slot();
    ++counts_.guesses;
    new_guesses_.push_back({d.expert, slot_of_[k]});
  }
  return new_guesses_;
}

void ExpertCache::drop(int layer, int32_t expert) noexcept {
  const size_t k = key(layer, expert);
  if (slot_of_[k] < 0) return;
  if (guessed_[k] != 0) {
    guessed_[k] = 0;
    guess_keys_.erase(std::find(guess_keys_.begin(), guess_keys_.end(), static_cast<int32_t>(k)));
  } else {
    --pool_of(layer).resident;
  }
  free_slot(k);
}

std::span<const ExpertCache::Move> ExpertCache::resize(int64_t slots) noexcept {
  config_.slots = slots;
  for (size_t p = 0; p < pools_.size(); ++p) {
    Pool& pool = pools_[p];
    pool.quota = quota(p);
    pool.policy->set_slots(pool.quota);
    if (pool.resident <= pool.quota) continue;
    list_candidates(pool);
    evict(pool, candidates_, pool.resident - pool.quota);
  }
  std::vector<uint8_t> taken(static_cast<size_t>(slot_count()), 0);
  for (const int32_t slot : slot_of_) {
    if (slot >= 0 && slot < slot_count()) taken[static_cast<size_t>(slot)] = 1;
  }
  free_.clear();
  for (int32_t slot = slot_count() - 1; slot >= 0; --slot) {
    if (taken[static_cast<size_t>(slot)] == 0) free_.push_back(slot);
  }
  moves_.clear();
  for (int32_t& slot : slot_of_) {
    if (slot < slot_count()) continue;
    moves_.push_back({slot, take_slot()});
    slot = moves_.back().to;
  }
  return moves_;
}

}  // namespace mete
