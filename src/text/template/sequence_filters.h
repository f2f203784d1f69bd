// Filters that work on sequences and mappings.
#pragma once

#include "text/template/interpreter.h"

namespace mete::jinja {

const Function* find_sequence_filter(std::string_view name);

}  // namespace mete::jinja
