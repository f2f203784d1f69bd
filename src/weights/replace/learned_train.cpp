// Training of the learned rule: AdamW on the squared error of log2(1 + visits to the next use).
#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/rng.h"
#include "weights/replace/learned_rule.h"

namespace mete {
namespace {

constexpr size_t kH = LearnedNet::kHidden;
constexpr size_t kWeights = sizeof(LearnedNet) / sizeof(float);
constexpr size_t kMaxSamples = 8192;  ///< per layer, about
constexpr size_t kBatch = 128;
constexpr int kEpochs = 30;
constexpr int64_t kFarthest = 1024;  ///< a use further away than this, or none, counts as this

struct Sample {
  float recency, frequency, target;
};

/// What a replacement decision after each visit would see of every expert that the visit did not demand.
std::vector<Sample> make_samples(const LayerVisits& visits, int32_t experts) {
  const auto n = static_cast<int64_t>(visits.size());
  const auto e_count = static_cast<size_t>(experts);
  std::vector<std::vector<int64_t>> uses(e_count);
  for (int64_t t = 0; t < n; ++t) {
    for (const int32_t e : visits[static_cast<size_t>(t)]) uses[static_cast<size_t>(e)].push_back(t);
  }
  const uint64_t total = static_cast<uint64_t>(n) * e_count;
  std::vector<size_t> next(e_count, 0);  // index of the first use after t
  std::vector<Sample> samples;
  int64_t most = 1;
  for (int64_t t = 0; t < n; ++t) {
    for (size_t e = 0; e < e_count; ++e) {
      while (next[e] < uses[e].size() && uses[e][next[e]] <= t) ++next[e];
      most = std::max(most, static_cast<int64_t>(next[e]));
      const bool demanded = next[e] > 0 && uses[e][next[e] - 1] == t;
      if (demanded || next[e] == 0) continue;
      const uint64_t draw = random_bits(0, static_cast<uint64_t>(t) * e_count + e, Purpose::kTrain) % total;
      if (draw >= kMaxSamples) continue;
      const int64_t last = uses[e][next[e] - 1];
      const int64_t distance = next[e] < uses[e].size() ? uses[e][next[e]] - t : kFarthest;
      samples.push_back({1.0f / static_cast<float>(1 + t - last),
                         static_cast<float>(next[e]) / static_cast<float>(most),
                         std::log2(1.0f + static_cast<float>(std::min(distance, kFarthest)))});
    }
  }
  return samples;
}

/// Slope of x * (0.5 + 0.5 x / (1 + |x|)).
float activation_slope(float x) {
  const float a = 1.0f + std::fabs(x);
  return 0.5f + x / a - 0.5f * x * std::fabs(x) / (a * a);
}
float activate(float x) { return x * (0.5f + 0.5f * x / (1.0f + std::fabs(x))); }

/// Adds the gradient of (prediction - target)^2 / 2 to `grad`.
void add_gradient(const LearnedNet& net, const Sample& s, LearnedNet& grad) {
  float z1[kH], h1[kH], z2[kH], d1[kH] = {};
  for (size_t i = 0; i < kH; ++i) {
    z1[i] = net.w1[2 * i] * s.recency + net.w1[2 * i + 1] * s.frequency + net.b1[i];
    h1[i] = activate(z1[i]);
  }
  float out = net.b3;
  for (size_t i = 0; i < kH; ++i) {
    z2[i] = net.b2[i];
    for (size_t j = 0; j < kH; ++j) z2[i] += net.w2[i * kH + j] * h1[j];
    out += net.w3[i] * activate(z2[i]);
  }
  const float d = out - s.target;
  grad.b3 += d;
  for (size_t i = 0; i < kH; ++i) {
    grad.w3[i] += d * activate(z2[i]);
    const float d2 = d * net.w3[i] * activation_slope(z2[i]);
    grad.b2[i] += d2;
    for (size_t j = 0; j < kH; ++j) {
      grad.w2[i * kH + j] += d2 * h1[j];
      d1[j] += d2 * net.w2[i * kH + j];
    }
  }
  for (size_t i = 0; i < kH; ++i) {
    const float d0 = d1[i] * activation_slope(z1[i]);
    grad.w1[2 * i] += d0 * s.recency;
    grad.w1[2 * i + 1] += d0 * s.frequency;
    grad.b1[i] += d0;
  }
}

using Flat = std::vector<float>;
Flat flat(const LearnedNet& net) {
  Flat out(kWeights);
  std::memcpy(out.data(), &net, sizeof net);
  return out;
}

LearnedNet initial_net(uint64_t layer, float mean) {
  Flat w(kWeights);
  for (size_t i = 0; i < kWeights; ++i) {
    w[i] = (static_cast<float>(random_bits(layer + 1, i, Purpose::kTrain) >> 40) * 0x1p-23f - 1.0f) * 0.4f;
  }
  LearnedNet net;
  std::memcpy(static_cast<void*>(&net), w.data(), sizeof net);
  net.b1 = {};
  net.b2 = {};
  net.b3 = mean;
  return net;
}

LearnedNet train(std::span<const Sample> samples, uint64_t layer) {
  constexpr float kRate = 3e-3f, kBeta1 = 0.9f, kBeta2 = 0.999f, kDecay = 1e-4f;
  float mean = 0;
  for (const Sample& s : samples) mean += s.target / static_cast<float>(samples.size());
  LearnedNet net = initial_net(layer, mean);
  Flat m(kWeights, 0), v(kWeights, 0);
  float correction1 = 1, correction2 = 1;
  for (uint64_t epoch = 0; epoch < kEpochs; ++epoch) {
    for (size_t begin = 0; begin < samples.size(); begin += kBatch) {
      const size_t end = std::min(samples.size(), begin + kBatch);
      LearnedNet grad{};
      // A stride coprime to the count shuffles without a generator.
      for (size_t i = begin; i < end; ++i) {
        add_gradient(net, samples[(i * 7919 + epoch * 104729) % samples.size()], grad);
      }
      correction1 *= kBeta1, correction2 *= kBeta2;
      Flat w = flat(net);
      const Flat g = flat(grad);
      for (size_t i = 0; i < kWeights; ++i) {
        const float slope = g[i] / static_cast<float>(end - begin);
        m[i] = kBeta1 * m[i] + (1 - kBeta1) * slope;
        v[i] = kBeta2 * v[i] + (1 - kBeta2) * slope * slope;
        const float step = m[i] / (1 - correction1) / (std::sqrt(v[i] / (1 - correction2)) + 1e-8f);
        w[i] -= kRate * (step + kDecay * w[i]);
      }
      std::memcpy(static_cast<void*>(&net), w.data(), sizeof net);
    }
  }
  return net;
}

}  // namespace

LearnedRule train_learned_rule(std::span<const LayerVisits> layers, int32_t experts) {
  std::vector<LearnedNet> nets;
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    nets.push_back(train(make_samples(layers[layer], experts), layer));
  }
  return LearnedRule(std::move(nets));
}

}  // namespace mete
