// The options of `mete eval`; a sweep file names the same ones.
#pragma once

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

  /// Declares every option.
  void add_to(CLI::App& app);
  /// Throws Error(kUsage) for what cannot be, and for options without effect.
  void check(const CLI::App& app) const;
  /// Of the model under test. Throws Error(kUsage).
  RuntimeConfig runtime_config(int64_t context) const;
};

/// Where `name` is: itself, or in the data folder (--data, else METE_DATA_DIR). Throws Error(kRuntime).
std::string find_data_file(const std::string& name, const std::string& data);

/// Loads with progress on stderr.
std::unique_ptr<Runtime> load_with_progress(RuntimeConfig config, const std::string& what);

}  // namespace mete
