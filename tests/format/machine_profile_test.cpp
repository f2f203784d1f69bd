#include "format/machine_profile.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <ctime>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

namespace mete {
namespace {

/// A profile of this machine with figures that no machine has.
MachineProfile sample() {
  MachineProfile p;
  char host[256] = "";
  ::gethostname(host, sizeof host - 1);
  p.host = host;
  p.cpu = cpu_model_name();
  p.cpus = usable_cpus();
  p.kernel = "6.1";
  p.measured_at = static_cast<double>(std::time(nullptr)) - 60;
  p.took_s = 5;
  p.threads = {{1, {10e9, 9e9, 11e9}, {1e-7, 1e-7, 2e-7}}, {2, {19e9, 18e9, 20e9}, {3e-6, 2e-6, 4e-6}}};
  p.peaks = {{"avx2", "f32", "vfmadd ymm", 1, {1e11, 1e11, 1e11}}};
  p.pair_ratio = 1.1;
  p.threads_per_core = 2;
  p.caches = {{1, 49152, false}, {1, 32768, true}};
  p.latencies = {{8192, 1.5}};
  p.drive_file = "/some/file";
  p.drive_bytes = 1 << 20;
  p.drive = {{{true, true, 65536, 1}, {1e8, 1e8, 1e8}},
             {{true, true, 65536, 4}, {3.8e8, 3.7e8, 3.9e8}},
             {{true, true, 65536, 16}, {4e8, 4e8, 4e8}},
             {{true, true, 4096, 16}, {9e7, 9e7, 9e7}},
             {{false, false, 1 << 20, 1}, {2e9, 2e9, 2e9}}};
  p.power = {{"rapl", "no zone"}};
  p.repeats = {{"memory read", 100, 96}, {"vfmadd ymm", 100, 90}};
  return p;
}

class ProfileTest : public ::testing::Test {
 protected:
  ProfileTest() : folder_(::testing::TempDir() + "profile_" + std::to_string(::getpid())) {
    std::filesystem::create_directories(folder_);
    path_ = folder_ + "/machine.json";
  }
  ~ProfileTest() override { std::filesystem::remove_all(folder_); }
  void write(const std::string& text) { std::ofstream(path_, std::ios::binary) << text; }
  void write(const MachineProfile& p) { write(to_json(p).dump()); }
  std::string refusal() {
    const Result<MachineProfile> p = load_profile(path_);
    return p ? "" : p.error().message();
  }
  std::string folder_, path_;
};

TEST_F(ProfileTest, JsonKeepsEverything) {
  const MachineProfile p = sample();
  const nlohmann::ordered_json json = to_json(p);
  EXPECT_EQ(to_json(profile_from_json(json.dump()).value()), json);
  EXPECT_EQ(json["caches"][0]["source"], "reported");
  EXPECT_EQ(json["caches"][1]["source"], "measured");
}

TEST_F(ProfileTest, AnotherMachinesProfileIsRefusedByName) {
  EXPECT_NE(refusal().find("no machine profile"), std::string::npos);
  write(sample());
  EXPECT_EQ(refusal(), "");
  MachineProfile p = sample();
  p.cpu = "Z80";
  write(p);
  EXPECT_NE(refusal().find("the CPU is Z80"), std::string::npos);
  EXPECT_NE(refusal().find("--fresh"), std::string::npos);
  p = sample();
  p.host += "-other";
  write(p);
  EXPECT_NE(refusal().find("the host is"), std::string::npos);
  p = sample();
  p.cpus += 1;
  write(p);
  EXPECT_NE(refusal().find("number of CPUs"), std::string::npos);
  ProfileOptions options;
  options.path = path_;
  EXPECT_FALSE(load_or_measure(options));
}

TEST_F(ProfileTest, DamagedProfilesAreErrors) {
  for (const std::string& text : {std::string(), std::string("[]"), std::string("{}"),
                                  std::string("{\"host\": 3}"), to_json(sample()).dump().substr(0, 200)}) {
    write(text);
    EXPECT_NE(refusal().find("no machine profile"), std::string::npos) << text;
  }
  nlohmann::ordered_json json = to_json(sample());
  json["threads"] = 7;
  write(json.dump());
  EXPECT_NE(refusal(), "");
  json = to_json(sample());
  json["drive"][0]["block"] = "big";
  write(json.dump());
  EXPECT_NE(refusal(), "");
}

TEST_F(ProfileTest, AYoungProfileIsUsedAsItIs) {
  write(sample());
  ProfileOptions options;
  options.path = path_;
  const MachineProfile p = load_or_measure(options).value();
  EXPECT_EQ(p.threads[1].read_bytes_per_s.median, 19e9);
}

TEST_F(ProfileTest, TheDriveIsAddedToAYoungProfileWithoutOne) {
  MachineProfile p = sample();
  p.drive_file.clear();
  p.drive.clear();
  write(p);
  const std::string file = folder_ + "/data";
  std::ofstream(file, std::ios::binary) << std::string(4 << 20, 'x');
  ProfileOptions options;
  options.path = path_;
  options.drive_file = file;
  const MachineProfile q = load_or_measure(options).value();
  EXPECT_EQ(q.drive_file, file);
  EXPECT_EQ(q.drive_bytes, 4 << 20);
  EXPECT_TRUE(!q.drive.empty() || !q.drive_problem.empty());
  EXPECT_EQ(q.threads[1].read_bytes_per_s.median, 19e9);
  EXPECT_EQ(load_profile(path_).value().drive_file, file);
}

TEST_F(ProfileTest, AnOldProfileIsMeasuredAnew) {
  write(sample());
  ProfileOptions options;
  options.path = path_;
  options.max_age_s = 30;
  const MachineProfile p = load_or_measure(options).value();
  EXPECT_EQ(p.threads.front().threads, 1);
  EXPECT_EQ(p.threads.back().threads, p.cpus);
  EXPECT_EQ(p.peaks.size(), p.threads.size() * supported_peak_loops().size());
  EXPECT_FALSE(p.latencies.empty());
  EXPECT_FALSE(p.power.empty());
  EXPECT_EQ(p.repeats.size(), 1 + supported_peak_loops().size());
  EXPECT_TRUE(p.drive.empty());
  EXPECT_EQ(to_json(load_profile(path_).value()), to_json(p));
}

TEST(Profile, Questions) {
  const MachineProfile p = sample();
  EXPECT_EQ(p.drive_depth(65536), 4);  // 3.8 of 4.0 is enough
  EXPECT_EQ(p.drive_depth(100000), 4);
  EXPECT_EQ(p.drive_depth(512), 16);
  EXPECT_EQ(MachineProfile{}.drive_depth(65536), 0);
  EXPECT_EQ(p.drive_rate({false, false, 1 << 20, 1}), 2e9);
  EXPECT_EQ(p.drive_rate({true, false, 1 << 20, 1}), 0);
  EXPECT_EQ(p.with_threads(2)->read_bytes_per_s.median, 19e9);
  EXPECT_EQ(p.with_threads(3), nullptr);
  ASSERT_EQ(p.unsteady().size(), 1u);  // 4 % is steady, 10 % is not
  EXPECT_EQ(p.unsteady()[0].what, "vfmadd ymm");
}

TEST(Drive, BadFilesAreErrors) {
  const DrivePattern pattern{false, true, 65536, 2};
  EXPECT_NE(measure_drive("/nonexistent/file", pattern, 0.05).error().message().find("/nonexistent/file"),
            std::string::npos);
  EXPECT_FALSE(measure_drive("/tmp", pattern, 0.05));
  const std::string path = ::testing::TempDir() + "drive_" + std::to_string(::getpid());
  std::ofstream(path, std::ios::binary) << std::string(1000, 'x');
  EXPECT_NE(measure_drive(path, pattern, 0.05).error().message().find("less than a block"),
            std::string::npos);
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace mete
