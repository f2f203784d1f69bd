#include "base/spread.h"

#include <gtest/gtest.h>

namespace mete {
namespace {

TEST(Spread, MedianAndQuartilesInterpolate) {
  const Spread odd = spread_of({5, 1, 4, 2, 3});
  EXPECT_EQ(odd.median, 3);
  EXPECT_EQ(odd.low, 2);
  EXPECT_EQ(odd.high, 4);
  EXPECT_DOUBLE_EQ(odd.relative(), 1.0 / 3);
  const Spread even = spread_of({4, 1, 3, 2});
  EXPECT_DOUBLE_EQ(even.median, 2.5);
  EXPECT_DOUBLE_EQ(even.low, 1.75);
  EXPECT_DOUBLE_EQ(even.high, 3.25);
  const Spread one = spread_of({7});
  EXPECT_EQ(one.low, 7);
  EXPECT_EQ(one.high, 7);
  EXPECT_EQ(one.relative(), 0);
  EXPECT_EQ(spread_of({}).median, 0);
  EXPECT_EQ(spread_of({}).relative(), 0);
}

}  // namespace
}  // namespace mete
