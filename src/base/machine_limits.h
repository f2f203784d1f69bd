// What the machine can do at most, measured by loops that do nothing else: the denominators of every "share
// of limit".
#pragma once

#include <cstddef>

#include "base/thread_pool.h"

namespace mete {

struct MachineLimits {
  int threads = 0;
  double read_bytes_per_s =
      0;  // streaming reads of memory far larger than the last-level cache, all threads together
  double int8_ops_per_s = 0;   // vpdpbusd, 2 operations per multiply-add; 0 if the CPU has no VNNI
  double f32_ops_per_s = 0;    // FMA, 2 operations each; 0 if the CPU has no AVX2
  const char* int8_unit = "";  // the instruction and register measured: "vpdpbusd zmm", "vpdpbusd ymm" or ""
};

/// Bytes read per pass by default: past every last-level cache in common use.
inline constexpr size_t kBandwidthBytes = size_t{512} << 20;

/// Runs on all threads of `pool` at once; the best of several repetitions, about 0.5 s in all. `buffer_bytes`
/// is split over the threads and held meanwhile. Throws Error(kRuntime) if the kernel refuses the memory.
MachineLimits measure_machine_limits(ThreadPool& pool, size_t buffer_bytes = kBandwidthBytes);

}  // namespace mete
