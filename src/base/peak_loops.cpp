#include "base/peak_loops.h"

#include <immintrin.h>

// Functions for one instruction set carry a target attribute: this file has no ISA flags, and nothing inline
// from the standard library is used inside them.
#define METE_TARGET(features) __attribute__((target(features)))

namespace mete {
namespace {

// Latency 4 at two per cycle needs 8 accumulators; 14 and two operands fill the 16 ymm registers.
constexpr int kZmm = 16;
constexpr int kYmm = 14;

// Keeps a register value alive and opaque, so that the loop around it is not simplified.
#define METE_OPAQUE(x) asm volatile("" : "+x"(x))
#define METE_OPAQUE_512(x) asm volatile("" : "+v"(x))

METE_TARGET("avx2") void int8_madd_ymm(int64_t rounds) {
  __m256i a = _mm256_set1_epi8(3), b = _mm256_set1_epi8(1), ones = _mm256_set1_epi16(1), sum[8];
  for (auto& s : sum) s = _mm256_setzero_si256();
  for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 8
    for (auto& s : sum) {
      METE_OPAQUE(a);
      s = _mm256_add_epi32(s, _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), ones));
    }
  }
  for (auto& s : sum) METE_OPAQUE(s);
}

METE_TARGET("avx2,avxvnni") void int8_vnni_ymm(int64_t rounds) {
  __m256i a = _mm256_set1_epi8(3), b = _mm256_set1_epi8(1), sum[kYmm];
  for (auto& s : sum) s = _mm256_setzero_si256();
  for (int64_t i = 0; i < rounds; ++i) {
    METE_OPAQUE(a);
#pragma GCC unroll 16
    for (auto& s : sum) s = _mm256_dpbusd_avx_epi32(s, a, b);
  }
  for (auto& s : sum) METE_OPAQUE(s);
}

METE_TARGET("avx512f,avx512bw") void int8_madd_zmm(int64_t rounds) {
  __m512i a = _mm512_set1_epi8(3), b = _mm512_set1_epi8(1), ones = _mm512_set1_epi16(1), sum[8];
  for (auto& s : sum) s = _mm512_setzero_si512();
  for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 8
    for (auto& s : sum) {
      METE_OPAQUE_512(a);
      s = _mm512_add_epi32(s, _mm512_madd_epi16(_mm512_maddubs_epi16(a, b), ones));
    }
  }
  for (auto& s : sum) METE_OPAQUE_512(s);
}

METE_TARGET("avx512f,avx512vnni") void int8_vnni_zmm(int64_t rounds) {
  __m512i a = _mm512_set1_epi8(3), b = _mm512_set1_epi8(1), sum[kZmm];
  for (auto& s : sum) s = _mm512_setzero_si512();
  for (int64_t i = 0; i < rounds; ++i) {
    METE_OPAQUE_512(a);
#pragma GCC unroll 16
    for (auto& s : sum) s = _mm512_dpbusd_epi32(s, a, b);
  }
  for (auto& s : sum) METE_OPAQUE_512(s);
}

METE_TARGET("avx2,fma") void fma_ymm(int64_t rounds) {
  __m256 a = _mm256_set1_ps(0.5f), b = _mm256_set1_ps(1.0f), sum[kYmm];
  for (auto& s : sum) s = _mm256_set1_ps(1.0f);
  for (int64_t i = 0; i < rounds; ++i) {
    METE_OPAQUE(a);
#pragma GCC unroll 16
    for (auto& s : sum) s = _mm256_fmadd_ps(s, a, b);
  }
  for (auto& s : sum) METE_OPAQUE(s);
}

METE_TARGET("avx512f") void fma_zmm(int64_t rounds) {
  __m512 a = _mm512_set1_ps(0.5f), b = _mm512_set1_ps(1.0f), sum[kZmm];
  for (auto& s : sum) s = _mm512_set1_ps(1.0f);
  for (int64_t i = 0; i < rounds; ++i) {
    METE_OPAQUE_512(a);
#pragma GCC unroll 16
    for (auto& s : sum) s = _mm512_fmadd_ps(s, a, b);
  }
  for (auto& s : sum) METE_OPAQUE_512(s);
}

METE_TARGET("avx512f,avx512bf16") void bf16_zmm(int64_t rounds) {
  const __m512 one = _mm512_set1_ps(1.0f);
  __m512bh a = _mm512_cvtne2ps_pbh(one, one), b = a;
  __m512 sum[kZmm];
  for (auto& s : sum) s = _mm512_set1_ps(1.0f);
  for (int64_t i = 0; i < rounds; ++i) {
    METE_OPAQUE_512(a);
#pragma GCC unroll 16
    for (auto& s : sum) s = _mm512_dpbf16_ps(s, a, b);
  }
  for (auto& s : sum) METE_OPAQUE_512(s);
}

constexpr PeakLoop kLoops[] = {
    {CpuTier::kAvx2, "int8", "vpmaddubsw ymm", int8_madd_ymm, 2.0 * 32 * 8},
    {CpuTier::kAvx2, "f32", "vfmadd ymm", fma_ymm, 2.0 * 8 * kYmm},
    {CpuTier::kAvx2Vnni, "int8", "vpdpbusd ymm", int8_vnni_ymm, 2.0 * 32 * kYmm},
    {CpuTier::kAvx512, "int8", "vpmaddubsw zmm", int8_madd_zmm, 2.0 * 64 * 8},
    {CpuTier::kAvx512, "f32", "vfmadd zmm", fma_zmm, 2.0 * 16 * kZmm},
    {CpuTier::kAvx512Vnni, "int8", "vpdpbusd zmm", int8_vnni_zmm, 2.0 * 64 * kZmm},
    {CpuTier::kAvx512Bf16, "bf16", "vdpbf16ps zmm", bf16_zmm, 2.0 * 32 * kZmm},
};

}  // namespace

std::vector<PeakLoop> supported_peak_loops() {
  std::vector<PeakLoop> loops;
  for (const PeakLoop& loop : kLoops) {
    if (supported(loop.tier)) loops.push_back(loop);
  }
  return loops;
}

}  // namespace mete
