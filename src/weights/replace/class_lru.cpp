// ClassLRU: keys fall into 8 classes by floor(log2) of their LRFU sum (half life 128 tokens, kept across
// evictions); the victim has the greatest age / 2^class. It approximates LRFU.
#include <algorithm>
#include <cmath>

#include "weights/replace/choose.h"
#include "weights/replace/policies.h"

namespace mete {
namespace {

constexpr double kHalfLifeTokens = 128;
constexpr int kClasses = 8;

class ClassLru final : public ReplacePolicy {
 public:
  explicit ClassLru(const PoolShape& shape)
      : lambda_(1 / (kHalfLifeTokens * shape.layers)),
        last_(static_cast<size_t>(shape.keys()), 0),
        sum_(static_cast<size_t>(shape.keys()), 0),
        weight_(static_cast<size_t>(shape.keys()), 1) {}

  void use(std::span<const int32_t> keys) noexcept override {
    ++now_;
    for (const int32_t key : keys) {
      const auto i = static_cast<size_t>(key);
      sum_[i] = 1 + std::exp2(-lambda_ * static_cast<double>(now_ - last_[i])) * sum_[i];
      last_[i] = now_;
      weight_[i] = std::exp2(-std::clamp(std::floor(std::log2(sum_[i])), 0.0, kClasses - 1.0));
    }
  }

  void choose(std::span<const int32_t> candidates, std::span<int32_t> victims) noexcept override {
    choose_highest(candidates, victims, scratch_, [&](int32_t key) {
      const auto i = static_cast<size_t>(key);
      return static_cast<double>(now_ - last_[i]) * weight_[i];
    });
  }

 private:
  double lambda_;  // per visit: every token visits every layer of the pool
  int64_t now_ = 0;
  std::vector<int64_t> last_;
  std::vector<double> sum_;     // as of the last use
  std::vector<double> weight_;  // 2^-class, by the last use
  std::vector<std::pair<double, int32_t>> scratch_;
};

}  // namespace

std::unique_ptr<ReplacePolicy> make_class_lru(const PoolShape& shape) {
  return std::make_unique<ClassLru>(shape);
}

}  // namespace mete
