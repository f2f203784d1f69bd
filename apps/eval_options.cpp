#include "apps/eval_options.h"

#include <cstdlib>
#include <filesystem>

#include "apps/progress.h"

namespace mete {

void EvalOptions::add_to(CLI::App& app) {
  model.add_to(app, false);
  app.get_option("--model")->required(false);
  app.add_option("--numerics", numerics, "standard, or reference: float32 activations, sums in double (slow)")
      ->check(CLI::IsMember({"standard", "reference"}))
      ->capture_default_str();
  app.add_option("--data", data, "folder of texts and data sets (default: METE_DATA_DIR)");
  app.add_flag("--json", json, "print one JSON object on stdout and nothing else");
  const char* text = "Perplexity and KL on a text";
  app.add_option("-f,--file", file, "text to score; also looked for in the data folder")->group(text);
  app.add_option("-c,--ctx-size", window, "tokens per window")
      ->check(CLI::Range(int64_t{4}, int64_t{1} << 20))
      ->capture_default_str()
      ->group(text);
  app.add_option("--chunks", chunks, "windows to score; -1: all")->capture_default_str()->group(text);
  app.add_option(
         "--reference", reference,
         "compare with: 'self' (full precision of the same file, run beside it), another model (GGUF file or "
         "org/name), or a file of --save-logits")
      ->group(text);
  app.add_option("--reference-numerics", reference_numerics, "of a reference model: standard or reference")
      ->check(CLI::IsMember({"standard", "reference"}))
      ->capture_default_str()
      ->group(text);
  app.add_option("--buckets", buckets, "equal ranges of positions that are also reported by themselves")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str()
      ->group(text);
  app.add_option("--save-logits", save_logits,
                 "write the scored logits rows as float32 (format: docs/numerics.md)")
      ->group(text);
  app.add_option(
         "--compact", compact,
         "with --save-logits or --sweep: keep the K likeliest tokens and one bucket for the rest; KL against "
         "it is a lower bound and is called so")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 24))
      ->group(text);
}

void EvalOptions::check(const CLI::App& app) const {
  const auto given = [&](const char* name) { return app.count(name) > 0; };
  if (model.model.empty()) throw bad_usage("-m is missing: a GGUF file, or org/name");
  if (chunks == 0 || chunks < -1) throw bad_usage("--chunks: found {}, expected -1 or at least 1", chunks);
  if (file.empty()) {
    for (const char* name :
         {"--ctx-size", "--chunks", "--reference", "--buckets", "--save-logits", "--compact"}) {
      if (given(name)) throw bad_usage("{} has no effect without a text (-f)", name);
    }
  }
  if (given("--reference-numerics") && (reference.empty() || reference == "self")) {
    throw bad_usage("--reference-numerics has no effect: --reference is not a model");
  }
}

RuntimeConfig EvalOptions::runtime_config(int64_t context) const {
  RuntimeConfig config = model.config();
  config.context = context;
  config.mode = numerics == "reference" ? NumericMode::kReference : NumericMode::kStandard;
  return config;
}

std::string find_data_file(const std::string& name, const std::string& data) {
  namespace fs = std::filesystem;
  if (fs::exists(name)) return name;
  const char* set = std::getenv("METE_DATA_DIR");
  const std::string folder = !data.empty() ? data : set != nullptr ? set : "";
  if (folder.empty())
    throw run_failure("{}: no such file, and no data folder is set (--data, METE_DATA_DIR)", name);
  if (const fs::path path = fs::path(folder) / name; fs::exists(path)) return path.string();
  throw run_failure("{}: no such file, here or in the data folder {}", name, folder);
}

std::unique_ptr<Runtime> load_with_progress(RuntimeConfig config, const std::string& what) {
  Progress progress(what);
  config.progress = Progress::callback;
  config.progress_user = &progress;
  return std::make_unique<Runtime>(config);
}

}  // namespace mete
