// GBNF, llama.cpp's grammar notation (its grammars/README.md): rules `name ::= ...` with literals, character
// classes, `.`, groups, `|`, `*`, `+`, `?`, `{m}`, `{m,}`, `{m,n}` and `#` comments; the start rule is
// "root".
#pragma once

#include <string_view>

#include "text/grammar/rules.h"

namespace mete {

/// Errors (kUsage) name line and column, what was found and what was expected. Token literals (`<...>`) are
/// refused.
Result<GrammarProgram> parse_gbnf(std::string_view text);

}  // namespace mete
