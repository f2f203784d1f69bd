// The tasks of `mete eval`: questions made or read, answered, judged.
#pragma once

#include "apps/eval_options.h"
#include "eval/run_task.h"

namespace mete {

struct NamedTaskResult {
  TaskKind kind;
  TaskResult result;
};

/// Opens the sandbox if a task needs it: Error(kUsage) if code was not allowed, (kRuntime) if there is no
/// sandbox.
std::optional<Sandbox> open_sandbox(const EvalOptions& o);

/// Runs --tasks in order. Throws Error.
std::vector<NamedTaskResult> run_tasks(const EvalOptions& o, const Sandbox* sandbox);

}  // namespace mete
