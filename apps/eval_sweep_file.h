// A sweep file: options of `mete eval` by their long names without dashes, at the top for all settings, and
// in every
// [[setting]] for that one.
#pragma once

#include "apps/eval_options.h"

namespace mete {

struct SweepSetting {
  std::string name;
  EvalOptions options;
};

struct Sweep {
  EvalOptions common;                  ///< the options at the top
  std::vector<SweepSetting> settings;  ///< at least one
};

/// Parses `text`. `over` are options that go before those of the file (from the command line): words for
/// `mete eval`. Throws Error(kUsage) naming `path` and what is wrong: TOML, an unknown option or value,
/// settings that could not be compared (text, windows, reference and tasks belong at the top).
Sweep parse_sweep(const std::string& text, const std::string& path, const std::vector<std::string>& over);

}  // namespace mete
