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
  EXPECT_EQ(limits.int8_ops_per_s > 0, supported(CpuTier::kAvx2));
  EXPECT_EQ(std::string(limits.int8_unit).empty(), !supported(CpuTier::kAvx2));
  if (supported(CpuTier::kAvx512Vnni)) {
    EXPECT_STREQ(limits.int8_unit, "vpdpbusd zmm");
  }
  EXPECT_EQ(limits.f32_ops_per_s > 0, supported(CpuTier::kAvx2));
}

TEST(MachineLimits, CachesAreReadFromTheCurve) {
  // 48 KiB at 1 ns, 1 MiB at 3 ns with a slope, then memory.
  const std::vector<LatencyPoint> curve = {{16384, 1.0},    {32768, 1.0},    {49152, 1.02},   {65536, 3.0},
                                           {524288, 3.1},   {786432, 3.2},   {1048576, 4.2},  {1572864, 8.0},
                                           {2097152, 10.0}, {4194304, 10.5}, {33554432, 11.0}};
  const std::vector<CacheLevel> caches = caches_of(curve);
  ASSERT_EQ(caches.size(), 2u);
  EXPECT_EQ(caches[0].level, 1);
  EXPECT_EQ(caches[0].bytes, 49152);
  EXPECT_EQ(caches[1].level, 2);
  EXPECT_EQ(caches[1].bytes, 1048576);
  EXPECT_TRUE(caches[1].measured);
  EXPECT_TRUE(caches_of({}).empty());
}

TEST(MachineLimits, ThePeaksAreThoseOfTheTiers) {
  ThreadPool pool(1);
  for (const PeakLoop& loop : supported_peak_loops()) {
    EXPECT_TRUE(supported(loop.tier)) << loop.unit;
    EXPECT_GT(measure_peak(pool, loop).low, 0) << loop.unit;
  }
  EXPECT_EQ(supported_peak_loops().empty(), !supported(CpuTier::kAvx2));
}

TEST(MachineLimits, WaitingForTheCpuIsNotMistakenForASharedCore) {
  const std::vector<int> cpus = allowed_cpus();
  ASSERT_FALSE(cpus.empty());
  // Two threads on one CPU take turns: twice the wall time, but each needs the CPU time it needs alone.
  EXPECT_GT(measure_pair_ratio({cpus[0], cpus[0]}), kSharedCoreRatio);
}

}  // namespace
}  // namespace mete
