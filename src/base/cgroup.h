// The control groups that bound this process.
#pragma once

#include <string>
#include <vector>

namespace mete {

struct CgroupFolder {
  std::string path;  ///< no slash at the end
  bool v2;           ///< unified hierarchy
};

/// Folders of this process's group for `controller` ("cpu", "memory"), from its own group up to the root.
/// Empty if there are none.
std::vector<CgroupFolder> cgroup_folders(const std::string& controller);

/// First word of a file in such a folder as a number; -1 if it is absent or "max".
double read_cgroup_number(const CgroupFolder& folder, const char* file);

}  // namespace mete
