// JSON schema to GBNF. The grammar never allows a text that the schema forbids; keywords that cannot be
// enforced are refused, annotations (title, description, default, ...) are passed over.
// Specification: JSON Schema 2020-12, and draft 7's spellings of tuples and definitions.
//
// Supported: type (one or several), properties (in the schema's order), required, additionalProperties
// (absent: no others), items, prefixItems, minItems, maxItems, enum, const, anyOf, oneOf (as anyOf), allOf
// (merged), $ref within the schema, minLength, maxLength, pattern (see regex_gbnf.h), format (date, time,
// date-time, duration, uuid, email, hostname, ipv4, ipv6, uri), minimum, maximum and their exclusive forms
// with whole bounds. White space between tokens is bounded.
#pragma once

#include <string>
#include <string_view>

#include "base/error.h"

namespace mete {

/// GBNF of the texts that fit, between `before` and `after`. Errors (kUsage) name the place in the schema (a
/// JSON pointer), what was found and what was expected.
Result<std::string> json_schema_to_gbnf(std::string_view schema, std::string_view before = "",
                                        std::string_view after = "");

}  // namespace mete
