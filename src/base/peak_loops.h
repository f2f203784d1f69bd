// Loops that do nothing but arithmetic: the peak of each instruction set.
#pragma once

#include <cstdint>
#include <vector>

#include "base/cpu.h"

namespace mete {

struct PeakLoop {
  CpuTier tier;      ///< the lowest tier that has the instruction
  const char* kind;  ///< "int8", "bf16" or "f32": what is multiplied
  const char* unit;  ///< the instruction and register, "vpdpbusd zmm"
  void (*run)(int64_t rounds);
  double ops_per_round;  ///< 2 per multiply-add
};

/// Those this CPU can run, ascending in tier.
std::vector<PeakLoop> supported_peak_loops();

}  // namespace mete
