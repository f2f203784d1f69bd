#include "sample/logprobs.h"

#include <algorithm>

#include "ops/elementwise.h"
#include "sample/candidates.h"

namespace mete {

float append_logprobs(Context& ctx, std::span<const float> logits, int32_t token, int32_t count,
                      std::vector<TokenLogprob>& top) {
  RowStats stats;
  row_stats(ctx, logits.data(), 1, static_cast<int64_t>(logits.size()), &stats);
  const auto logprob = [&](float logit) { return logit - stats.log_sum_exp; };
  const size_t begin = top.size(), wanted = std::min(static_cast<size_t>(count), logits.size());
  // The best so far, sorted; nearly every later logit fails the first comparison. `logprob` holds the logit.
  const auto better = [](const TokenLogprob& a, const TokenLogprob& b) { return a.logprob > b.logprob; };
  for (size_t i = 0; i < logits.size() && wanted > 0; ++i) {
    const TokenLogprob here{static_cast<int32_t>(i), bounded_logit(logits[i])};
    const bool full = top.size() - begin == wanted;
    if (full && !better(here, top.back())) continue;
    if (full) top.pop_back();
    top.insert(std::upper_bound(top.begin() + static_cast<std::ptrdiff_t>(begin), top.end(), here, better),
               here);
  }
  for (size_t i = begin; i < top.size(); ++i) top[i].logprob = logprob(top[i].logprob);
  return logprob(logits[static_cast<size_t>(token)]);
}

}  // namespace mete
