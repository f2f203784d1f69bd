// Caches and shared cores, by measurement.
#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <ctime>
#include <fstream>
#include <thread>

#include "base/aligned.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/machine_limits.h"
#include "base/rng.h"

namespace mete {
namespace {

constexpr size_t kLine = 64;
constexpr int64_t kPairRounds = 1 << 20;

double thread_cpu_seconds() {
  timespec t{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

bool pin(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<size_t>(cpu), &set);
  return ::pthread_setaffinity_np(::pthread_self(), sizeof set, &set) == 0;
}

/// Without AVX2 there is no peak loop: a chain-free integer loop does as well.
void integer_loop(int64_t rounds) {
  uint64_t a = 1, b = 2, c = 3, d = 4;
  for (int64_t i = 0; i < rounds * 8; ++i) {
    a = a * 5 + 1;
    b = b * 5 + 1;
    c = c * 5 + 1;
    d = d * 5 + 1;
    asm volatile("" : "+r"(a), "+r"(b), "+r"(c), "+r"(d));
  }
}

void (*arithmetic())(int64_t) {
  const std::vector<PeakLoop> loops = supported_peak_loops();
  for (const PeakLoop& loop : loops) {
    if (std::strcmp(loop.kind, "f32") == 0) return loop.run;
  }
  return integer_loop;
}

/// CPU seconds of each of `count` runs of the loop on the calling thread.
std::vector<double> loop_seconds(int count) {
  const auto loop = arithmetic();
  std::vector<double> seconds;
  for (int i = 0; i < count; ++i) {
    const double start = thread_cpu_seconds();
    loop(kPairRounds);
    seconds.push_back(thread_cpu_seconds() - start);
  }
  return seconds;
}

int64_t sysfs_bytes(const std::string& path) {
  std::ifstream file(path);
  int64_t value = 0;
  char unit = 0;
  if (!(file >> value)) return 0;
  file >> unit;
  return unit == 'K' ? value << 10 : unit == 'M' ? value << 20 : value;
}

}  // namespace

std::vector<int> allowed_cpus() {
  cpu_set_t set;
  std::vector<int> cpus;
  if (::sched_getaffinity(0, sizeof set, &set) != 0) return cpus;
  for (int i = 0; i < CPU_SETSIZE; ++i) {
    if (CPU_ISSET(static_cast<size_t>(i), &set)) cpus.push_back(i);
  }
  return cpus;
}

double measure_pair_ratio(const std::vector<int>& cpus) {
  METE_CHECK(!cpus.empty());
  double alone = 0;
  std::thread first([&] {
    pin(cpus[0]);
    const std::vector<double> seconds = loop_seconds(7);
    alone = *std::min_element(seconds.begin(), seconds.end());
  });
  first.join();

  const auto count = static_cast<int>(cpus.size());
  std::atomic<int> waiting{count}, measuring{count};
  std::vector<double> medians(cpus.size());
  std::vector<std::thread> threads;
  for (size_t i = 0; i < cpus.size(); ++i) {
    threads.emplace_back([&, i] {
      pin(cpus[i]);
      waiting.fetch_sub(1);
      while (waiting.load() > 0) std::this_thread::yield();
      medians[i] = spread_of(loop_seconds(9)).median;
      measuring.fetch_sub(1);
      while (measuring.load() > 0) arithmetic()(kPairRounds / 64);  // keeps the others company
    });
  }
  for (std::thread& t : threads) t.join();
  double sum = 0;
  for (const double m : medians) sum += m;
  return 2 * alone / (sum / static_cast<double>(count));
}

double measure_load_latency_ns(size_t bytes) {
  const size_t lines = std::max<size_t>(2, bytes / kLine);
  AlignedBuffer buffer(lines * kLine, /*huge=*/true);
  // One cycle through all lines in random order (Sattolo).
  std::vector<uint32_t> order(lines);
  for (size_t i = 0; i < lines; ++i) order[i] = static_cast<uint32_t>(i);
  for (size_t i = lines - 1; i > 0; --i)
    std::swap(order[i], order[static_cast<size_t>(random_bits(1, i, Purpose::kTest) % i)]);
  const auto line = [&](size_t i) { return buffer.data() + kLine * i; };
  for (size_t i = 0; i < lines; ++i) {
    uint8_t* next = line(order[i]);
    std::memcpy(line(i), &next, sizeof next);
  }
  const uint8_t* at = line(0);
  const auto chase = [&](size_t hops) {
    for (size_t i = 0; i < hops; ++i) std::memcpy(static_cast<void*>(&at), at, sizeof(void*));
    asm volatile("" : "+r"(at));
  };
  chase(std::min<size_t>(lines, 1 << 18));
  constexpr size_t kHops = 1 << 17;
  double best = 1e30;
  for (int i = 0; i < 3; ++i) {
    const double start = now_seconds();
    chase(kHops);
    best = std::min(best, now_seconds() - start);
  }
  return best / static_cast<double>(kHops) * 1e9;
}

std::vector<CacheLevel> reported_caches() {
  std::vector<CacheLevel> caches;
  for (int i = 0; i < 16; ++i) {
    const std::string folder = "/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(i) + "/";
    std::ifstream type_file(folder + "type");
    std::string type;
    if (!(type_file >> type)) break;
    if (type == "Instruction") continue;
    const int64_t level = sysfs_bytes(folder + "level"), bytes = sysfs_bytes(folder + "size");
    if (level > 0 && bytes > 0) caches.push_back({static_cast<int>(level), bytes, false});
  }
  return caches;
}

std::vector<LatencyPoint> measure_latency_curve(size_t from, size_t to) {
  std::vector<LatencyPoint> curve;
  for (size_t bytes = from; bytes <= to; bytes *= 2) {
    for (const size_t size : {bytes, bytes + bytes / 2}) {
      if (size <= to) curve.push_back({static_cast<int64_t>(size), measure_load_latency_ns(size)});
    }
  }
  return curve;
}

std::vector<CacheLevel> caches_of(const std::vector<LatencyPoint>& curve) {
  constexpr double kClimb = 2.0, kFlat = 1.15;
  std::vector<CacheLevel> caches;
  if (curve.empty()) return caches;
  double plateau = curve[0].ns;
  bool climbing = false;
  for (size_t i = 1; i < curve.size(); ++i) {
    if (climbing) {
      if (curve[i].ns > kFlat * curve[i - 1].ns) continue;
      climbing = false;
      plateau = curve[i].ns;
    } else if (curve[i].ns > kClimb * plateau) {
      caches.push_back({static_cast<int>(caches.size()) + 1, curve[i - 1].bytes, true});
      climbing = true;
    }
  }
  return caches;
}

}  // namespace mete
