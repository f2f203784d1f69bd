// What the machine can do at most, measured by loops that do nothing else: the denominators of every "share
// of limit".
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/peak_loops.h"
#include "base/spread.h"
#include "base/thread_pool.h"

namespace mete {

struct MachineLimits {
  int threads = 0;
  double read_bytes_per_s =
      0;  // streaming reads of memory far larger than the last-level cache, all threads together
  double int8_ops_per_s = 0;  // the fastest of the CPU's loops, 2 operations per multiply-add; 0 without AVX2
  double f32_ops_per_s = 0;   // FMA, 2 operations each; 0 if the CPU has no AVX2
  const char* int8_unit = "";  // the instruction and register measured: "vpdpbusd zmm", ... or ""
};

/// Bytes read per pass by default: past every last-level cache in common use.
inline constexpr size_t kBandwidthBytes = size_t{512} << 20;

/// Runs on all threads of `pool` at once; the best of several repetitions, about 0.5 s in all. `buffer_bytes`
/// is split over the threads and held meanwhile. Throws Error(kRuntime) if the kernel refuses the memory.
MachineLimits measure_machine_limits(ThreadPool& pool, size_t buffer_bytes = kBandwidthBytes);

/// Bytes per second read from memory by the active threads together, over several passes. Throws as above.
Spread measure_read_rate(ThreadPool& pool, size_t buffer_bytes = kBandwidthBytes);

/// Operations per second of a loop on the active threads together.
Spread measure_peak(ThreadPool& pool, const PeakLoop& loop);

/// Seconds from the start of an empty parallel section to its end.
Spread measure_fork_join(ThreadPool& pool);

/// Nanoseconds per load of a chain of dependent loads, one cache line each, in random order over `bytes`.
double measure_load_latency_ns(size_t bytes);

/// What two of these CPUs do, all of them busy, over what the first does alone: 2 if each has a core, below
/// kSharedCoreRatio if two share one. Threads are pinned, and their own CPU time counts, so that other
/// processes do not. All at once, because the virtual CPUs of some hosts wander over hardware threads: then
/// no pair is fixed.
double measure_pair_ratio(const std::vector<int>& cpus);
inline constexpr double kSharedCoreRatio = 1.3;

/// CPUs that the affinity mask allows, ascending.
std::vector<int> allowed_cpus();

struct CacheLevel {
  int level = 0;
  int64_t bytes = 0;
  bool measured = false;  ///< from load latencies; else what the system reports
};
/// Data caches as the system reports them (sysfs of the first CPU); empty if it does not.
std::vector<CacheLevel> reported_caches();

struct LatencyPoint {
  int64_t bytes;
  double ns;
};
/// Load latency over working sets of `from` to `to` bytes, two per doubling.
std::vector<LatencyPoint> measure_latency_curve(size_t from, size_t to);
/// Cache sizes as the curve shows them: each is the last working set before latency climbs past twice the
/// plateau it was on. Points ascend in bytes.
std::vector<CacheLevel> caches_of(const std::vector<LatencyPoint>& curve);

}  // namespace mete
