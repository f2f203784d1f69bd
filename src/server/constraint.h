// From what a client asks of the output's form to the grammar that enforces it.
#pragma once

#include <memory>
#include <span>

#include "server/generation.h"
#include "text/grammar/compiler.h"
#include "text/output_parser.h"

namespace mete {

/// Null for free text. `output`: how the model's text is read, and with it how a call is to be written;
/// `shown_tokens`: special tokens that are part of that text. An error names the field.
ApiResult<std::shared_ptr<const Grammar>> compile_constraint(const Generation& request,
                                                             const OutputOptions& output,
                                                             std::span<const int32_t> shown_tokens,
                                                             GrammarCompiler& compiler);

}  // namespace mete
