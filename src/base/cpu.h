// CPU tiers: which instruction sets a kernel may use. Compiled without ISA flags.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace mete {

/// Ascending preference. Every tier gives the same bits; they differ in speed only.
enum class CpuTier { kGeneric, kAvx2, kAvx2Vnni, kAvx512, kAvx512Vnni, kAvx512Bf16 };
inline constexpr int kCpuTierCount = 6;

const char* name(CpuTier tier);
std::optional<CpuTier> parse_cpu_tier(std::string_view text);

/// What a tier needs, for `--print-cpu`.
const char* required_features(CpuTier tier);

/// True if the CPU has the tier's instructions and the operating system saves their registers (XCR0).
bool supported(CpuTier tier);

std::vector<CpuTier> supported_tiers();

/// The tier to run: METE_CPU_TIER if set (unknown or unsupported: throws Error(kUsage) that lists the
/// tiers), else the best supported one.
CpuTier choose_cpu_tier();

std::string cpu_model_name();

/// Hardware threads this process may use: affinity mask and cgroup CPU quota (v1 and v2), at least 1.
int usable_cpus();

}  // namespace mete
