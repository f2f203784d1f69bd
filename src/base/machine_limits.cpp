#include "base/machine_limits.h"

#include <immintrin.h>

#include <algorithm>
#include <chrono>
#include <cstdint>

#include "base/aligned.h"
#include "base/cpu.h"

// Functions for one instruction set carry a target attribute: this file has no ISA flags, and nothing inline
// from the standard library is used inside them.
#define METE_TARGET(features) __attribute__((target(features)))

namespace mete {
namespace {

constexpr int kRepetitions = 7;
constexpr int kAccumulators = 16;            // latency 4 at two per cycle needs 8
constexpr int64_t kComputeRounds = 1 << 20;  // of kAccumulators instructions: 4 to 16 ms

// Keeps a register value alive and opaque, so that the loop around it is not simplified.
#define METE_OPAQUE(x) asm volatile("" : "+x"(x))
#define METE_OPAQUE_512(x) asm volatile("" : "+v"(x))

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

METE_TARGET("avx512f,avx512vnni") void int8_zmm(int64_t rounds) {
  __m512i a = _mm512_set1_epi8(3), b = _mm512_set1_epi8(1), sum[kAccumulators];
  for (auto& s : sum) s = _mm512_setzero_si512();
  for (int64_t i = 0; i < rounds; ++i) {
    METE_OPAQUE_512(a);
#pragma GCC unroll 16
    for (auto& s : sum) s = _mm512_dpbusd_epi32(s, a, b);
  }
  for (auto& s : sum) METE_OPAQUE_512(s);
}

METE_TARGET("avx2,avxvnni") void int8_ymm(int64_t rounds) {
  // 14 accumulators and two operands fill the 16 registers.
  __m256i a = _mm256_set1_epi8(3), b = _mm256_set1_epi8(1), sum[14];
  for (auto& s : sum) s = _mm256_setzero_si256();
  for (int64_t i = 0; i < rounds; ++i) {
    METE_OPAQUE(a);
#pragma GCC unroll 16
    for (auto& s : sum) s = _mm256_dpbusd_avx_epi32(s, a, b);
  }
  for (auto& s : sum) METE_OPAQUE(s);
}

METE_TARGET("avx512f") void fma_zmm(int64_t rounds) {
  __m512 a = _mm512_set1_ps(0.5f), b = _mm512_set1_ps(1.0f), sum[kAccumulators];
  for (auto& s : sum) s = _mm512_set1_ps(1.0f);
  for (int64_t i = 0; i < rounds; ++i) {
    METE_OPAQUE_512(a);
#pragma GCC unroll 16
    for (auto& s : sum) s = _mm512_fmadd_ps(s, a, b);
  }
  for (auto& s : sum) METE_OPAQUE_512(s);
}

METE_TARGET("avx2,fma") void fma_ymm(int64_t rounds) {
  __m256 a = _mm256_set1_ps(0.5f), b = _mm256_set1_ps(1.0f), sum[14];
  for (auto& s : sum) s = _mm256_set1_ps(1.0f);
  for (int64_t i = 0; i < rounds; ++i) {
    METE_OPAQUE(a);
#pragma GCC unroll 16
    for (auto& s : sum) s = _mm256_fmadd_ps(s, a, b);
  }
  for (auto& s : sum) METE_OPAQUE(s);
}

/// Seconds of the fastest of several runs of work(worker) on all threads.
double best_seconds(ThreadPool& pool, FunctionRef<void(int)> work) {
  double best = 1e30;
  for (int i = 0; i < kRepetitions; ++i) {
    const auto start = std::chrono::steady_clock::now();
    pool.run(work);
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

double read_rate(ThreadPool& pool, size_t buffer_bytes) {
  const size_t threads = static_cast<size_t>(pool.size());
  const size_t slice = std::max<size_t>(buffer_bytes / threads / 4096, 1) * 4096;
  AlignedBuffer buffer(slice * threads, /*huge=*/true);
  const auto read = supported(CpuTier::kAvx2) ? read_avx2 : read_sse2;
  // Pages never written are all the same zero page, which the cache holds.
  pool.run([&](int worker) {
    uint8_t* begin = buffer.data() + slice * static_cast<size_t>(worker);
    std::fill(begin, begin + slice, static_cast<uint8_t>(worker + 1));
  });
  const double seconds = best_seconds(pool, [&](int worker) {
    uint64_t sum = read(buffer.data() + slice * static_cast<size_t>(worker), slice);
    asm volatile("" : "+r"(sum));
  });
  return static_cast<double>(slice * threads) / seconds;
}

double compute_rate(ThreadPool& pool, void (*loop)(int64_t), double ops_per_round) {
  const double seconds = best_seconds(pool, [&](int) { loop(kComputeRounds); });
  return static_cast<double>(pool.size()) * static_cast<double>(kComputeRounds) * ops_per_round / seconds;
}

}  // namespace

MachineLimits measure_machine_limits(ThreadPool& pool, size_t buffer_bytes) {
  MachineLimits limits;
  limits.threads = pool.size();
  limits.read_bytes_per_s = read_rate(pool, buffer_bytes);
  if (supported(CpuTier::kAvx512Vnni)) {
    limits.int8_unit = "vpdpbusd zmm";
    limits.int8_ops_per_s = compute_rate(pool, int8_zmm, 2.0 * 64 * kAccumulators);
  } else if (supported(CpuTier::kAvx2Vnni)) {
    limits.int8_unit = "vpdpbusd ymm";
    limits.int8_ops_per_s = compute_rate(pool, int8_ymm, 2.0 * 32 * 14);
  }
  if (supported(CpuTier::kAvx512)) {
    limits.f32_ops_per_s = compute_rate(pool, fma_zmm, 2.0 * 16 * kAccumulators);
  } else if (supported(CpuTier::kAvx2)) {
    limits.f32_ops_per_s = compute_rate(pool, fma_ymm, 2.0 * 8 * 14);
  }
  return limits;
}

}  // namespace mete
