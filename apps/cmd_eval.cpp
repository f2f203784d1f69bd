// What a setting costs in quality: perplexity of a text, distance to a reference.
#include <cstdio>

#include "apps/commands.h"
#include "apps/eval_report.h"

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
      "  mete eval -m m.gguf -f text.txt --numerics reference --save-logits ref   then: --reference ref",
      "mete eval");
  EvalOptions o;
  o.add_to(app);
  if (const int code = parse(app, args); code >= 0) return code;
  o.check(app);
  const QualityResult result = measure_quality(o);
  if (o.json) {
    std::printf("%s\n", quality_json(o, result).dump(2).c_str());
  } else {
    std::printf("%s", quality_text(o, result).c_str());
  }
  return std::fflush(stdout) == 0 ? 0 : 1;
}

}  // namespace mete
