// --grammar, --grammar-file, --json-schema, --json-schema-file, as llama.cpp names them.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <optional>
#include <string>

#include "text/grammar/compiler.h"

namespace mete {

struct GrammarOptions {
  std::optional<std::string> gbnf, schema;
  std::string gbnf_file, schema_file;

  void add_to(CLI::App& app);
  /// Null if none was asked for. Throws Error(kUsage) for several at once, or for a text that is wrong.
  std::shared_ptr<const Grammar> compile(GrammarCompiler& compiler) const;
};

}  // namespace mete
