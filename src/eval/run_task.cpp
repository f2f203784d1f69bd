#include "eval/run_task.h"

#include <cmath>
#include <random>

#include "text/detokenizer.h"
#include "text/stop_matcher.h"

namespace mete {
namespace {

struct Answer {
  std::string text;
  int64_t tokens = 0;
  FinishReason reason = FinishReason::kNone;
};

Answer answer_one(Engine& engine, SeqId seq, const Task& task) {
  Answer answer;
  StreamDetokenizer detokenizer(engine.runtime().tokenizer());
  StopMatcher stops(task.stops);
  while (answer.reason == FinishReason::kNone) {
    for (const TokenEvent& event : engine.step()) {
      if (event.reason == FinishReason::kError) throw run_failure("{}", engine.error(seq));
      answer.reason = event.reason;
      if (event.end_token) continue;
      ++answer.tokens;
      answer.text += stops.put(detokenizer.put(event.token));
      if (stops.stopped()) {
        if (answer.reason == FinishReason::kNone) engine.cancel(seq);
        answer.reason = FinishReason::kStop;
      }
    }
  }
  answer.text += stops.put(detokenizer.finish());
  answer.text += stops.finish();
  return answer;
}

}  // namespace

double TaskScore::error() const {
  return items > 0 ? std::sqrt(share() * (1 - share()) / static_cast<double>(items)) : 0;
}

TaskResult run_task(Engine& engine, const Task& task, const EncodePrompt& encode, const Sandbox* sandbox,
                    const std::function<void(int64_t, int64_t)>& progress) {
  TaskResult result;
  result.judged = task.kind != TaskKind::kSpecBench;
  const auto total = static_cast<int64_t>(task.items.size());
  double prompt_tokens = 0, answer_tokens = 0, decode_s = 0;
  int64_t decoded = 0;
  for (const TaskItem& item : task.items) {
    Request request;
    request.prompt = encode(item.prompt);
    request.max_tokens = task.max_tokens;
    request.sampling.temperature = 0;
    const auto room = engine.runtime().max_context() - static_cast<int64_t>(request.prompt.size());
    if (room < task.max_tokens) {
      throw bad_usage(
          "{}: a prompt of {} tokens and an answer of {} do not fit the context of {} (--task-ctx)",
          name(task.kind), request.prompt.size(), task.max_tokens, engine.runtime().max_context());
    }
    const SeqId seq = engine.submit(request).value();
    const Answer answer = answer_one(engine, seq, task);
    const SequenceLedger& ledger = engine.ledger(seq);
    prompt_tokens += static_cast<double>(ledger.prompt_tokens);
    answer_tokens += static_cast<double>(answer.tokens);
    decode_s += ledger.decode_s();
    decoded += ledger.decode_tokens;
    engine.release(seq);
    bool right = false;
    if (task.kind == TaskKind::kHumanEval) {
      right = passes_test(*sandbox, item, answer.text).value();
    } else if (result.judged) {
      right = is_right(task.kind, item, answer.text);
    }
    for (TaskScore* score : {&result.score, &result.groups[item.group]}) {
      ++score->items;
      score->right += right ? 1 : 0;
    }
    if (answer.reason == FinishReason::kLength) ++result.cut_off;
    if (progress) progress(result.score.items, total);
  }
  result.prompt_tokens = prompt_tokens / static_cast<double>(total);
  result.answer_tokens = answer_tokens / static_cast<double>(total);
  result.decode_rate = decode_s > 0 ? static_cast<double>(decoded) / decode_s : 0;
  return result;
}

Result<bool> passes_test(const Sandbox& sandbox, const TaskItem& item, const std::string& answer) {
  std::random_device random;
  const std::string passed = fmt::format("passed {:08x}{:08x}", random(), random());
  const Result<SandboxRun> run =
      sandbox.run_python(item.prompt + answer + "\n" + item.expected + "\nprint('\\n" + passed + "')\n");
  if (!run) return run.error();
  return run->exit_code == 0 && run->output.size() > passed.size() &&
         run->output.compare(run->output.size() - passed.size() - 1, passed.size(), passed) == 0;
}

}  // namespace mete
