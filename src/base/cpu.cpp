#include "base/cpu.h"

#include <cpuid.h>
#include <sched.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <fstream>

#include "base/cgroup.h"
#include "base/error.h"

namespace mete {
namespace {

struct TierRow {
  CpuTier tier;
  const char* name;
  const char* features;
};
constexpr TierRow kTiers[kCpuTierCount] = {
    {CpuTier::kGeneric, "generic", "x86-64"},
    {CpuTier::kAvx2, "avx2", "AVX2 FMA F16C"},
    {CpuTier::kAvx2Vnni, "avx2_vnni", "AVX2 FMA F16C AVX-VNNI"},
    {CpuTier::kAvx512, "avx512", "AVX2 FMA F16C AVX512F/BW/VL/DQ/CD"},
    {CpuTier::kAvx512Vnni, "avx512_vnni", "AVX2 FMA F16C AVX512F/BW/VL/DQ/CD/VNNI"},
    {CpuTier::kAvx512Bf16, "avx512_bf16", "AVX2 FMA F16C AVX512F/BW/VL/DQ/CD/VNNI/BF16"},
};

struct CpuFeatures {
  bool avx2_fma_f16c = false, avx_vnni = false, avx512 = false, avx512_vnni = false, avx512_bf16 = false;
};

CpuFeatures detect() {
  CpuFeatures f;
  unsigned a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return f;
  const bool osxsave = c & (1u << 27), fma = c & (1u << 12), f16c = c & (1u << 29);
  if (!osxsave) return f;
  uint32_t xcr0, high;
  __asm__("xgetbv" : "=a"(xcr0), "=d"(high) : "c"(0));
  const bool ymm = (xcr0 & 0x6) == 0x6, zmm = (xcr0 & 0xe6) == 0xe6;
  unsigned a7, b7, c7, d7, a71, b71, c71, d71;
  if (!__get_cpuid_count(7, 0, &a7, &b7, &c7, &d7)) return f;
  if (!__get_cpuid_count(7, 1, &a71, &b71, &c71, &d71)) a71 = 0;
  const auto bit = [](unsigned word, int i) { return ((word >> i) & 1u) != 0; };
  f.avx2_fma_f16c = ymm && fma && f16c && bit(b7, 5);
  f.avx_vnni = f.avx2_fma_f16c && bit(a71, 4);
  f.avx512 =
      f.avx2_fma_f16c && zmm && bit(b7, 16) && bit(b7, 17) && bit(b7, 28) && bit(b7, 30) && bit(b7, 31);
  f.avx512_vnni = f.avx512 && bit(c7, 11);
  f.avx512_bf16 = f.avx512_vnni && bit(a71, 5);
  return f;
}

}  // namespace

const char* name(CpuTier tier) { return kTiers[static_cast<int>(tier)].name; }
const char* required_features(CpuTier tier) { return kTiers[static_cast<int>(tier)].features; }

std::optional<CpuTier> parse_cpu_tier(std::string_view text) {
  for (const TierRow& row : kTiers) {
    if (text == row.name) return row.tier;
  }
  return std::nullopt;
}

bool supported(CpuTier tier) {
  static const CpuFeatures f = detect();
  switch (tier) {
    case CpuTier::kGeneric:
      return true;
    case CpuTier::kAvx2:
      return f.avx2_fma_f16c;
    case CpuTier::kAvx2Vnni:
      return f.avx_vnni;
    case CpuTier::kAvx512:
      return f.avx512;
    case CpuTier::kAvx512Vnni:
      return f.avx512_vnni;
    case CpuTier::kAvx512Bf16:
      return f.avx512_bf16;
  }
  return false;
}

std::vector<CpuTier> supported_tiers() {
  std::vector<CpuTier> tiers;
  for (const TierRow& row : kTiers) {
    if (supported(row.tier)) tiers.push_back(row.tier);
  }
  return tiers;
}

CpuTier choose_cpu_tier() {
  const std::vector<CpuTier> tiers = supported_tiers();
  const char* forced = std::getenv("METE_CPU_TIER");
  if (forced == nullptr || *forced == '\0') return tiers.back();
  const std::optional<CpuTier> tier = parse_cpu_tier(forced);
  if (tier && supported(*tier)) return *tier;
  std::string list;
  for (CpuTier t : tiers) list += std::string(list.empty() ? "" : ", ") + name(t);
  throw bad_usage("METE_CPU_TIER: '{}' is {}; this CPU runs: {}", forced,
                  tier ? "not supported here" : "not a tier", list);
}

std::string cpu_model_name() {
  std::ifstream file("/proc/cpuinfo");
  std::string line;
  while (std::getline(file, line)) {
    if (line.rfind("model name", 0) == 0) return line.substr(line.find(':') + 2);
  }
  return "unknown";
}

int usable_cpus() {
  cpu_set_t mask;
  CPU_ZERO(&mask);
  int count = 1;
  if (::sched_getaffinity(0, sizeof mask, &mask) == 0) count = std::max(1, CPU_COUNT(&mask));
  const double quota = cgroup_cpus();
  if (quota > 0) count = std::min(count, std::max(1, static_cast<int>(std::floor(quota))));
  return count;
}

}  // namespace mete
