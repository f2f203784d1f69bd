// What `mete eval` prints.
#pragma once

#include <nlohmann/json.hpp>

#include "apps/eval_quality.h"
#include "apps/eval_tasks.h"

namespace mete {

/// ppl, ppl_se, tokens, ..., and with a reference kl_mean, ... or, for a compact one, kl_lower_bound, ...
nlohmann::ordered_json quality_json(const EvalOptions& o, const QualityResult& result);
std::string quality_text(const EvalOptions& o, const QualityResult& result);

nlohmann::ordered_json tasks_json(const std::vector<NamedTaskResult>& results);
std::string tasks_text(const std::vector<NamedTaskResult>& results);

}  // namespace mete
