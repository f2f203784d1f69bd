// DRY ("don't repeat yourself"): lowers tokens that would continue a repetition of the tail of the sequence.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "sample/candidates.h"

namespace mete {

/// A token with which a breaker string begins or that contains it, and the tokens that complete it.
struct DryBreaker {
  int32_t head;
  std::vector<int32_t> tail;  ///< empty: the head alone holds the breaker
};

/// All ways in which the strings occur at token borders, by ascending head, without duplicates. `piece`:
/// bytes of a token. `encode`: token ids of a text. Strings over 40 bytes are cut, tails end after 20 tokens.
std::vector<DryBreaker> find_dry_breakers(
    std::span<const std::string> strings, int32_t vocab,
    const std::function<std::string_view(int32_t)>& piece,
    const std::function<std::vector<int32_t>(std::string_view)>& encode);

struct DrySettings {
  float multiplier = 0.0f;  ///< 0: off
  float base = 1.75f;       ///< < 1: off
  int32_t allowed_length = 2;
};

/// Working memory of apply(), kept from token to token.
class Dry {
 public:
  Dry(const DrySettings& settings, std::vector<DryBreaker> breakers, int32_t vocab);

  /// `window`: the last tokens of the sequence, oldest first. For every token that follows an earlier
  /// occurrence of the last L tokens, L >= allowed_length (the longest counts, and no further back than the
  /// last breaker): logit -= multiplier * base^(L - allowed_length). Single-token breakers are spared. Linear
  /// in the window.
  void apply(Candidates* list, std::span<const int32_t> window);
  /// Room for windows of this many tokens without allocation.
  void reserve(size_t tokens) {
    repeats_.reserve(tokens);
    touched_.reserve(tokens);
  }

 private:
  std::span<const DryBreaker> breakers_of(int32_t head) const;
  int64_t repeat_limit(std::span<const int32_t> window) const;
  void find_repeats(std::span<const int32_t> window);

  DrySettings settings_;
  std::vector<DryBreaker> breakers_;  // sorted by head
  std::vector<int64_t> repeats_;      // Z function of the reversed window
  std::vector<int32_t> longest_;      // per token id: longest repetition that it would continue, -1 if none
  std::vector<int32_t> touched_;      // ids with longest_ >= 0
};

}  // namespace mete
