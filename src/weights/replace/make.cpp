#include "weights/replace/policies.h"

namespace mete {

const char* name(ReplaceKind kind) {
  switch (kind) {
    case ReplaceKind::kLru:
      return "lru";
    case ReplaceKind::kLfu:
      return "lfu";
    case ReplaceKind::kLrfu:
      return "lrfu";
    case ReplaceKind::kClassLru:
      return "classlru";
    case ReplaceKind::kLearned:
      return "learned";
  }
  return "?";
}

Result<ReplaceKind> parse_replace_kind(std::string_view text) {
  for (const ReplaceKind kind : kAllReplaceKinds) {
    if (text == name(kind)) return kind;
  }
  return bad_usage("expert policy: found '{}', expected lru, lfu, lrfu, classlru or learned", text);
}

std::unique_ptr<ReplacePolicy> make_replace_policy(const ReplaceConfig& config, const PoolShape& shape,
                                                   int32_t first_layer) {
  if (config.custom) return config.custom(shape, first_layer);
  switch (config.kind) {
    case ReplaceKind::kLru:
      return make_lru(shape);
    case ReplaceKind::kLfu:
      return make_lfu(shape);
    case ReplaceKind::kLrfu:
      return make_lrfu(shape, config.lrfu_half_life);
    case ReplaceKind::kClassLru:
      return make_class_lru(shape);
    case ReplaceKind::kLearned:
      METE_CHECK(config.learned != nullptr);
      return make_learned(shape, *config.learned, first_layer);
  }
  return nullptr;
}

}  // namespace mete
