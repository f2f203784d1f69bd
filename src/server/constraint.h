// From what a client asks of the output's form to the grammar that enforces it.
#pragma once

#include <memory>

#include "server/generation.h"
#include "text/chat_format.h"
#include "text/grammar/compiler.h"

namespace mete {

/// Null for free text. `format`: how the model writes a tool call that the client insists on. An error names
/// the field.
ApiResult<std::shared_ptr<const Grammar>> compile_constraint(const Generation& request, ChatFormat format,
                                                             GrammarCompiler& compiler);

}  // namespace mete
