// The commands of the `mete` binary. Each takes the words after its name and returns the exit code; an Error
// that it throws is printed by main.
#pragma once

#include <string>
#include <vector>

namespace mete {

int cmd_bench(const std::vector<std::string>& args);
int cmd_eval(const std::vector<std::string>& args);
int cmd_inspect(const std::vector<std::string>& args);
int cmd_plan(const std::vector<std::string>& args);
int cmd_pack(const std::vector<std::string>& args);
int cmd_replay(const std::vector<std::string>& args);
int cmd_run(const std::vector<std::string>& args);
int cmd_serve(const std::vector<std::string>& args);
int cmd_tokenize(const std::vector<std::string>& args);

}  // namespace mete
