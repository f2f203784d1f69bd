// FlashMoE's rule (arXiv 2601.17063): per layer, a small network guesses from recency and frequency how many
// visits away the next use of an expert is; the victim is the one with the furthest guess. The network
// imitates the offline optimum of a recorded trace. Here it has two hidden layers of 16 (the paper: 128), x *
// sigmoid(x) with the sigmoid as a quotient, and learns log2(1 + visits), whose order is what counts.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"

namespace mete {

/// Weights of one layer's network; row-major [out][in].
struct LearnedNet {
  static constexpr int kHidden = 16;
  std::array<float, kHidden * 2> w1{};
  std::array<float, kHidden> b1{};
  std::array<float, kHidden * kHidden> w2{};
  std::array<float, kHidden> b2{};
  std::array<float, kHidden> w3{};
  float b3 = 0;
  /// log2(1 + visits to the next use). `recency` = 1 / visits since the last use; `frequency` = uses / most
  /// uses.
  float predict(float recency, float frequency) const noexcept;
};

class LearnedRule {
 public:
  LearnedRule() = default;
  explicit LearnedRule(std::vector<LearnedNet> nets) : nets_(std::move(nets)) {}
  int32_t layers() const { return static_cast<int32_t>(nets_.size()); }
  const LearnedNet& net(int32_t layer) const { return nets_[static_cast<size_t>(layer)]; }

  std::vector<uint8_t> serialise() const;
  /// Untrusted bytes: Error(kBadModel) if they are not a rule or not all weights are finite.
  static Result<LearnedRule> parse(std::span<const uint8_t> bytes);

 private:
  std::vector<LearnedNet> nets_;
};

/// Visits of one layer in order, each the distinct experts that a token demanded.
using LayerVisits = std::vector<std::vector<int32_t>>;

/// Trains one network per layer. Deterministic: the same visits give the same bits on one machine.
LearnedRule train_learned_rule(std::span<const LayerVisits> layers, int32_t experts);

}  // namespace mete
