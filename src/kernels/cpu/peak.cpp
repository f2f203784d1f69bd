#include "kernels/cpu/peak_tiers.h"
#include "kernels/cpu/table.h"

namespace mete {
namespace generic {

int64_t int8_peak(int64_t rounds) noexcept {
  constexpr int kAccumulators = 8;
  int32_t acc[kAccumulators] = {};
  int32_t a = 3, b = 5;
  for (int64_t i = 0; i < rounds; ++i) {
    __asm__ volatile("" : "+r"(a), "+r"(b));
    for (int32_t& x : acc) x += a * b;
  }
  for (int32_t& x : acc) __asm__ volatile("" : "+r"(x));
  return rounds * kAccumulators * 2;
}

}  // namespace generic

void fill_peak(CpuTier tier, KernelTable& table) {
  switch (tier) {
    case CpuTier::kGeneric:
      table.int8_peak = generic::int8_peak;
      return;
    case CpuTier::kAvx2:
      table.int8_peak = avx2::int8_peak;
      return;
    case CpuTier::kAvx2Vnni:
      table.int8_peak = avx2_vnni::int8_peak;
      return;
    case CpuTier::kAvx512:
      table.int8_peak = avx512::int8_peak;
      return;
    case CpuTier::kAvx512Vnni:
    case CpuTier::kAvx512Bf16:
      table.int8_peak = avx512_vnni::int8_peak;
      return;
  }
}

}  // namespace mete
