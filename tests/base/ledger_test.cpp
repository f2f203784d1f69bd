#include "base/ledger.h"

#include <gtest/gtest.h>

#include <numeric>
#include <set>
#include <string>

namespace mete {
namespace {

int64_t g_now = 0;  // ns
int64_t fake_clock() { return g_now; }

int64_t ns(const LedgerMark& a, const LedgerMark& b, Part part) {
  return b.ticks[static_cast<size_t>(part)] - a.ticks[static_cast<size_t>(part)];
}

TEST(Ledger, PartsAddUpExactly) {
  g_now = 1000;
  Ledger ledger(fake_clock);
  const LedgerMark begin = ledger.mark();
  g_now += 5;  // idle
  ledger.enter(Part::kMatmul);
  g_now += 7;
  ledger.enter(Part::kAttention);
  g_now += 11;
  ledger.enter(Part::kMatmul);
  g_now += 13;
  const LedgerMark end = ledger.mark();  // in the middle of a part
  EXPECT_EQ(ns(begin, end, Part::kIdle), 5);
  EXPECT_EQ(ns(begin, end, Part::kMatmul), 20);
  EXPECT_EQ(ns(begin, end, Part::kAttention), 11);
  EXPECT_EQ(end.clock_ns - begin.clock_ns, 36);
  const LedgerReport report = between(begin, end);
  EXPECT_EQ(report.switches, 4);  // three parts and the mark
  EXPECT_DOUBLE_EQ(report.wall_s, 36e-9);
  EXPECT_DOUBLE_EQ(std::accumulate(report.seconds.begin(), report.seconds.end(), 0.0), report.wall_s);
  g_now += 2;
  EXPECT_EQ(ns(end, ledger.mark(), Part::kMatmul), 2);
}

TEST(Ledger, ScopesHoldTheirPartAndInnerOnesWin) {
  g_now = 0;
  Ledger ledger(fake_clock);
  ledger.enter(Part::kElementwise);
  {
    const PartScope experts(&ledger, Part::kExperts);
    ledger.enter(Part::kMatmul);  // an op inside: ignored
    g_now += 3;
    {
      const PartScope wait(&ledger, Part::kExpertWait);
      g_now += 4;
    }
    ledger.enter(Part::kMatmul);
    g_now += 5;
  }
  EXPECT_EQ(ledger.current(), Part::kElementwise);
  g_now += 6;
  ledger.enter(Part::kMatmul);
  g_now += 7;
  const LedgerMark end = ledger.mark();
  const LedgerMark zero{};
  EXPECT_EQ(ns(zero, end, Part::kExperts), 8);
  EXPECT_EQ(ns(zero, end, Part::kExpertWait), 4);
  EXPECT_EQ(ns(zero, end, Part::kElementwise), 6);
  EXPECT_EQ(ns(zero, end, Part::kMatmul), 7);
}

TEST(Ledger, BytesBelongToTheCurrentPartAndCountersAddUp) {
  g_now = 0;
  Ledger ledger(fake_clock);
  ledger.enter(Part::kMatmul);
  ledger.read(100);
  ledger.add(Counter::kRows, 3);
  const LedgerMark middle = ledger.mark();
  ledger.read(20);
  {
    const PartScope part(&ledger, Part::kLogits);
    ledger.enter(Part::kMatmul);
    ledger.read(7);
  }
  ledger.add(Counter::kRows, 2);
  const LedgerMark end = ledger.mark();
  LedgerReport sum = between({}, middle);
  EXPECT_EQ(sum.bytes_in(Part::kMatmul), 100);
  sum += between(middle, end);
  EXPECT_EQ(sum.bytes_in(Part::kMatmul), 120);
  EXPECT_EQ(sum.bytes_in(Part::kLogits), 7);
  EXPECT_EQ(sum.bytes_read(), 127);
  EXPECT_EQ(sum.count(Counter::kRows), 5);
}

TEST(Ledger, NoLedgerIsNoWork) {
  const PartScope part(nullptr, Part::kLogits);  // must not crash
}

TEST(Ledger, PartsOfTheMachinesClockAddUpToWallTime) {
  Ledger ledger;
  const LedgerMark begin = ledger.mark();
  volatile double sink = 0;
  for (int i = 0; i < 20000; ++i) {
    ledger.enter(i % 2 == 0 ? Part::kMatmul : Part::kAttention);
    sink = sink + i;
  }
  const LedgerReport report = between(begin, ledger.mark());
  EXPECT_GT(report.wall_s, 0);
  EXPECT_NEAR(std::accumulate(report.seconds.begin(), report.seconds.end(), 0.0), report.wall_s,
              1e-9 * report.wall_s);
  EXPECT_GT(report.seconds_in(Part::kMatmul), 0);
  EXPECT_GT(report.seconds_in(Part::kAttention), 0);
}

TEST(Ledger, EveryPartAndCounterHasItsName) {
  std::set<std::string> names;
  for (size_t i = 0; i < kPartCount; ++i) names.insert(name(static_cast<Part>(i)));
  for (size_t i = 0; i < kCounterCount; ++i) names.insert(name(static_cast<Counter>(i)));
  EXPECT_EQ(names.size(), kPartCount + kCounterCount);
  EXPECT_STREQ(name(Part::kDraft), "draft");
  EXPECT_STREQ(name(Counter::kDraftsAccepted), "drafts_accepted");
}

}  // namespace
}  // namespace mete
