// What a setting costs in quality: perplexity of a text, distance to a reference, tasks, price lists.
#include <cstdio>

#include "apps/commands.h"
#include "apps/eval_report.h"
#include "apps/eval_sweep.h"

namespace mete {

int cmd_eval(const std::vector<std::string>& args) {
  CLI::App app(
      "What a model and its settings cost in quality: perplexity of a text (llama-perplexity's windows and "
      "scoring), "
      "and with a reference the KL divergence over the full vocabulary and how often the top token is the "
      "same.\n\n"
      "examples:\n"
      "  mete eval -m m.gguf -f text.txt                                     perplexity\n"
      "  mete eval -m m.gguf -f text.txt --reference self -ctk q8_0          price of quantised keys and "
      "activations\n"
      "  mete eval -m q4.gguf -f text.txt --reference f16.gguf               price of the quantisation\n"
      "  mete eval -m m.gguf -f text.txt --numerics reference --save-logits ref   then: --reference ref\n"
      "  mete eval -m m.gguf --tasks needle,recall,gsm8k                     questions with right answers\n"
      "  mete eval --sweep settings.toml -m m.gguf -f text.txt --svg out.svg price list of several settings",
      "mete eval");
  EvalOptions o;
  o.add_to(app);
  if (const int code = parse(app, args); code >= 0) return code;
  if (!o.sweep.empty()) return run_sweep(o, app);
  o.check(app);
  const std::optional<Sandbox> sandbox = open_sandbox(o);
  nlohmann::ordered_json json;
  std::string text;
  if (!o.file.empty()) {
    const QualityResult result = measure_quality(o);
    json = quality_json(o, result);
    text = quality_text(o, result);
  }
  if (!o.tasks.empty()) {
    const std::vector<NamedTaskResult> results = run_tasks(o, sandbox ? &*sandbox : nullptr);
    if (o.file.empty()) json["model"] = o.model.model;
    json["tasks"] = tasks_json(results);
    text += (text.empty() ? "" : "\n") + tasks_text(results);
  }
  std::printf("%s", o.json ? (json.dump(2) + "\n").c_str() : text.c_str());
  return std::fflush(stdout) == 0 ? 0 : 1;
}

}  // namespace mete
