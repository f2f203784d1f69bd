// A model answers the questions of a task, one after the other, greedily.
#pragma once

#include <map>

#include "engine/engine.h"
#include "eval/sandbox.h"
#include "eval/task.h"

namespace mete {

struct TaskScore {
  int64_t items = 0, right = 0;
  double share() const { return items > 0 ? static_cast<double>(right) / static_cast<double>(items) : 0; }
  /// Standard error of share(), by the binomial formula.
  double error() const;
};

struct TaskResult {
  bool judged = true;  ///< false: Spec-Bench has no right answers
  TaskScore score;
  std::map<std::string, TaskScore> groups;
  double prompt_tokens = 0, answer_tokens = 0;  ///< means
  int64_t cut_off = 0;                          ///< answers that ended for want of room (Task::max_tokens)
  double decode_rate = 0;                       ///< tokens/s after the first token, over all answers
};

/// Token ids of an item's prompt.
using EncodePrompt = std::function<std::vector<int32_t>(const std::string&)>;

/// `sandbox` is needed for HumanEval only. Throws Error: a prompt that does not fit the context, a failed
/// step.
TaskResult run_task(Engine& engine, const Task& task, const EncodePrompt& encode, const Sandbox* sandbox,
                    const std::function<void(int64_t, int64_t)>& progress);

/// Runs a HumanEval answer with its test. A program that ends before the test does not pass.
Result<bool> passes_test(const Sandbox& sandbox, const TaskItem& item, const std::string& answer);

}  // namespace mete
