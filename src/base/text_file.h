// Whole files as text.
#pragma once

#include <string>

namespace mete {

/// The bytes of a file; throws Error(kRuntime) naming it.
std::string read_text_file(const std::string& path);

}  // namespace mete
