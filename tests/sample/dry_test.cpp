// DRY against a slow definition, and breakers at token borders.
#include "sample/dry.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "base/rng.h"

namespace mete {
namespace {

constexpr int32_t kVocab = 12;

std::vector<float> dry_penalties(const DrySettings& settings, const std::vector<DryBreaker>& breakers,
                                 const std::vector<int32_t>& window) {
  Dry dry(settings, breakers, kVocab);
  Candidates list;
  for (int32_t id = 0; id < kVocab; ++id) list.items.push_back({id, 0.0f, 0.0});
  dry.apply(&list, window);
  std::vector<float> out;
  for (const Candidate& c : list.items) out.push_back(c.logit == 0.0f ? 0.0f : -c.logit);
  return out;
}

/// For every token and earlier occurrence: the longest common suffix with the window's end, cut at the
/// breakers.
std::vector<float> slow_penalties(const DrySettings& settings, const std::vector<DryBreaker>& breakers,
                                  const std::vector<int32_t>& window) {
  const auto n = static_cast<int>(window.size());
  std::vector<float> out(kVocab, 0.0f);
  if (n <= settings.allowed_length) return out;
  int limit = n;
  for (int i = 0; i < n && limit == n; ++i) {
    int longest = -1;
    for (const DryBreaker& b : breakers) {
      const auto tail = static_cast<int>(b.tail.size());
      if (b.head != window[n - 1 - i] || tail > i) continue;
      bool match = true;
      for (int k = 0; k < tail; ++k) match = match && b.tail[k] == window[n - i + k];
      if (match) longest = std::max(longest, tail);
    }
    if (longest >= 0) {
      limit = i - longest;
      break;
    }
  }
  if (limit < settings.allowed_length) return out;
  for (int32_t token = 0; token < kVocab; ++token) {
    int best = -1;
    for (int at = 0; at < n;
         ++at) {  // token stands at `at`; how long a tail of the window ends just before it?
      if (window[at] != token || at == 0) continue;
      int length = 0;
      while (length < at && window[at - 1 - length] == window[n - 1 - length]) ++length;
      length = std::min(length, limit);
      if (length >= settings.allowed_length) best = std::max(best, length);
    }
    bool single = false;
    for (const DryBreaker& b : breakers) single = single || (b.head == token && b.tail.empty());
    if (best < 0 || single) continue;
    out[static_cast<size_t>(token)] =
        static_cast<float>(settings.multiplier * std::pow(settings.base, best - settings.allowed_length));
  }
  return out;
}

TEST(Dry, ExampleOfTheReference) {
  // a b c c b c y a b c: 'c' would extend "a b c" of length 3, 'y' "b c" of length 2, 'b' "c" of length 1.
  const std::vector<int32_t> window = {1, 2, 3, 3, 2, 3, 9, 1, 2, 3};
  const auto penalties = dry_penalties({1.0f, 2.0f, 1}, {}, window);
  EXPECT_EQ(penalties[3], 4.0f);
  EXPECT_EQ(penalties[9], 2.0f);
  EXPECT_EQ(penalties[2], 1.0f);
  EXPECT_EQ(penalties[1], 0.0f);
  const auto allowed2 = dry_penalties({1.0f, 2.0f, 2}, {}, window);
  EXPECT_EQ(allowed2[3], 2.0f);
  EXPECT_EQ(allowed2[9], 1.0f);
  EXPECT_EQ(allowed2[2], 0.0f);
}

TEST(Dry, MatchesSlowDefinitionOnRandomSequences) {
  const std::vector<DryBreaker> breakers = {{0, {}}, {4, {5}}, {4, {6, 7}}, {8, {8}}};
  int compared = 0;
  for (uint64_t seed = 0; seed < 400; ++seed) {
    std::vector<int32_t> window;
    const int length = 1 + static_cast<int>(random_bits(seed, 0, Purpose::kTest) % 60);
    const int alphabet = 2 + static_cast<int>(seed % 9);
    for (int i = 0; i < length; ++i) {
      window.push_back(static_cast<int32_t>(random_bits(seed, static_cast<uint64_t>(i) + 1, Purpose::kTest) %
                                            static_cast<uint64_t>(alphabet)) +
                       (seed % 2 == 0 ? 1 : 0));
    }
    const DrySettings settings{0.8f, 1.75f, static_cast<int32_t>(seed % 4)};
    const std::vector<DryBreaker> used = seed % 3 == 0 ? std::vector<DryBreaker>() : breakers;
    const auto found = dry_penalties(settings, used, window);
    const auto expected = slow_penalties(settings, used, window);
    for (size_t i = 0; i < kVocab; ++i) {
      EXPECT_NEAR(found[i], expected[i], 1e-5f * expected[i]) << "seed " << seed << " token " << i;
      compared += expected[i] > 0 ? 1 : 0;
    }
  }
  EXPECT_GT(compared, 500);
}

TEST(Dry, BreakerLimitsTheRepetition) {
  const std::vector<int32_t> window = {1, 2, 3, 4, 1, 2, 3};
  EXPECT_GT(dry_penalties({1.0f, 2.0f, 2}, {}, window)[4], 0.0f);
  EXPECT_EQ(dry_penalties({1.0f, 2.0f, 2}, {{3, {}}}, window)[4], 0.0f);
  EXPECT_EQ(dry_penalties({1.0f, 2.0f, 2}, {{4, {}}}, window)[4], 0.0f);  // a breaker itself is spared
}

TEST(Dry, LongRepetitionStaysFinite) {
  const std::vector<int32_t> window(3000, 1);
  const float penalty = dry_penalties({1.0f, 3.0f, 2}, {}, window)[1];
  EXPECT_TRUE(std::isfinite(penalty));
  EXPECT_GT(penalty, 1e30f);
}

TEST(Dry, BreakersAreFoundAtTokenBorders) {
  const std::vector<std::string> vocab = {"a", "\n", "x\n", "-", "--", "b-", "->", "c"};
  const auto piece = [&](int32_t id) { return std::string_view(vocab[static_cast<size_t>(id)]); };
  const auto encode = [&](std::string_view text) {  // one byte at a time
    std::vector<int32_t> out;
    for (const char c : text) {
      for (size_t id = 0; id < vocab.size(); ++id) {
        if (vocab[id] == std::string_view(&c, 1)) out.push_back(static_cast<int32_t>(id));
      }
    }
    return out;
  };
  const std::vector<std::string> strings = {"\n", "---"};
  const auto found = find_dry_breakers(strings, static_cast<int32_t>(vocab.size()), piece, encode);
  std::map<int32_t, std::vector<std::vector<int32_t>>> by_head;
  for (const DryBreaker& b : found) by_head[b.head].push_back(b.tail);
  EXPECT_EQ(by_head.at(1), (std::vector<std::vector<int32_t>>{{}}));
  EXPECT_EQ(by_head.at(2), (std::vector<std::vector<int32_t>>{{}}));
  EXPECT_EQ(by_head.at(3), (std::vector<std::vector<int32_t>>{{3, 3}}));
  EXPECT_EQ(by_head.at(4), (std::vector<std::vector<int32_t>>{{3}, {3, 3}}));
  EXPECT_EQ(by_head.at(5), (std::vector<std::vector<int32_t>>{{3, 3}}));
  EXPECT_EQ(by_head.count(6), 0U);
  EXPECT_EQ(by_head.count(0), 0U);
}

}  // namespace
}  // namespace mete
