// Who is dominated, and the plots.
#include "eval/frontier.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace mete {
namespace {

using ::testing::HasSubstr;

Price price(const std::string& name, double bytes, double rate, double loss,
            std::vector<Price::Score> scores = {}, double spread = 0) {
  return {name, bytes, rate, spread, loss, std::move(scores), -1};
}

std::vector<int> dominated(std::vector<Price> prices) {
  mark_dominated(prices);
  std::vector<int> out;
  for (const Price& p : prices) out.push_back(p.dominated_by);
  return out;
}

using Is = std::vector<int>;

TEST(Frontier, BytesRateLossAndScoresAllCount) {
  EXPECT_EQ(dominated({price("a", 100, 10, 0.1), price("b", 200, 10, 0.2)}), (Is{-1, 0}));
  EXPECT_EQ(dominated({price("a", 100, 10, 0.2), price("b", 200, 10, 0.1)}), (Is{-1, -1}));
  EXPECT_EQ(dominated({price("a", 100, 10, 0.1), price("b", 200, 20, 0.2)}), (Is{-1, -1}));
  EXPECT_EQ(dominated({price("a", 100, 10, 0.1, {{0.5, 0}}), price("b", 200, 10, 0.2, {{0.6, 0}})}),
            (Is{-1, -1}));
  EXPECT_EQ(dominated({price("a", 100, 10, 0.1, {{0.5, 0}}), price("b", 100, 10, 0.1, {{0.6, 0}})}),
            (Is{1, -1}));
  EXPECT_EQ(dominated({price("a", 100, 10, 0.1), price("same", 100, 10, 0.1)}), (Is{-1, -1}));
}

TEST(Frontier, NoiseDecidesNothing) {
  // 10 % faster within a spread of 15 %: equal, so the smaller one wins.
  EXPECT_EQ(dominated({price("a", 100, 10, 0.1, {}, 0.15), price("b", 200, 11, 0.2)}), (Is{-1, 0}));
  EXPECT_EQ(dominated({price("a", 100, 10, 0.1, {}, 0.01), price("b", 200, 11, 0.2)}), (Is{-1, -1}));
  EXPECT_EQ(dominated({price("a", 100, 10, 0.1, {{0.5, 0.1}}), price("b", 200, 10, 0.2, {{0.6, 0.1}})}),
            (Is{-1, 0}));
}

TEST(Frontier, PlotsShowEverySetting) {
  std::vector<Price> prices = {price("small", 1 << 20, 10, 0.5), price("mid <&>", 2 << 20, 10, 0.01),
                               price("bad", 2 << 20, 10, 0.6), price("exact", 3 << 20, 10, 0)};
  mark_dominated(prices);
  const std::string text = plot_text(prices, "KL");
  EXPECT_THAT(text, HasSubstr("KL over MiB, logarithmic"));
  EXPECT_THAT(text, HasSubstr("A small\n"));
  EXPECT_THAT(text, HasSubstr("c bad (dominated by small)"));
  for (const char letter : std::string("ABcD")) {
    EXPECT_THAT(text.substr(0, text.find("+--")), HasSubstr(std::string(1, letter)));
  }
  const std::string svg = plot_svg(prices, "KL");
  EXPECT_EQ(svg.rfind("<svg ", 0), 0u);
  EXPECT_THAT(svg, HasSubstr("mid &lt;&amp;&gt;"));
  for (size_t at = 0, circles = 0;; ++circles) {
    at = svg.find("<circle", at);
    if (at == std::string::npos) {
      EXPECT_EQ(circles, 4u);
      break;
    }
    ++at;
  }
  // One setting, equal values: no division by a range of 0.
  EXPECT_THAT(plot_text({price("one", 5, 1, 0)}, "KL"), HasSubstr("A one"));
  EXPECT_THAT(plot_svg({price("one", 5, 1, 3)}, "KL"), ::testing::Not(HasSubstr("nan")));
}

}  // namespace
}  // namespace mete
