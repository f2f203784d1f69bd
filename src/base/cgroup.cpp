#include "base/cgroup.h"

#include <fmt/format.h>

#include <cstdlib>
#include <fstream>

namespace mete {

std::vector<CgroupFolder> cgroup_folders(const std::string& controller) {
  std::vector<CgroupFolder> folders;
  std::ifstream groups("/proc/self/cgroup");
  const std::string wanted = fmt::format(",{},", controller);
  std::string line;  // "hierarchy:controllers:/group"; no controllers: v2
  while (std::getline(groups, line)) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    std::string controllers(1, ',');
    controllers.append(line, first + 1, second - first - 1).push_back(',');
    const bool v2 = controllers == ",,";
    if (!v2 && controllers.find(wanted) == std::string::npos) continue;
    const std::string root = v2 ? "/sys/fs/cgroup" : fmt::format("/sys/fs/cgroup/{}", controller);
    std::string group = line.substr(second + 1);
    while (!group.empty() && group != "/") {
      folders.push_back({root + group, v2});
      group.erase(group.rfind('/'));
    }
    folders.push_back({root, v2});
  }
  return folders;
}

double read_cgroup_number(const CgroupFolder& folder, const char* file) {
  std::ifstream in(folder.path + "/" + file);
  std::string word;
  if (!(in >> word) || word == "max") return -1;
  return std::strtod(word.c_str(), nullptr);
}

}  // namespace mete
