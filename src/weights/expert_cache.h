// Which experts lie in which slots: every decision of the expert store and none of its reading. The replay
// tool runs this class alone, so that it predicts the live hit count exactly. Decisions are a function of the
// sequence of calls; a hit is an expert that is resident or in flight when the layer asks.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "weights/experts.h"
#include "weights/guess_record.h"
#include "weights/replace/policy.h"

namespace mete {

struct ExpertCacheConfig {
  int32_t layers = 0;   ///< MoE layers
  int32_t experts = 0;  ///< per layer
  int64_t slots = 0;    ///< of all layers; at least one per layer, or one if shared
  bool shared = false;  ///< one pool for all layers; else each layer has its own share of the slots
  int32_t guesses = 0;  ///< slots for experts read ahead on a hint, besides `slots`
  ReplaceConfig replace;
  /// Share of guesses (by layer and place in the hint) that must have come true of late for one to be read;
  /// 0: read all.
  double guess_threshold = 0.6;
};

struct ExpertCounts {
  int64_t hits = 0;            ///< demands that were resident or in flight
  int64_t misses = 0;          ///< demands that were not
  int64_t guesses = 0;         ///< experts read on a hint
  int64_t useful_guesses = 0;  ///< of those, demanded by the layer that the hint was for
};

class ExpertCache {
 public:
  explicit ExpertCache(const ExpertCacheConfig& config);

  /// One demanded expert of a layer, in the order in which they are to be served: hits, then misses.
  struct Item {
    int32_t demand;  ///< index into the demands
    int32_t slot;
    bool hit;
    int32_t after;  ///< the slot is free once this item (index into the plan) was computed; -1: at once
  };
  /// A layer asks. The plan is valid until the next call. If the demands outnumber the pool's slots, slots
  /// are handed on within the layer (Item::after), and the experts that stay are hits and those served last.
  std::span<const Item> begin(int layer, std::span<const ExpertDemand> demands) noexcept;
  /// The layer is over.
  void end() noexcept;

  struct Guess {
    int32_t expert, slot;
  };
  /// A hint for `layer`, best guess first: the experts to read ahead and the slots they go to. They stay
  /// outside the pool until the layer demands them, and are forgotten if it does not. Guesses of a kind that
  /// seldom came true are only remembered, to see whether they do now. Valid until the next call.
  std::span<const Guess> hint(int layer, std::span<const ExpertDemand> demands) noexcept;

  /// The expert is not in its slot after all: its read failed, or was never started.
  void drop(int layer, int32_t expert) noexcept;

  struct Move {
    int32_t from, to;
  };
  /// Another number of slots, between layers. What is in slots beyond slot_count() has to move as told.
  std::span<const Move> resize(int64_t slots) noexcept;

  /// Slot of an expert, -1 if it is in none.
  int32_t slot_of(int layer, int32_t expert) const noexcept { return slot_of_[key(layer, expert)]; }
  int64_t slots() const { return config_.slots; }
  int32_t slot_count() const { return static_cast<int32_t>(config_.slots) + config_.guesses; }
  const ExpertCacheConfig& config() const { return config_; }
  const ExpertCounts& counts() const { return counts_; }

 private:
  struct Pool {
    int32_t first_key = 0;  // of the key space layer * experts + expert
    int32_t keys = 0;
    int32_t quota = 0;     // slots
    int32_t resident = 0;  // keys with a slot, guesses not counted
    std::unique_ptr<ReplacePolicy> policy;
  };
  size_t key(int layer, int32_t expert) const {
    return static_cast<size_t>(layer * config_.experts + expert);
  }
  Pool& pool_of(int layer) { return pools_[config_.shared ? 0 : static_cast<size_t>(layer)]; }
  int32_t quota(size_t pool) const;
  void take_demands(Pool& pool, int layer, std::span<const ExpertDemand> demands);
  void forget_guesses(int layer);
  void evict(Pool& pool, std::span<const int32_t> candidates, int32_t count);
  void list_candidates(const Pool& pool);
  void hand_on(Pool& pool, int layer, std::span<const ExpertDemand> demands, int32_t hits);
  void assign(int layer, std::span<const ExpertDemand> demands);
  int32_t take_slot();
  void free_slot(size_t key_index);

  ExpertCacheConfig config_;
  std::vector<Pool> pools_;
  std::vector<int32_t> slot_of_;     // by key
  std::vector<uint8_t> demanded_;    // by key, within begin()
  std::vector<uint8_t> guessed_;     // by key: in a guess's slot
  std::vector<int32_t> guess_keys_;  // oldest first
  GuessRecord guess_record_;
  struct Hinted {
    int32_t expert, place;
  };
  int32_t hinted_layer_ = -1;
  std::vector<Hinted> hinted_;  // what was not resident of the last hint
  std::vector<int32_t> free_;   // slots, taken from the back
  std::vector<int32_t> free_at_end_;
  std::vector<Item> plan_;
  std::vector<Guess> new_guesses_;
  std::vector<Move> moves_;
  std::vector<int32_t> keys_, candidates_, victims_;  // scratch
  ExpertCounts counts_;
};

}  // namespace mete
