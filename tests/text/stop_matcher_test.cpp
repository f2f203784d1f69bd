#include "text/stop_matcher.h"

#include <gtest/gtest.h>

namespace mete {
namespace {

TEST(StopMatcher, HoldsBackOnlyWhatMayBecomeAStop) {
  StopMatcher m({"END", "\n\n"});
  EXPECT_EQ(m.put("abc E"), "abc ");
  EXPECT_EQ(m.put("N"), "");
  EXPECT_EQ(m.put("x"), "ENx");
  EXPECT_EQ(m.put("\n"), "");
  EXPECT_FALSE(m.stopped());
  EXPECT_EQ(m.put("\nrest"), "");
  EXPECT_TRUE(m.stopped());
  EXPECT_EQ(m.put("more"), "");
  EXPECT_EQ(m.finish(), "");
}

TEST(StopMatcher, EarliestStopWinsAndFinishReleasesTheRest) {
  StopMatcher early({"yy", "x"});
  EXPECT_EQ(early.put("a x yy"), "a ");
  EXPECT_TRUE(early.stopped());
  StopMatcher rest({"abc"});
  EXPECT_EQ(rest.put("zab"), "z");
  EXPECT_EQ(rest.finish(), "ab");
  StopMatcher none({""});
  EXPECT_EQ(none.put("anything"), "anything");
}

}  // namespace
}  // namespace mete
