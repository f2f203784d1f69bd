// How often a layer demanded what was guessed for it, by the guess's place in the list: guesses that seldom
// come true are not worth a read (cards: speculative-expert-prefetch). A function of the guesses and demands
// alone, so that replay decides as the live store did.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace mete {

class GuessRecord {
 public:
  GuessRecord(int32_t layers, double threshold)
      : threshold_(threshold), counts_(static_cast<size_t>(layers) * kPlaces) {}

  /// Of a guess that `rows` rows of a step made, `place`-th best.
  static int32_t place(int32_t place, int32_t rows) {
    return rows > 1 ? 0 : 1 + std::min(place, kPlaces - 2);
  }

  /// Whether guesses of this place are expected to come true often enough.
  bool worth(int32_t layer, int32_t place) const {
    const Count& c = at(layer, place);
    return (c.right + 1) >= threshold_ * (c.all + 2);
  }
  void tell(int32_t layer, int32_t place, bool right) {
    Count& c = counts_[index(layer, place)];
    c.all += 1;
    c.right += right ? 1 : 0;
    if (c.all >= kMemory) c.all /= 2, c.right /= 2;
  }

 private:
  static constexpr int32_t kPlaces = 9;  // several rows; then one row: best, second, .. and all behind
  static constexpr double kMemory = 64;  // guesses after which old ones count half
  struct Count {
    double right = 0, all = 0;
  };
  static size_t index(int32_t layer, int32_t place) {
    return static_cast<size_t>(layer) * kPlaces + static_cast<size_t>(place);
  }
  const Count& at(int32_t layer, int32_t place) const { return counts_[index(layer, place)]; }

  double threshold_;
  std::vector<Count> counts_;
};

}  // namespace mete
