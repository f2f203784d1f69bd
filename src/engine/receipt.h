// What a request cost.
#pragma once

#include <cstdint>

namespace mete {

/// Of one sequence. Times are wall seconds of the engine's steps that carried its rows.
struct SequenceLedger {
  int64_t prompt_tokens = 0;   ///< tokens of the prompt, BOS included
  int64_t prefill_tokens = 0;  ///< of those, computed now (the rest was in the KV cache)
  int64_t decode_tokens = 0;   ///< generated tokens after the first
  double submitted = 0;        ///< clock at submission
  double prefill_s = 0;        ///< submission's first step to the end of the step that gave the first token
  double first_token = 0;      ///< clock when the first token was sampled
  double last_token = 0;       ///< clock when the last token was sampled
  double sample_s = 0;         ///< within the steps: choosing tokens

  double ttft_s() const { return first_token - submitted; }
  double decode_s() const { return last_token - first_token; }
};

}  // namespace mete
