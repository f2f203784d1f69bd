// Command lines with llama.cpp's spellings, and the options that several commands share.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "base/text_file.h"
#include "engine/runtime.h"
#include "request/sampling.h"

namespace mete {

/// Replaces llama.cpp's one-dash long names (-tb, -ctk, ...) by their long forms, which CLI11 can register.
std::vector<std::string> expand_short_names(const std::vector<std::string>& args);

/// Parses `args` (without the program name). Returns an exit code if the command is over (help: 0, bad usage:
/// 2, after printing what was wrong), else -1.
int parse(CLI::App& app, const std::vector<std::string>& args);

/// The ceiling that a file of `--memory-file` holds, in bytes. Throws Error(kUsage) naming it.
int64_t read_memory_file(const std::string& path);

/// --expert-slots and what goes with it.
struct ExpertArgs {
  ExpertOptions options;
  std::string policy = "lfu", pool = "layers", io = "auto";
  bool buffered = false;

  /// To stay where it is until `app` has parsed.
  void add_to(CLI::App& app);
  /// Throws Error(kUsage) for values that cannot be, or that have no effect.
  /// `ceiling`: --memory is given, which keeps experts on the drive as it must.
  ExpertOptions finish(bool ceiling) const;

 private:
  std::string given_;  // an option that only streamed experts read; set when the command line is parsed
};

/// -m, -t, -tb, -c, -b, -ub, -ctk, -ctv, --expert-..., --memory, --memory-file
struct ModelOptions {
  std::string model;
  int threads = 0, threads_batch = 0;
  int64_t context = 0, batch = 2048, ubatch = 512;
  std::string cache_k = "f16", cache_v = "f16";
  ExpertArgs experts;
  std::string memory, memory_file, embeddings = "auto";

  void add_to(CLI::App& app, bool with_context = true);
  void add_memory_to(CLI::App& app);
  /// Throws Error(kUsage) for values that cannot be.
  RuntimeConfig config() const;
};

/// -s, --temp, --top-k, ... with llama.cpp's names and defaults.
struct SamplingOptions {
  SamplingParams params;
  int64_t seed = 0;
  std::vector<std::string> logit_bias;
  std::vector<std::string> dry_breakers;
  std::string samplers, sampler_letters;

  void add_to(CLI::App& app);
  /// Throws Error(kUsage). A random seed (-s -1) is printed on stderr.
  SamplingParams finish() const;

 private:
  void check_effects(const SamplingParams& out) const;
  std::vector<std::pair<CLI::Option*, SamplerStage>> of_stage_;  // options that only this stage reads
  std::vector<CLI::Option*> mirostat_only_;
};

/// Bytes per byte of a text that it takes on the way from the option to the model, beside the tokenizer's:
/// the text itself, its rendering, ids and the buffers of the conversion.
inline constexpr int64_t kTextCopies = 16;

}  // namespace mete
