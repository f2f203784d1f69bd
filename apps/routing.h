// mete inspect --routing: runs a text through a model and records its routing.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "apps/args.h"

namespace mete {

struct RoutingArgs {
  std::string out, prompt, file;
  int64_t window = 512, tokens = -1, rows = 64;
  int threads = 0;
  ExpertArgs experts;

  void add_to(CLI::App& app);
  ExpertOptions store;  ///< set by finish()
  /// While the App lives. Throws Error(kUsage) for options that have no effect without --routing.
  void finish();
  bool wanted() const { return !out.empty(); }

 private:
  std::vector<CLI::Option*> of_routing_;
};

/// Writes the trace of `model`; prints what it holds on stdout. Throws Error.
void record_routing(const std::string& model, const RoutingArgs& args);

}  // namespace mete
