// bench_ceiling [THREADS ...]: prints, as JSON, what the machine can do at most with each thread count.
#include <fmt/format.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "base/cpu.h"
#include "base/error.h"
#include "base/machine_limits.h"

int main(int argc, char** argv) {
  std::vector<int> counts;
  for (int i = 1; i < argc; ++i) {
    char* end = nullptr;
    const long count = std::strtol(argv[i], &end, 10);
    if (*end != '\0' || count < 1 || count > 1024) {
      fmt::print(stderr, "bench_ceiling: thread count '{}', expected 1 to 1024\n", argv[i]);
      return 2;
    }
    counts.push_back(static_cast<int>(count));
  }
  if (counts.empty()) {
    for (int count = 1; count <= mete::usable_cpus(); ++count) counts.push_back(count);
  }
  try {
    std::string rows;
    for (int count : counts) {
      mete::ThreadPool pool(count);
      const mete::MachineLimits limits = mete::measure_machine_limits(pool);
      rows += fmt::format(
          "{}\n  {{\"threads\": {}, \"read_gb_s\": {:.2f}, \"int8_tops\": {:.4f}, \"int8_unit\": \"{}\", "
          "\"f32_tflops\": {:.4f}}}",
          rows.empty() ? "" : ",", count, limits.read_bytes_per_s / 1e9, limits.int8_ops_per_s / 1e12,
          limits.int8_unit, limits.f32_ops_per_s / 1e12);
    }
    fmt::print("{{\"cpu\": \"{}\", \"limits\": [{}\n]}}\n", mete::cpu_model_name(), rows);
  } catch (const mete::Error& error) {
    fmt::print(stderr, "bench_ceiling: {}\n", error.what());
    return 1;
  }
  return 0;
}
