// LFU: the victim is the key with the fewest uses. Counts survive eviction (ghost counters) and are halved
// every 10 * slots uses, so that old habits fade.
#include "weights/replace/choose.h"
#include "weights/replace/policies.h"

namespace mete {
namespace {

class Lfu final : public ReplacePolicy {
 public:
  explicit Lfu(const PoolShape& shape) : slots_(shape.slots), count_(static_cast<size_t>(shape.keys()), 0) {}

  void use(std::span<const int32_t> keys) noexcept override {
    for (const int32_t key : keys) ++count_[static_cast<size_t>(key)];
    uses_ += static_cast<int64_t>(keys.size());
    if (uses_ < 10 * int64_t{slots_}) return;
    uses_ = 0;
    for (double& count : count_) count /= 2;
  }

  void choose(std::span<const int32_t> candidates, std::span<int32_t> victims) noexcept override {
    choose_highest(candidates, victims, scratch_,
                   [&](int32_t key) { return -count_[static_cast<size_t>(key)]; });
  }

  void set_slots(int32_t slots) noexcept override { slots_ = slots; }

 private:
  int32_t slots_;
  int64_t uses_ = 0;  // since the last halving
  std::vector<double> count_;
  std::vector<std::pair<double, int32_t>> scratch_;
};

}  // namespace

std::unique_ptr<ReplacePolicy> make_lfu(const PoolShape& shape) { return std::make_unique<Lfu>(shape); }

}  // namespace mete
