#include "apps/eval_tasks.h"

#include <algorithm>

#include "apps/conversation.h"
#include "apps/progress.h"
#include "eval/datasets.h"
#include "eval/retrieval.h"

namespace mete {
namespace {

std::vector<TaskKind> kinds_of(const EvalOptions& o) {
  std::vector<TaskKind> kinds;
  for (const std::string& task : o.tasks) kinds.push_back(parse_task(task));
  return kinds;
}

Task make_task(const EvalOptions& o, TaskKind kind, const Tokenizer& tokenizer, bool chat) {
  const CountTokens count = [&](const std::string& prompt) {
    return static_cast<int64_t>(encode_raw(tokenizer, prompt).size());
  };
  RetrievalOptions retrieval;
  retrieval.samples = o.samples;
  retrieval.seed = o.seed;
  retrieval.tokens = o.task_tokens;
  retrieval.depths = o.depths;
  const auto seed = o.seed;
  const auto read = [&](const char* file) { return read_text_file(find_data_file(file, o.data)); };
  switch (kind) {
    case TaskKind::kNeedle:
    case TaskKind::kMultikey:
      return make_needles(kind, read(o.haystack.c_str()), o.haystack, retrieval, count);
    case TaskKind::kRecall:
      return make_recall(retrieval, count);
    case TaskKind::kGsm8k:
      return read_gsm8k(read("gsm8k-test.jsonl"), "gsm8k-test.jsonl", o.samples, seed, chat).value();
    case TaskKind::kHumanEval:
      return read_humaneval(read("humaneval.jsonl"), "humaneval.jsonl", o.samples, seed).value();
    case TaskKind::kSpecBench:
      return read_specbench(read("specbench.jsonl"), "specbench.jsonl", o.samples, seed, chat).value();
  }
  throw bad_usage("--tasks: unknown");
}

}  // namespace

std::optional<Sandbox> open_sandbox(const EvalOptions& o) {
  const std::vector<TaskKind> kinds = kinds_of(o);
  const bool code = std::find(kinds.begin(), kinds.end(), TaskKind::kHumanEval) != kinds.end();
  if (o.allow_code && !code)
    throw bad_usage("--allow-code-execution has no effect without the task humaneval");
  if (!code) return std::nullopt;
  if (!o.allow_code) {
    throw bad_usage(
        "the task humaneval runs programs that the model writes: --allow-code-execution is needed");
  }
  Result<Sandbox> sandbox = Sandbox::open();
  if (!sandbox) throw run_failure("the task humaneval is refused: {}", sandbox.error().message());
  return *std::move(sandbox);
}

std::vector<NamedTaskResult> run_tasks(const EvalOptions& o, const Sandbox* sandbox) {
  std::vector<NamedTaskResult> results;
  const std::vector<TaskKind> kinds = kinds_of(o);
  if (kinds.empty()) return results;
  const std::unique_ptr<Runtime> runtime = load_with_progress(o.runtime_config(o.task_context), "loading");
  const Tokenizer& tokenizer = runtime->tokenizer();
  const std::optional<ChatTemplate> chat = find_chat_template(runtime->file().metadata(), "", "");
  Engine engine(*runtime);
  for (const TaskKind kind : kinds) {
    const Task task = make_task(o, kind, tokenizer, chat.has_value());
    const EncodePrompt encode = [&](const std::string& prompt) {
      return task.chat ? encode_chat(tokenizer, *chat, {{"user", prompt}}) : encode_raw(tokenizer, prompt);
    };
    Progress progress(name(kind));
    results.push_back({kind, run_task(engine, task, encode, sandbox,
                                      [&](int64_t done, int64_t total) { progress.update(done, total); })});
  }
  return results;
}

}  // namespace mete
