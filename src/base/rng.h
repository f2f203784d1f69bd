// Counter-based randomness: a pure function of (seed, position, purpose), never a shared generator.
#pragma once

#include <cstdint>

namespace mete {

/// What a random number is for; part of the counter, so that two uses never share a number.
enum class Purpose : uint32_t {
  kSample = 1,
  kXtc = 2,
  kMirostat = 3,
  kEviction = 4,
  kEval = 10,
  kTrain = 20,
  kTest = 1000
};

/// 64 mixed bits of (seed, position, purpose): two rounds of the SplitMix64 finaliser over a
/// Weyl-sequence combination (Steele, Lea, Flood 2014).
inline uint64_t random_bits(uint64_t seed, uint64_t position, Purpose purpose) {
  const auto mix = [](uint64_t z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
  };
  const uint64_t inner = mix(seed + 0x9e3779b97f4a7c15ULL * (position + 1));
  return mix(inner + 0x9e3779b97f4a7c15ULL * (static_cast<uint64_t>(purpose) + 1));
}

/// Uniform in [0, 1), 53 bits.
inline double random_unit(uint64_t seed, uint64_t position, Purpose purpose) {
  return static_cast<double>(random_bits(seed, position, purpose) >> 11) * 0x1p-53;
}

}  // namespace mete
