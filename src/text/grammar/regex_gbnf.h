// Regular expressions of JSON schema's "pattern" (ECMA-262 without look-around, back-references, word borders
// and Unicode properties) as GBNF of the inside of a JSON string: quotes, backslashes and control characters
// are written as JSON escapes.
#pragma once

#include <string>
#include <string_view>

#include "base/error.h"

namespace mete {

/// GBNF expression; refers to the rule "char" where the pattern is not anchored. Errors (kUsage) name the
/// offset, what was found and what was expected.
Result<std::string> regex_to_gbnf(std::string_view pattern);

/// GBNF literal of these bytes.
std::string gbnf_literal(std::string_view text);

}  // namespace mete
