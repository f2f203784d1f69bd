#include "base/error.h"
#include "kv/reuse/policy.h"

namespace mete {

std::optional<ReusePolicy> parse_reuse_policy(std::string_view text) {
  for (const ReusePolicy policy : {ReusePolicy::kNone, ReusePolicy::kLru, ReusePolicy::kRlt}) {
    if (text == name(policy)) return policy;
  }
  return std::nullopt;
}

const char* name(ReusePolicy policy) {
  switch (policy) {
    case ReusePolicy::kNone:
      return "none";
    case ReusePolicy::kLru:
      return "lru";
    case ReusePolicy::kRlt:
      return "rlt";
  }
  return "?";
}

std::unique_ptr<EvictionPolicy> make_eviction_policy(ReusePolicy policy, int64_t nodes, uint64_t seed) {
  METE_CHECK(policy != ReusePolicy::kNone);
  return policy == ReusePolicy::kRlt ? make_rlt_policy(nodes, seed) : make_lru_policy(nodes);
}

}  // namespace mete
