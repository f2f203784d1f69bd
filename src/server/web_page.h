// The page at GET /, made part of the program by the build from src/server/web/index.html.
#pragma once

#include <string_view>

namespace mete {

extern const std::string_view kWebPage;

}  // namespace mete
