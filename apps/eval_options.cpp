#include "apps/eval_options.h"

#include <cstdlib>
#include <filesystem>

#include "apps/progress.h"
#include "eval/task.h"

namespace mete {

void EvalOptions::add_to(CLI::App& app) {
  model.add_to(app, false);
  app.get_option("--model")->required(false);
  app.add_option("--numerics", numerics, "standard, or reference: float32 activations, sums in double (slow)")
      ->check(CLI::IsMember({"standard", "reference"}))
      ->capture_default_str();
  app.add_option("--data", data, "folder of texts and data sets (default: METE_DATA_DIR)");
  app.add_flag("--json", json, "print one JSON object on stdout and nothing else");
  add_text_options(app);
  add_task_options(app);
  const char* group = "Price list";
  app.add_option("--sweep", sweep,
                 "TOML file of settings to compare (docs/eval.md); -m, -f, --data go before its own")
      ->group(group);
  app.add_option("--svg", svg, "with --sweep: write the plot of the frontier to this file")->group(group);
}

void EvalOptions::add_text_options(CLI::App& app) {
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

void EvalOptions::add_task_options(CLI::App& app) {
  const char* group = "Tasks";
  app.add_option(
         "--tasks", tasks,
         "comma-separated: needle, multikey (facts hidden in a long text), recall (word pairs), gsm8k, "
         "humaneval, specbench (speed only)")
      ->delimiter(',')
      ->group(group);
  app.add_option("--samples", samples, "questions per task; -1: all of a data set")
      ->capture_default_str()
      ->group(group);
  app.add_option("--seed", seed, "chooses and makes the questions")->capture_default_str()->group(group);
  app.add_option("--task-tokens", task_tokens, "needle, multikey, recall: length of a prompt")
      ->check(CLI::Range(int64_t{16}, int64_t{1} << 20))
      ->capture_default_str()
      ->group(group);
  app.add_option("--task-ctx", task_context, "context of the tasks: prompt and answer")
      ->check(CLI::Range(int64_t{16}, int64_t{1} << 20))
      ->capture_default_str()
      ->group(group);
  app.add_option("--depths", depths, "comma-separated, 0 to 1: where the asked fact lies")
      ->delimiter(',')
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str()
      ->group(group);
  app.add_option("--haystack", haystack,
                 "needle, multikey: the long text; also looked for in the data folder")
      ->capture_default_str()
      ->group(group);
  app.add_flag("--allow-code-execution", allow_code,
               "humaneval: run the programs that the model writes, under bubblewrap")
      ->group(group);
}

void EvalOptions::check(const CLI::App& app) const {
  const auto given = [&](const char* name) { return app.count(name) > 0; };
  if (model.model.empty()) throw bad_usage("-m is missing: a GGUF file, or org/name");
  if (chunks == 0 || chunks < -1) throw bad_usage("--chunks: found {}, expected -1 or at least 1", chunks);
  if (file.empty() && tasks.empty()) throw bad_usage("nothing to do: -f names a text, --tasks tasks");
  if (tasks.empty()) {
    for (const char* name : {"--samples", "--seed", "--task-tokens", "--task-ctx", "--depths", "--haystack",
                             "--allow-code-execution"}) {
      if (given(name)) throw bad_usage("{} has no effect without --tasks", name);
    }
  }
  if (samples < -1 || samples == 0)
    throw bad_usage("--samples: found {}, expected -1 or at least 1", samples);
  for (const std::string& task : tasks) {
    const TaskKind kind = parse_task(task);
    if (samples == -1 && kind <= TaskKind::kRecall) {
      throw bad_usage("--samples -1: the task {} is made, not read; say how many", task);
    }
  }
  if (!svg.empty()) throw bad_usage("--svg has no effect without --sweep");
  if (compact > 0 && save_logits.empty()) throw bad_usage("--compact has no effect without --save-logits");
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
  config.logits_rows = config.memory_bytes > 0 ? 4 : 64;  // their buffer stays small
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
