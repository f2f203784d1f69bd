// A task: questions for a model, and how its answers are judged.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace mete {

enum class TaskKind { kNeedle, kMultikey, kRecall, kGsm8k, kHumanEval, kSpecBench };

struct TaskItem {
  std::string group;   ///< what results are also reported by: a depth, a category; may be empty
  std::string prompt;  ///< a raw text to go on with, or a user's message (Task::chat)
  std::string
      expected;  ///< the answer; HumanEval: the test program that follows the answer; Spec-Bench: empty
};

struct Task {
  TaskKind kind;
  bool chat = false;               ///< prompts are messages for the chat template
  int64_t max_tokens = 0;          ///< of an answer
  std::vector<std::string> stops;  ///< strings that end an answer
  std::vector<TaskItem> items;
};

const char* name(TaskKind kind);
/// The kind of a name ("needle", ...). Throws Error(kUsage) listing them.
TaskKind parse_task(const std::string& name);

/// Whether an answer is right; not for HumanEval (sandbox.h) and Spec-Bench (no right answer).
/// Retrieval and recall: the answer begins with the expected word. GSM8K: the last number is the expected
/// one.
bool is_right(TaskKind kind, const TaskItem& item, const std::string& answer);

/// The number that a GSM8K answer ends in, without thousands separators, spaces or a trailing fraction of
/// zeros: the one after the last "####", else the last one in the text; "" if there is none.
std::string final_number(const std::string& text);

}  // namespace mete
