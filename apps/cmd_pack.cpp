// mete pack: an expert pack of a mixture-of-experts model.
#include <cstdio>

#include "apps/args.h"
#include "apps/commands.h"
#include "apps/progress.h"
#include "format/hub_cache.h"
#include "weights/pack_experts.h"

namespace mete {

int cmd_pack(const std::vector<std::string>& args) {
  CLI::App app(
      "Writes the routed experts of a model side by side, in panels ready for the kernels, so that an "
      "expert is one aligned read (docs/experts.md).",
      "mete pack");
  std::string model, out;
  PackOptions options;
  app.add_option("-m,--model", model, "GGUF file, or org/name of a model in the local Hugging Face hub cache")
      ->required();
  app.add_option("-o,--output", out, "file to write (default: the model's path with .experts at its end)");
  app.add_flag("--force", options.force, "replace a file that is there");
  if (const int code = parse(app, args); code >= 0) return code;
  const GgufFile file = GgufFile::open(resolve_model_path(model).value()).value();
  const ModelConfig config = read_model_config(file);
  if (config.experts.layers.empty()) throw bad_usage("{}: has no routed experts", model);
  if (out.empty()) out = file.paths()[0] + ".experts";
  ThreadPool pool(1);
  const KernelTable kernels{};
  Context ctx{pool, kernels};
  Progress progress("packing");
  int64_t taken_over = 0;
  options.taken_over = &taken_over;
  options.progress = Progress::callback;
  options.progress_user = &progress;
  pack_experts(ctx, file, config.experts, out, options).or_throw();
  progress.clear();
  const auto directory = open_expert_pack(file, config.experts, out).value();
  if (taken_over > 0)
    fmt::print(stderr, "mete pack: {} experts of an interrupted run were kept\n", taken_over);
  fmt::print("{}: {} experts of {} layers, records of {} bytes, {:.1f} MiB\n", out, directory.experts,
             directory.layers, directory.record_bytes, static_cast<double>(directory.file_bytes()) / 1048576);
  return std::fflush(stdout) == 0 ? 0 : 1;
}

}  // namespace mete
