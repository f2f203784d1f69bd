// Data sets in JSON lines. The text is untrusted: every reader returns an error that names the file, the line
// and the field. `samples` lines are taken in an order that is a function of the seed (-1: all).
#pragma once

#include "base/error.h"
#include "eval/task.h"

namespace mete {

/// {"question", "answer": "... #### N"}; a chat model is asked directly, another as "Question: ... Answer:".
Result<Task> read_gsm8k(const std::string& text, const std::string& name, int64_t samples, uint64_t seed,
                        bool chat);
/// {"task_id", "prompt", "entry_point", "test"}; the model goes on with the prompt.
Result<Task> read_humaneval(const std::string& text, const std::string& name, int64_t samples, uint64_t seed);
/// {"category", "turns": [...]}; only the first turn is used.
Result<Task> read_specbench(const std::string& text, const std::string& name, int64_t samples, uint64_t seed,
                            bool chat);

}  // namespace mete
