#include "base/cgroup.h"

#include <gtest/gtest.h>

#include <fstream>

#include "base/aligned.h"
#include "base/cpu.h"

namespace mete {
namespace {

TEST(Cgroup, FoldersGoUpToARoot) {
  for (const char* controller : {"cpu", "memory"}) {
    for (const CgroupFolder& folder : cgroup_folders(controller)) {
      EXPECT_EQ(folder.path.rfind("/sys/fs/cgroup", 0), 0u) << folder.path;
      EXPECT_NE(folder.path.back(), '/');
    }
  }
}

TEST(Cgroup, NumbersAreReadAndMaxIsNone) {
  const std::string folder = ::testing::TempDir();
  std::ofstream(folder + "/limit") << "1048576\n";
  std::ofstream(folder + "/none") << "max\n";
  EXPECT_EQ(read_cgroup_number({folder, true}, "limit"), 1048576);
  EXPECT_EQ(read_cgroup_number({folder, true}, "none"), -1);
  EXPECT_EQ(read_cgroup_number({folder, true}, "absent"), -1);
}

TEST(Cgroup, LimitsAreSane) {
  EXPECT_GE(usable_cpus(), 1);
  EXPECT_GT(memory_available(), size_t{1} << 20);
  EXPECT_LT(memory_available(), size_t{1} << 50);
}

}  // namespace
}  // namespace mete
