// The commands behind the one binary. Each takes the words after its name, writes to stdout, and returns the
// exit code or throws Error (main prints its message and exits with its code).
#pragma once

#include <string>
#include <vector>

namespace mete {

int cmd_inspect(std::vector<std::string> args);

}  // namespace mete
