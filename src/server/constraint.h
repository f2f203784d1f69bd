// From what a client asks of the output's form to the grammar that enforces it.
#pragma once

#include <memory>

#include "server/generation.h"
#include "text/grammar/compiler.h"

namespace mete {

/// Null for free text. An error names the field. From any thread.
ApiResult<std::shared_ptr<const Grammar>> compile_constraint(const OutputFormat& format,
                                                             GrammarCompiler& compiler);

}  // namespace mete
