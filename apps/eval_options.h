// The options of `mete eval`; a sweep file names the same ones.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "apps/args.h"

namespace mete {

struct EvalOptions {
  ModelOptions model;
  std::string numerics = "standard";
  // Text.
  std::string file, data;
  int64_t window = 512, chunks = -1, buckets = 4;
  std::string reference, reference_numerics = "standard", save_logits;
  int64_t compact = 0;
  bool json = false;
  // Tasks.
  std::vector<std::string> tasks;
  int64_t samples = 20, task_tokens = 1024, task_context = 2048;
  uint64_t seed = 0;
  std::vector<double> depths = {0, 0.25, 0.5, 0.75, 1};
  std::string haystack = "war-and-peace.txt";
  bool allow_code = false;
  // Sweep.
  std::string sweep, svg;

  /// Declares every option.
  void add_to(CLI::App& app);
  /// Throws Error(kUsage) for what cannot be, and for options without effect.
  void check(const CLI::App& app) const;
  /// Of the model under test. Throws Error(kUsage).
  RuntimeConfig runtime_config(int64_t context) const;

 private:
  void add_text_options(CLI::App& app);
  void add_task_options(CLI::App& app);
};

/// Where `name` is: itself, or in the data folder (--data, else METE_DATA_DIR). Throws Error(kRuntime).
std::string find_data_file(const std::string& name, const std::string& data);

/// Loads with progress on stderr.
std::unique_ptr<Runtime> load_with_progress(RuntimeConfig config, const std::string& what);

}  // namespace mete
