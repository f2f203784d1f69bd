// Which unused pages of the prefix tree go first. A policy decides; the tree acts.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

namespace mete {

enum class ReusePolicy {
  kNone,  ///< no prefix cache
  kLru,   ///< the leaf that was used the longest ago
  kRlt    ///< a random leaf among those not used in this phase (arXiv 2601.18999)
};

/// "none", "lru", "rlt".
std::optional<ReusePolicy> parse_reuse_policy(std::string_view text);
const char* name(ReusePolicy policy);

/// Nodes are numbers below the capacity given to make_eviction_policy; each is one page. Only the tree calls,
/// from one thread; nothing allocates after construction. Costs: O(path) for used, O(log n) for the others,
/// O(n) where kRlt begins a phase (amortised O(1)).
class EvictionPolicy {
 public:
  virtual ~EvictionPolicy() = default;
  /// The pages of a prefix were used, first page first. Some may be locked, some may not be leaves.
  virtual void used(std::span<const int32_t> path) = 0;
  /// `node` may be evicted from now on: it has no children and nobody holds it.
  virtual void add(int32_t node) = 0;
  /// An added node may no longer be evicted.
  virtual void remove(int32_t node) = 0;
  /// `node` is gone; its number may come again as another page. It is not added at this time.
  virtual void forget(int32_t node) = 0;
  /// Victims will be asked for, about `need` of them.
  virtual void begin_eviction(int64_t need) = 0;
  /// One of the added nodes, -1 if there is none. The tree then removes and forgets it.
  virtual int32_t victim() = 0;
  /// Whether the policy's own counts hold (tests).
  virtual bool consistent() const = 0;
};

/// `nodes`: capacity. `policy` is not kNone. `seed` for kRlt: the same calls give the same victims.
std::unique_ptr<EvictionPolicy> make_eviction_policy(ReusePolicy policy, int64_t nodes, uint64_t seed);

std::unique_ptr<EvictionPolicy> make_lru_policy(int64_t nodes);
std::unique_ptr<EvictionPolicy> make_rlt_policy(int64_t nodes, uint64_t seed);

}  // namespace mete
