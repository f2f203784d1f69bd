// The control groups that bound this process.
#pragma once

#include <string>
#include <vector>

namespace mete {

struct CgroupFolder {
  std::string path;  ///< no slash at the end
  bool v2;           ///< unified hierarchy
};

/// Folders of this process's group for `controller` ("cpu", "memory"), from its own group up to the root: of
/// version 1, version 2, and of both where both are mounted. Empty if there are none. `root` stands before
/// /proc and /sys (tests).
std::vector<CgroupFolder> cgroup_folders(const std::string& controller, const std::string& root = "");

/// First word of a file in such a folder as a number; -1 if it is absent or "max".
double read_cgroup_number(const CgroupFolder& folder, const char* file);

/// Bytes that the tightest memory limit up the tree leaves, with page cache that the kernel would give back;
/// -1: no limit.
double cgroup_memory_left(const std::string& root = "");

/// CPUs that the tightest quota up the tree allows; 0: no quota.
double cgroup_cpus(const std::string& root = "");

}  // namespace mete
