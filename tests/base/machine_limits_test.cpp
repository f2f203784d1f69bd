#include "base/machine_limits.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "base/cpu.h"

namespace mete {
namespace {

TEST(MachineLimits, MeasuresWhatTheCpuHas) {
  ThreadPool pool(2);
  const MachineLimits limits = measure_machine_limits(pool, size_t{1} << 20);
  EXPECT_EQ(limits.threads, 2);
  EXPECT_TRUE(std::isfinite(limits.read_bytes_per_s));
  EXPECT_GT(limits.read_bytes_per_s, 0);
  const bool vnni = supported(CpuTier::kAvx512Vnni) || supported(CpuTier::kAvx2Vnni);
  EXPECT_EQ(limits.int8_ops_per_s > 0, vnni);
  EXPECT_EQ(std::string(limits.int8_unit).empty(), !vnni);
  EXPECT_EQ(limits.f32_ops_per_s > 0, supported(CpuTier::kAvx2));
}

}  // namespace
}  // namespace mete
