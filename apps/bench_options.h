// The options of `mete bench` and the tests that they ask for.
#pragma once

#include <string>
#include <vector>

#include "apps/args.h"
#include "engine/bench.h"

namespace mete {

struct BenchOptions {
  ModelOptions model;
  std::vector<int64_t> prompts{512}, gens{128}, depths{0}, sequences{1};
  std::vector<int> threads;
  std::vector<std::string> mixed;
  int64_t repetitions = 5;
  std::string output = "md", text_file, compare;
  bool no_warmup = false, load = false, machine = false, fresh = false;
};

/// Parses the command line; returns an exit code if the command is over, else -1. Throws Error(kUsage) for
/// values that cannot be, and for options without effect.
int parse_bench_options(const std::vector<std::string>& args, BenchOptions& options);

/// In llama-bench's order: by threads, sequences, depth; prompts, then generation, then mixed. Throws
/// Error(kUsage) if nothing is asked for.
std::vector<BenchTest> plan(const BenchOptions& options);

/// "pp512 @ d4096 x4".
std::string label(const BenchTest& test);

}  // namespace mete
