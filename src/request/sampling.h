// How the next token is chosen from a logits row. Names, meanings and defaults as llama.cpp's.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"

namespace mete {

/// The stages that can be put in order; the logit bias always comes first, the draw last.
enum class SamplerStage { kPenalties, kDry, kTopNSigma, kTopK, kTypicalP, kTopP, kMinP, kXtc, kTemperature };

struct SamplingParams {
  uint64_t seed = 0;  ///< randomness is a function of (seed, position)

  float temperature = 0.8f;  ///< <= 0: greedy (argmax, ties to the lowest id)
  float dynatemp_range = 0.0f;
  float dynatemp_exponent = 1.0f;
  int32_t top_k = 40;         ///< <= 0: off
  float top_p = 0.95f;        ///< 1: off
  float min_p = 0.05f;        ///< 0: off
  float typical_p = 1.0f;     ///< 1: off
  float top_n_sigma = -1.0f;  ///< < 0: off
  float xtc_probability = 0.0f;
  float xtc_threshold = 0.1f;  ///< > 0.5: no effect
  int32_t min_keep = 0;

  int32_t penalty_last_n = 64;    ///< 0: off, -1: the whole sequence
  float repeat_penalty = 1.0f;    ///< 1: off
  float presence_penalty = 0.0f;  ///< 0: off
  float frequency_penalty = 0.0f;

  float dry_multiplier = 0.0f;  ///< 0: off
  float dry_base = 1.75f;
  int32_t dry_allowed_length = 2;
  int32_t dry_penalty_last_n = -1;  ///< 0: off, -1: the whole sequence
  std::vector<std::string> dry_sequence_breakers = {"\n", ":", "\"", "*"};

  int32_t mirostat = 0;  ///< 0: off, 1, 2; replaces every truncation
  float mirostat_tau = 5.0f;
  float mirostat_eta = 0.1f;

  std::vector<std::pair<int32_t, float>> logit_bias;  ///< token id, added to its logit (-inf bans it)
  std::vector<SamplerStage> order = {
      SamplerStage::kPenalties, SamplerStage::kDry,      SamplerStage::kTopNSigma,
      SamplerStage::kTopK,      SamplerStage::kTypicalP, SamplerStage::kTopP,
      SamplerStage::kMinP,      SamplerStage::kXtc,      SamplerStage::kTemperature};

  /// An error naming the field, what was found and what was expected. `vocab`: number of token ids.
  Status validate(int64_t vocab) const;
};

}  // namespace mete
