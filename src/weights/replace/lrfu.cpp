// LRFU (Lee et al. 2001): every past use counts 2^(-age / half life), and the victim is the key with the
// lowest sum. A half life of 1 visit orders as LRU, an infinite one as LFU.
#include <cmath>

#include "weights/replace/choose.h"
#include "weights/replace/policies.h"

namespace mete {
namespace {

class Lrfu final : public ReplacePolicy {
 public:
  Lrfu(const PoolShape& shape, double half_life)
      : lambda_(1 / half_life),
        last_(static_cast<size_t>(shape.keys()), 0),
        sum_(static_cast<size_t>(shape.keys()), 0) {}

  void use(std::span<const int32_t> keys) noexcept override {
    ++now_;
    for (const int32_t key : keys) {
      const auto i = static_cast<size_t>(key);
      sum_[i] = 1 + std::exp2(-lambda_ * static_cast<double>(now_ - last_[i])) * sum_[i];
      last_[i] = now_;
    }
  }

  void choose(std::span<const int32_t> candidates, std::span<int32_t> victims) noexcept override {
    // Compared as logarithms: a sum decayed for long would underflow. Never used: -infinity.
    choose_highest(candidates, victims, scratch_, [&](int32_t key) {
      const auto i = static_cast<size_t>(key);
      return lambda_ * static_cast<double>(now_ - last_[i]) - std::log2(sum_[i]);
    });
  }

 private:
  double lambda_;
  int64_t now_ = 0;
  std::vector<int64_t> last_;
  std::vector<double> sum_;  // as of the last use
  std::vector<std::pair<double, int32_t>> scratch_;
};

}  // namespace

std::unique_ptr<ReplacePolicy> make_lrfu(const PoolShape& shape, double half_life) {
  return std::make_unique<Lrfu>(shape, half_life);
}

}  // namespace mete
