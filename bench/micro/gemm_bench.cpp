// Matmul of the quantised weight types, one thread. Every iteration also runs a loop of the limit that it is
// compared with, so that both see the same machine: `share` is best kernel rate / best limit rate, where the
// limit is int8 products in registers (many tokens) or plain reads of the same panels (one token).
//   bench_micro --benchmark_filter='gemm/Q4_0/avx512_vnni'
#include <benchmark/benchmark.h>
#include <fmt/format.h>
#include <immintrin.h>

#include <algorithm>
#include <chrono>
#include <vector>

#include "base/aligned.h"
#include "base/rng.h"
#include "kernels/cpu/table.h"
#include "quant/activation.h"
#include "quant/pack.h"

namespace mete {
namespace {

constexpr int64_t kPeakRounds = 100000;

/// Operations of kPeakRounds rounds of independent int8 products in registers; 0 if there is no VNNI.
__attribute__((target("avx512f,avx512vnni"))) double peak_zmm() {
  __m512i a = _mm512_set1_epi8(3), sum[16];
  for (auto& s : sum) s = _mm512_setzero_si512();
  for (int64_t i = 0; i < kPeakRounds; ++i) {
    asm volatile("" : "+v"(a));
#pragma GCC unroll 16
    for (auto& s : sum) s = _mm512_dpbusd_epi32(s, a, a);
  }
  for (auto& s : sum) asm volatile("" : "+v"(s));
  return 2.0 * 64 * 16 * static_cast<double>(kPeakRounds);
}

__attribute__((target("avx2,avxvnni"))) double peak_ymm() {
  __m256i a = _mm256_set1_epi8(3), sum[14];
  for (auto& s : sum) s = _mm256_setzero_si256();
  for (int64_t i = 0; i < kPeakRounds; ++i) {
    asm volatile("" : "+x"(a));
#pragma GCC unroll 14
    for (auto& s : sum) s = _mm256_dpbusd_avx_epi32(s, a, a);
  }
  for (auto& s : sum) asm volatile("" : "+x"(s));
  return 2.0 * 32 * 14 * static_cast<double>(kPeakRounds);
}

double peak() {
  if (supported(CpuTier::kAvx512Vnni)) return peak_zmm();
  return supported(CpuTier::kAvx2Vnni) ? peak_ymm() : 0;
}

__attribute__((target("avx2"))) void read_all(const uint8_t* data, size_t bytes) {
  __m256i sum[4] = {};
  for (size_t i = 0; i + 128 <= bytes; i += 128) {
#pragma GCC unroll 4
    for (size_t j = 0; j < 4; ++j) {
      sum[j] = _mm256_xor_si256(sum[j], _mm256_load_si256(reinterpret_cast<const __m256i*>(data + i) + j));
    }
  }
  for (auto& s : sum) asm volatile("" : "+x"(s));
}

template <class F>
double seconds(F&& f) {
  const auto start = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

struct Problem {
  DType type;
  int64_t tokens, rows, cols;
  AlignedBuffer panels, acts, scratch;
  std::vector<float> out;

  Problem(const KernelTable& table, DType weight_type, int64_t m, int64_t n, int64_t k)
      : type(weight_type),
        tokens(m),
        rows(n),
        cols(k),
        panels(panel_bytes(type, k) * static_cast<size_t>(panel_count(n)), true),
        acts(activation_row_bytes(activation_kind(type), k) * static_cast<size_t>(m)),
        scratch(gemm_scratch_bytes(k)),
        out(static_cast<size_t>(m * n)) {
    std::vector<uint8_t> source(row_bytes(type, k) * kPanelRows);
    for (size_t i = 0; i < source.size(); ++i)
      source[i] = static_cast<uint8_t>(random_bits(1, i, Purpose::kTest));
    const size_t block = static_cast<size_t>(info(type).bytes);
    for (size_t i = 0; i < source.size(); i += block) {
      if (info(type).block == 256)
        for (size_t j = i; j < i + block; ++j) source[j] &= 0xbb;  // no float16 is NaN or infinite
      else if (type == DType::kMXFP4)
        source[i] = 120;
      else
        source[i + 1] = 0x2c,
                   source[i + 3] = type == DType::kQ4_1 || type == DType::kQ5_1 ? 0xa8 : source[i + 3];
    }
    for (int64_t p = 0; p < panel_count(n); ++p) {
      pack_panel(type, source.data(), kPanelRows, k,
                 panels.data() + static_cast<size_t>(p) * panel_bytes(type, k));
    }
    std::vector<float> x(static_cast<size_t>(k));
    for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(random_unit(2, i, Purpose::kTest)) - 0.5f;
    for (int64_t t = 0; t < m; ++t)
      quantise(table)(x.data(), k, acts.data() + static_cast<size_t>(t) * stride());
  }
  QuantizeActivationFn quantise(const KernelTable& table) const {
    return activation_kind(type) == ActivationKind::kQ8_K ? table.quantize_q8_k : table.quantize_q8_16;
  }
  size_t stride() const { return activation_row_bytes(activation_kind(type), cols); }
  void run(const KernelTable& table) {
    table.gemm[static_cast<int>(type)](GemmArgs{panels.data(), panel_bytes(type, cols), rows, cols,
                                                acts.data(), stride(), tokens, out.data(), rows, 0,
                                                panel_count(rows), scratch.data()});
  }
};

void bench_gemm(benchmark::State& state, DType type, CpuTier tier, int64_t m, int64_t n, int64_t k) {
  KernelTable table{};
  fill_gemm_q32(tier, table);
  fill_gemm_k(tier, table);
  Problem problem(table, type, m, n, k);
  const double ops = 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
  double kernel = 1e30, limit = 1e30, limit_ops = 0;
  for (auto _ : state) {
    limit = std::min(limit, seconds([&] {
                       if (m > 1)
                         limit_ops = peak();
                       else
                         read_all(problem.panels.data(), problem.panels.bytes());
                     }));
    const double s = seconds([&] { problem.run(table); });
    kernel = std::min(kernel, s);
    state.SetIterationTime(s);
  }
  const double bytes = static_cast<double>(problem.panels.bytes());
  state.counters["GB/s"] = bytes / kernel / 1e9;
  state.counters["GOPS"] = ops / kernel / 1e9;
  state.counters["share"] = m > 1 ? (limit_ops > 0 ? ops / kernel / (limit_ops / limit) : 0) : limit / kernel;
}

/// One token against a matrix far larger than the caches; 512 tokens against typical sizes.
const bool registered = [] {
  for (DType type :
       {DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1, DType::kQ8_0, DType::kIQ4_NL, DType::kMXFP4,
        DType::kQ2_K, DType::kQ3_K, DType::kQ4_K, DType::kQ5_K, DType::kQ6_K, DType::kIQ4_XS}) {
    for (CpuTier tier : supported_tiers()) {
      if (tier == CpuTier::kGeneric || tier == CpuTier::kAvx512Bf16) continue;
      const auto add = [&](int64_t m, int64_t n, int64_t k) {
        const std::string title = fmt::format("gemm/{}/{}/M{}/N{}/K{}", name(type), name(tier), m, n, k);
        benchmark::RegisterBenchmark(title.c_str(), bench_gemm, type, tier, m, n, k)
            ->UseManualTime()
            ->Unit(benchmark::kMillisecond);
      };
      add(1, 131072, 2048);
      for (int64_t k : {576, 1536, 8960})
        if (k % info(type).block == 0) add(512, 1536, k);
    }
  }
  return true;
}();

}  // namespace
}  // namespace mete
