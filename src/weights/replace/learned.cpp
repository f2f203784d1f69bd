#include <algorithm>
#include <cmath>
#include <cstring>

#include "weights/replace/choose.h"
#include "weights/replace/learned_rule.h"
#include "weights/replace/policies.h"

namespace mete {
namespace {

constexpr char kMagic[8] = {'M', 'E', 'T', 'E', 'R', 'U', 'L', '1'};
constexpr size_t kNetFloats = sizeof(LearnedNet) / sizeof(float);
static_assert(sizeof(LearnedNet) == kNetFloats * sizeof(float));

float activate(float x) { return x * (0.5f + 0.5f * x / (1.0f + std::fabs(x))); }

/// Ages count visits of the key's layer, uses count from the start, as in the paper.
class Learned final : public ReplacePolicy {
 public:
  Learned(const PoolShape& shape, const LearnedRule& rule, int32_t first_layer)
      : shape_(shape),
        rule_(rule),
        first_layer_(first_layer),
        visit_(static_cast<size_t>(shape.layers), 0),
        most_(static_cast<size_t>(shape.layers), 1),
        last_(static_cast<size_t>(shape.keys()), 0),
        count_(static_cast<size_t>(shape.keys()), 0) {}

  void use(std::span<const int32_t> keys) noexcept override {
    if (keys.empty()) return;
    const auto layer = static_cast<size_t>(keys[0] / shape_.experts);
    ++visit_[layer];
    for (const int32_t key : keys) {
      last_[static_cast<size_t>(key)] = visit_[layer];
      const int64_t count = ++count_[static_cast<size_t>(key)];
      most_[layer] = std::max(most_[layer], count);
    }
  }

  void choose(std::span<const int32_t> candidates, std::span<int32_t> victims) noexcept override {
    choose_highest(candidates, victims, scratch_, [&](int32_t key) {
      const auto i = static_cast<size_t>(key), layer = static_cast<size_t>(key / shape_.experts);
      const float recency = 1.0f / static_cast<float>(1 + visit_[layer] - last_[i]);
      const float frequency = static_cast<float>(count_[i]) / static_cast<float>(most_[layer]);
      const float guess = rule_.net(first_layer_ + static_cast<int32_t>(layer)).predict(recency, frequency);
      return std::isfinite(guess) ? static_cast<double>(guess) : 0;  // an order needs numbers
    });
  }

 private:
  PoolShape shape_;
  const LearnedRule& rule_;
  int32_t first_layer_;
  std::vector<int64_t> visit_;         // per layer
  std::vector<int64_t> most_;          // per layer: greatest count
  std::vector<int64_t> last_, count_;  // per key
  std::vector<std::pair<double, int32_t>> scratch_;
};

}  // namespace

float LearnedNet::predict(float recency, float frequency) const noexcept {
  float h1[kHidden], h2[kHidden];
  for (size_t i = 0; i < kHidden; ++i) {
    h1[i] = activate(w1[2 * i] * recency + w1[2 * i + 1] * frequency + b1[i]);
  }
  float out = b3;
  for (size_t i = 0; i < kHidden; ++i) {
    float sum = b2[i];
    for (size_t j = 0; j < kHidden; ++j) sum += w2[i * kHidden + j] * h1[j];
    h2[i] = activate(sum);
    out += w3[i] * h2[i];
  }
  return out;
}

std::vector<uint8_t> LearnedRule::serialise() const {
  std::vector<uint8_t> out(sizeof kMagic + 4 + nets_.size() * sizeof(LearnedNet));
  const auto layers = static_cast<uint32_t>(nets_.size());
  std::memcpy(out.data(), kMagic, sizeof kMagic);
  std::memcpy(out.data() + sizeof kMagic, &layers, 4);
  if (layers > 0)
    std::memcpy(out.data() + sizeof kMagic + 4, nets_.data(), nets_.size() * sizeof(LearnedNet));
  return out;
}

Result<LearnedRule> LearnedRule::parse(std::span<const uint8_t> bytes) {
  constexpr uint32_t kMaxLayers = 65536;
  const size_t head = sizeof kMagic + 4;
  if (bytes.size() < head || std::memcmp(bytes.data(), kMagic, sizeof kMagic) != 0) {
    return bad_model("learned rule: no METERUL1 at the start; mete replay TRACE --train OUT makes one");
  }
  uint32_t layers;
  std::memcpy(&layers, bytes.data() + sizeof kMagic, 4);
  if (layers > kMaxLayers || bytes.size() != head + layers * sizeof(LearnedNet)) {
    return bad_model("learned rule: {} bytes, expected {} for {} layers", bytes.size(),
                     head + layers * sizeof(LearnedNet), layers);
  }
  std::vector<LearnedNet> nets(layers);
  if (layers > 0) std::memcpy(nets.data(), bytes.data() + head, layers * sizeof(LearnedNet));
  for (size_t i = 0; i < layers * kNetFloats; ++i) {
    float weight;
    std::memcpy(&weight, bytes.data() + head + i * sizeof(float), sizeof weight);
    if (!std::isfinite(weight)) return bad_model("learned rule: weight {} is not finite", i);
  }
  return LearnedRule(std::move(nets));
}

std::unique_ptr<ReplacePolicy> make_learned(const PoolShape& shape, const LearnedRule& rule,
                                            int32_t first_layer) {
  METE_CHECK(first_layer + shape.layers <= rule.layers());
  return std::make_unique<Learned>(shape, rule, first_layer);
}

}  // namespace mete
