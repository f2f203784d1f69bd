#include "base/cgroup.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>

namespace mete {
namespace {

/// Bytes of the group's page cache that the kernel would give back.
double reclaimable(const CgroupFolder& folder) {
  std::ifstream file(folder.path + "/memory.stat");
  std::string key;
  double bytes = 0;
  while (file >> key >> bytes) {
    if (key == (folder.v2 ? "inactive_file" : "total_inactive_file")) return bytes;
  }
  return 0;
}

}  // namespace

std::vector<CgroupFolder> cgroup_folders(const std::string& controller, const std::string& root) {
  const std::string mounts = root + "/sys/fs/cgroup";
  // Beside version 1, version 2 is mounted one folder deeper.
  const bool both = std::ifstream(mounts + "/unified/cgroup.controllers").good();
  std::vector<CgroupFolder> folders;
  std::ifstream groups(root + "/proc/self/cgroup");
  const std::string wanted = fmt::format(",{},", controller);
  std::string line;  // "hierarchy:controllers:/group"; no controllers: v2
  while (std::getline(groups, line)) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    std::string controllers(1, ',');
    controllers.append(line, first + 1, second - first - 1).push_back(',');
    const bool v2 = controllers == ",,";
    if (!v2 && controllers.find(wanted) == std::string::npos) continue;
    const std::string mount = !v2 ? mounts + "/" + controller : both ? mounts + "/unified" : mounts;
    std::string group = line.substr(second + 1);
    while (!group.empty() && group != "/") {
      folders.push_back({mount + group, v2});
      group.erase(group.rfind('/'));
    }
    folders.push_back({mount, v2});
  }
  return folders;
}

double read_cgroup_number(const CgroupFolder& folder, const char* file) {
  std::ifstream in(folder.path + "/" + file);
  std::string word;
  if (!(in >> word) || word == "max") return -1;
  return std::strtod(word.c_str(), nullptr);
}

double cgroup_memory_left(const std::string& root) {
  double left = -1;
  for (const CgroupFolder& folder : cgroup_folders("memory", root)) {
    const double limit = read_cgroup_number(folder, folder.v2 ? "memory.max" : "memory.limit_in_bytes");
    const double used = read_cgroup_number(folder, folder.v2 ? "memory.current" : "memory.usage_in_bytes");
    if (limit < 0 || used < 0) continue;
    const double here = std::max(0.0, limit - used + reclaimable(folder));
    left = left < 0 ? here : std::min(left, here);
  }
  return left;
}

double cgroup_cpus(const std::string& root) {
  double limit = 0;
  for (const CgroupFolder& folder : cgroup_folders("cpu", root)) {
    double quota = -1, period = -1;
    if (folder.v2) {
      std::ifstream file(folder.path + "/cpu.max");  // "max 100000" or "200000 100000"
      if (!(file >> quota >> period)) continue;
    } else {
      quota = read_cgroup_number(folder, "cpu.cfs_quota_us");
      period = read_cgroup_number(folder, "cpu.cfs_period_us");
    }
    if (quota > 0 && period > 0) limit = limit == 0 ? quota / period : std::min(limit, quota / period);
  }
  return limit;
}

}  // namespace mete
