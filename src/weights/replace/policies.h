// The policies, one .cpp each; make.cpp chooses.
#pragma once

#include "weights/replace/policy.h"

namespace mete {

std::unique_ptr<ReplacePolicy> make_lru(const PoolShape& shape);
std::unique_ptr<ReplacePolicy> make_lfu(const PoolShape& shape);
std::unique_ptr<ReplacePolicy> make_lrfu(const PoolShape& shape, double half_life);
std::unique_ptr<ReplacePolicy> make_class_lru(const PoolShape& shape);
std::unique_ptr<ReplacePolicy> make_learned(const PoolShape& shape, const LearnedRule& rule,
                                            int32_t first_layer);

}  // namespace mete
