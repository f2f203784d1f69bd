#include "base/machine_limits.h"

#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <string_view>

#include "base/aligned.h"
#include "base/clock.h"
#include "base/cpu.h"

// Functions for one instruction set carry a target attribute: this file has no ISA flags, and nothing inline
// from the standard library is used inside them.
#define METE_TARGET(features) __attribute__((target(features)))

namespace mete {
namespace {

constexpr int kRepetitions = 7;
constexpr int64_t kComputeRounds = 1 << 20;  // of 8 to 16 instructions: 4 to 16 ms

uint64_t read_sse2(const uint8_t* data, size_t bytes) {
  __m128i sum[8];
  for (auto& s : sum) s = _mm_setzero_si128();
  for (size_t i = 0; i + 128 <= bytes; i += 128) {
    for (int j = 0; j < 8; ++j) {
      sum[j] = _mm_xor_si128(sum[j], _mm_load_si128(reinterpret_cast<const __m128i*>(data + i + 16 * j)));
    }
  }
  for (int j = 1; j < 8; ++j) sum[0] = _mm_xor_si128(sum[0], sum[j]);
  return static_cast<uint64_t>(_mm_cvtsi128_si64(sum[0]));
}

METE_TARGET("avx2") uint64_t read_avx2(const uint8_t* data, size_t bytes) {
  __m256i sum[8];
  for (auto& s : sum) s = _mm256_setzero_si256();
  for (size_t i = 0; i + 256 <= bytes; i += 256) {
    for (int j = 0; j < 8; ++j) {
      sum[j] =
          _mm256_xor_si256(sum[j], _mm256_load_si256(reinterpret_cast<const __m256i*>(data + i + 32 * j)));
    }
  }
  for (int j = 1; j < 8; ++j) sum[0] = _mm256_xor_si256(sum[0], sum[j]);
  return static_cast<uint64_t>(_mm256_extract_epi64(sum[0], 0));
}

/// Seconds of several runs of work(worker) on all active threads.
std::vector<double> timed(ThreadPool& pool, FunctionRef<void(int)> work) {
  std::vector<double> seconds;
  for (int i = 0; i < kRepetitions; ++i) {
    const double start = now_seconds();
    pool.run(work);
    seconds.push_back(now_seconds() - start);
  }
  return seconds;
}

/// work / seconds of each run.
std::vector<double> rates(double work, const std::vector<double>& seconds) {
  std::vector<double> rates;
  for (const double s : seconds) rates.push_back(work / s);
  return rates;
}

double best(const std::vector<double>& rates) { return *std::max_element(rates.begin(), rates.end()); }

std::vector<double> read_rates(ThreadPool& pool, size_t buffer_bytes) {
  const size_t threads = static_cast<size_t>(pool.active());
  const size_t slice = std::max<size_t>(buffer_bytes / threads / 4096, 1) * 4096;
  AlignedBuffer buffer(slice * threads, /*huge=*/true);
  const auto read = supported(CpuTier::kAvx2) ? read_avx2 : read_sse2;
  // Pages never written are all the same zero page, which the cache holds.
  pool.run([&](int worker) {
    uint8_t* begin = buffer.data() + slice * static_cast<size_t>(worker);
    std::fill(begin, begin + slice, static_cast<uint8_t>(worker + 1));
  });
  return rates(static_cast<double>(slice * threads), timed(pool, [&](int worker) {
                 uint64_t sum = read(buffer.data() + slice * static_cast<size_t>(worker), slice);
                 asm volatile("" : "+r"(sum));
               }));
}

std::vector<double> peak_rates(ThreadPool& pool, const PeakLoop& loop) {
  const double work =
      static_cast<double>(pool.active()) * static_cast<double>(kComputeRounds) * loop.ops_per_round;
  return rates(work, timed(pool, [&](int) { loop.run(kComputeRounds); }));
}

}  // namespace

MachineLimits measure_machine_limits(ThreadPool& pool, size_t buffer_bytes) {
  MachineLimits limits;
  limits.threads = pool.active();
  limits.read_bytes_per_s = best(read_rates(pool, buffer_bytes));
  const PeakLoop *int8 = nullptr, *f32 = nullptr;  // of the highest tier
  const std::vector<PeakLoop> loops = supported_peak_loops();
  for (const PeakLoop& loop : loops) {
    // One vpdpbusd does the work of three instructions of the older form, at any width.
    const bool vnni = std::string_view(loop.unit).substr(0, 8) == "vpdpbusd";
    if (vnni || (std::string_view(loop.kind) == "int8" && int8 == nullptr)) int8 = &loop;
    if (std::string_view(loop.kind) == "f32") f32 = &loop;
  }
  if (int8 != nullptr) {
    limits.int8_unit = int8->unit;
    limits.int8_ops_per_s = best(peak_rates(pool, *int8));
  }
  if (f32 != nullptr) limits.f32_ops_per_s = best(peak_rates(pool, *f32));
  return limits;
}

Spread measure_read_rate(ThreadPool& pool, size_t buffer_bytes) {
  return spread_of(read_rates(pool, buffer_bytes));
}

Spread measure_peak(ThreadPool& pool, const PeakLoop& loop) { return spread_of(peak_rates(pool, loop)); }

Spread measure_fork_join(ThreadPool& pool) {
  std::vector<double> seconds;
  for (int i = 0; i < 2000; ++i) {
    const double start = now_seconds();
    pool.run([](int) {});
    seconds.push_back(now_seconds() - start);
  }
  return spread_of(std::move(seconds));
}

}  // namespace mete
