#include "base/energy.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace mete {
namespace {

/// A powercap folder with one package, its core and its memory.
class EnergyTest : public ::testing::Test {
 protected:
  EnergyTest() : root_(::testing::TempDir() + "powercap_" + std::to_string(::getpid())) {
    zone("", "package-0", 1000000, 262143000);
    zone("/intel-rapl:0:0", "core", 400000, 262143000);
    zone("/intel-rapl:0:1", "dram", 500000, 65712000);
  }
  ~EnergyTest() override { std::filesystem::remove_all(root_); }
  std::string folder(const std::string& zone) const { return root_ + "/intel-rapl:0" + zone; }
  void zone(const std::string& zone, const std::string& name, uint64_t uj, uint64_t range) {
    std::filesystem::create_directories(folder(zone));
    std::ofstream(folder(zone) + "/name") << name << "\n";
    std::ofstream(folder(zone) + "/max_energy_range_uj") << range << "\n";
    set(zone, uj);
  }
  void set(const std::string& zone, uint64_t uj) { std::ofstream(folder(zone) + "/energy_uj") << uj << "\n"; }
  std::string root_;
};

TEST_F(EnergyTest, SumsPackageAndMemoryButNotCores) {
  EnergyMeter meter(root_, false);
  ASSERT_TRUE(meter.available());
  ASSERT_EQ(meter.sources().size(), 2u);
  EXPECT_EQ(meter.sources()[1].name, "dram of package-0");
  EXPECT_EQ(meter.joules(), 0.0);
  set("", 3500000);
  set("/intel-rapl:0:0", 900000);
  set("/intel-rapl:0:1", 750000);
  EXPECT_DOUBLE_EQ(meter.joules().value(), 2.75);
  EXPECT_EQ(meter.why_not(), "");
}

TEST_F(EnergyTest, CountsThroughAWrap) {
  EnergyMeter meter(root_, false);
  set("", 262000000);
  EXPECT_DOUBLE_EQ(meter.joules().value(), 261.0);
  set("", 857000);  // 143000 to the end of the range, then 857000
  EXPECT_DOUBLE_EQ(meter.joules().value(), 262.0);
  set("", 1857000);
  EXPECT_DOUBLE_EQ(meter.joules().value(), 263.0);
}

TEST_F(EnergyTest, SaysWhyThereIsNoFigure) {
  EnergyMeter none(root_ + "/absent", false);
  EXPECT_FALSE(none.available());
  EXPECT_EQ(none.joules(), std::nullopt);
  EXPECT_NE(none.why_not().find("no intel-rapl zone"), std::string::npos);

  std::ofstream(folder("") + "/energy_uj") << "nonsense\n";
  std::filesystem::remove(folder("/intel-rapl:0:1") + "/energy_uj");
  EnergyMeter broken(root_, false);
  EXPECT_FALSE(broken.available());
  EXPECT_NE(broken.why_not().find("found no number"), std::string::npos);
  EXPECT_NE(broken.why_not().find("dram of package-0"), std::string::npos);
}

TEST_F(EnergyTest, ASourceThatFailsLaterEndsTheFigure) {
  EnergyMeter meter(root_, false);
  std::filesystem::remove(folder("") + "/energy_uj");
  EXPECT_EQ(meter.joules(), std::nullopt);
  EXPECT_NE(meter.why_not(), "");
}

TEST(Energy, TheMachinesOwnSourcesAreReadableOrSayWhy) {
  EnergyMeter meter;
  EXPECT_FALSE(meter.sources().empty());
  EXPECT_EQ(meter.available(), meter.joules().has_value());
  EXPECT_EQ(meter.available(), meter.why_not().empty());
}

}  // namespace
}  // namespace mete
