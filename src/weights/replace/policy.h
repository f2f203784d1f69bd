// Replacement policies of the expert cache: which resident experts give up their slots. A policy sees one
// pool of slots and the keys that compete for it. It is the only one who mutates its own state; nothing is
// locked; calls come from the engine's thread, one use() and at most one choose() per layer visit. A decision
// is a function of the sequence of calls alone. Methods and their sources: docs/experts.md.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace mete {

/// One pool: `slots` slots for layers * experts keys; key = layer of the pool * experts + expert.
struct PoolShape {
  int32_t layers = 1;
  int32_t experts = 0;
  int32_t slots = 0;
  int32_t keys() const { return layers * experts; }
};

class ReplacePolicy {
 public:
  virtual ~ReplacePolicy() = default;

  /// The next visit of a layer of the pool demands `keys`: distinct, of one layer, ascending. Called before
  /// choose(), for hits and misses alike. O(keys).
  virtual void use(std::span<const int32_t> keys) noexcept = 0;

  /// Writes the victims.size() elements of `candidates` to give up first. Candidates are distinct resident
  /// keys, ascending; there are at least as many as victims. Ties go to the lower key. O(candidates).
  virtual void choose(std::span<const int32_t> candidates, std::span<int32_t> victims) noexcept = 0;

  /// The pool now has this many slots.
  virtual void set_slots(int32_t /*slots*/) noexcept {}
};

enum class ReplaceKind { kLru, kLfu, kLrfu, kClassLru, kLearned };
inline constexpr ReplaceKind kAllReplaceKinds[] = {ReplaceKind::kLru, ReplaceKind::kLfu, ReplaceKind::kLrfu,
                                                   ReplaceKind::kClassLru, ReplaceKind::kLearned};
const char* name(ReplaceKind kind);
/// "lru", "lfu", "lrfu", "classlru" or "learned".
Result<ReplaceKind> parse_replace_kind(std::string_view text);

class LearnedRule;

struct ReplaceConfig {
  ReplaceKind kind = ReplaceKind::kLru;
  double lrfu_half_life = 16;            ///< LRFU: visits after which a use counts half
  const LearnedRule* learned = nullptr;  ///< kLearned: must outlive the policy
  /// For replay: makes the policy instead, from the pool's shape and its first layer.
  std::function<std::unique_ptr<ReplacePolicy>(const PoolShape&, int32_t)> custom{};
};

/// The policy for a pool whose first layer is `first_layer` of the model.
std::unique_ptr<ReplacePolicy> make_replace_policy(const ReplaceConfig& config, const PoolShape& shape,
                                                   int32_t first_layer);

}  // namespace mete
