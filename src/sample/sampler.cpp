#include "sample/sampler.h"

#include <algorithm>

namespace mete {

Sampler::Sampler(const SamplingParams& params, const Tokenizer*, int32_t) : params_(params) {}

int32_t Sampler::sample(std::span<const float> logits, uint64_t) {
  return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

void Sampler::accept(int32_t) {}

}  // namespace mete
