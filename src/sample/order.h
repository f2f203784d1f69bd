// Names of the sampling stages and orders of the chain.
#pragma once

#include <string_view>
#include <vector>

#include "base/error.h"
#include "request/sampling.h"

namespace mete {

/// llama.cpp's `--samplers` list: names separated by ';', with '_' or '-' or nothing between words, any case.
/// Error(kUsage) for an unknown or doubled name.
Result<std::vector<SamplerStage>> parse_sampler_order(std::string_view names);
/// llama.cpp's `--sampler-seq`: one letter per stage ("edskypmxt" is the default order).
Result<std::vector<SamplerStage>> parse_sampler_letters(std::string_view letters);
/// The name that parse_sampler_order takes.
std::string_view sampler_stage_name(SamplerStage stage);
/// The order of vLLM: temperature before every truncation, then min-p, top-k, top-p.
std::vector<SamplerStage> temperature_first_order();

}  // namespace mete
