#include "base/cgroup.h"

#include <gtest/gtest.h>

#include <unistd.h>

#include <filesystem>
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

/// A tree of /proc and /sys below a folder of its own.
class FakeTree : public ::testing::Test {
 protected:
  FakeTree() : root_(::testing::TempDir() + "/mete_cgroup_" + std::to_string(::getpid())) {
    std::filesystem::remove_all(root_);
  }
  ~FakeTree() override { std::filesystem::remove_all(root_); }
  void put(const std::string& path, const std::string& text) const {
    std::filesystem::create_directories(std::filesystem::path(root_ + path).parent_path());
    std::ofstream(root_ + path) << text;
  }
  void groups(const std::string& text) const { put("/proc/self/cgroup", text); }
  double memory() const { return cgroup_memory_left(root_); }
  double cpus() const { return cgroup_cpus(root_); }

  std::string root_;
  const std::string v1_ = "/sys/fs/cgroup/memory", v2_ = "/sys/fs/cgroup";
};

TEST_F(FakeTree, NothingThereIsNoLimit) {
  EXPECT_EQ(memory(), -1);
  EXPECT_EQ(cpus(), 0);
  groups("0::/user.slice/a.scope\n4:memory:/job\n");
  EXPECT_EQ(memory(), -1);
  groups("nonsense\n:\n\n7\n");
  EXPECT_EQ(memory(), -1);
}

TEST_F(FakeTree, Version2LimitsUpTheTree) {
  groups("0::/user.slice/a.scope\n");
  // The root has no files of limits; the group itself has none set.
  put(v2_ + "/user.slice/a.scope/memory.max", "max\n");
  put(v2_ + "/user.slice/a.scope/memory.current", "1000\n");
  put(v2_ + "/user.slice/a.scope/cpu.max", "max 100000\n");
  EXPECT_EQ(memory(), -1);
  EXPECT_EQ(cpus(), 0);
  put(v2_ + "/user.slice/memory.max", "8000\n");
  put(v2_ + "/user.slice/memory.current", "3000\n");
  put(v2_ + "/user.slice/cpu.max", "150000 100000\n");
  EXPECT_EQ(memory(), 5000);
  EXPECT_EQ(cpus(), 1.5);
  put(v2_ + "/user.slice/memory.stat", "anon 2000\nactive_file 400\ninactive_file 600\n");
  EXPECT_EQ(memory(), 5600);
  put(v2_ + "/user.slice/a.scope/memory.max", "4000\n");  // the tightest counts, wherever it is
  EXPECT_EQ(memory(), 3000);
  put(v2_ + "/user.slice/a.scope/cpu.max", "50000 100000\n");
  EXPECT_EQ(cpus(), 0.5);
  put(v2_ + "/user.slice/a.scope/memory.current", "9000\n");  // above its limit
  EXPECT_EQ(memory(), 0);
  std::filesystem::remove(root_ + v2_ + "/user.slice/a.scope/memory.current");
  EXPECT_EQ(memory(), 5600);
}

TEST_F(FakeTree, Version1LimitsUpTheTree) {
  groups("5:cpu,cpuacct:/job/part\n4:memory:/job/part\n1:name=systemd:/init.scope\n");
  const std::string none = "9223372036854771712\n";  // what the kernel writes for no limit
  for (const char* folder : {"", "/job", "/job/part"}) {
    put(v1_ + folder + "/memory.limit_in_bytes", none);
    put(v1_ + folder + "/memory.usage_in_bytes", "100\n");
  }
  EXPECT_GT(memory(), 9e18);
  put(v1_ + "/job/memory.limit_in_bytes", "4096\n");
  EXPECT_EQ(memory(), 3996);
  put(v1_ + "/job/memory.stat", "inactive_file 7\ntotal_inactive_file 50\n");
  EXPECT_EQ(memory(), 4046);
  put("/sys/fs/cgroup/cpu/job/part/cpu.cfs_quota_us", "-1\n");
  put("/sys/fs/cgroup/cpu/job/part/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(cpus(), 0);
  put("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "300000\n");
  put("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(cpus(), 3);
}

TEST_F(FakeTree, BothVersionsAreRead) {
  groups("4:memory:/job\n0::/a.scope\n");
  put("/sys/fs/cgroup/unified/cgroup.controllers", "hugetlb\n");
  put(v1_ + "/job/memory.limit_in_bytes", "4096\n");
  put(v1_ + "/job/memory.usage_in_bytes", "96\n");
  EXPECT_EQ(memory(), 4000);
  put("/sys/fs/cgroup/unified/a.scope/memory.max", "2000\n");
  put("/sys/fs/cgroup/unified/a.scope/memory.current", "500\n");
  EXPECT_EQ(memory(), 1500);
}

// In a container the group's path may be the host's, while its own folder is the root of what is mounted.
TEST_F(FakeTree, ARootThatIsTheGroupItself) {
  groups("4:memory:/docker/0123\n");
  put(v1_ + "/memory.limit_in_bytes", "4096\n");
  put(v1_ + "/memory.usage_in_bytes", "96\n");
  EXPECT_EQ(memory(), 4000);
}

TEST(Cgroup, LimitsAreSane) {
  EXPECT_GE(usable_cpus(), 1);
  EXPECT_GT(memory_available(), size_t{1} << 20);
  EXPECT_LT(memory_available(), size_t{1} << 50);
}

}  // namespace
}  // namespace mete
