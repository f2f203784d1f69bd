// `mete eval --sweep FILE.toml`: a price list of settings.
#pragma once

#include "apps/eval_options.h"

namespace mete {

/// Runs the settings of o.sweep and prints the list, or JSON. `app` says what was given on the command line.
/// Returns the exit code; throws Error.
int run_sweep(const EvalOptions& o, const CLI::App& app);

}  // namespace mete
