// LRU: the victim is the key whose last use lies furthest back.
#include "weights/replace/choose.h"
#include "weights/replace/policies.h"

namespace mete {
namespace {

class Lru final : public ReplacePolicy {
 public:
  explicit Lru(const PoolShape& shape) : last_(static_cast<size_t>(shape.keys()), 0) {}

  void use(std::span<const int32_t> keys) noexcept override {
    ++now_;
    for (const int32_t key : keys) last_[static_cast<size_t>(key)] = now_;
  }

  void choose(std::span<const int32_t> candidates, std::span<int32_t> victims) noexcept override {
    choose_highest(candidates, victims, scratch_,
                   [&](int32_t key) { return static_cast<double>(now_ - last_[static_cast<size_t>(key)]); });
  }

 private:
  int64_t now_ = 0;
  std::vector<int64_t> last_;  // visit of the last use, 0: never
  std::vector<std::pair<double, int32_t>> scratch_;
};

}  // namespace

std::unique_ptr<ReplacePolicy> make_lru(const PoolShape& shape) { return std::make_unique<Lru>(shape); }

}  // namespace mete
