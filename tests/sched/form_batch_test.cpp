#include "sched/form_batch.h"

#include <gtest/gtest.h>

#include <numeric>

#include "base/rng.h"

namespace mete {
namespace {

using Rows = std::vector<int64_t>;

Rows granted(const std::vector<Demand>& demands, StepLimits limits) {
  Rows rows;
  form_batch(demands, limits, rows);
  return rows;
}
Demand prompt(int64_t pending, int32_t priority = 0) { return {pending, false, priority}; }
const Demand kDecode{1, true, 0};

TEST(FormBatch, DecodesComeFirst) {
  EXPECT_EQ(granted({prompt(100), kDecode, prompt(100), kDecode}, {2, 2}), (Rows{0, 1, 0, 1}));
  EXPECT_EQ(granted({prompt(100), kDecode}, {10, 10}), (Rows{9, 1}));
}

TEST(FormBatch, PromptRowsAreCappedOnlyBesideDecodes) {
  EXPECT_EQ(granted({prompt(100), kDecode}, {50, 8}), (Rows{8, 1}));
  EXPECT_EQ(granted({prompt(100), prompt(3)}, {50, 8}), (Rows{47, 3}));
}

TEST(FormBatch, EqualPromptsRunOneAfterTheOther) {
  EXPECT_EQ(granted({prompt(100), prompt(100), prompt(100)}, {64, 64}), (Rows{64, 0, 0}));
  EXPECT_EQ(granted({prompt(40), prompt(100), prompt(100)}, {64, 64}), (Rows{40, 24, 0}));
}

TEST(FormBatch, ALongPromptSharesHalfWithShortOnes) {
  EXPECT_EQ(granted({prompt(9000), prompt(20), prompt(30), prompt(10)}, {100, 100}), (Rows{50, 20, 20, 10}));
  EXPECT_EQ(granted({prompt(9000), prompt(20)}, {100, 100}), (Rows{80, 20}));
  EXPECT_EQ(granted({prompt(20), prompt(9000)}, {100, 100}), (Rows{20, 80}));
}

TEST(FormBatch, ShortOnesOfWorsePriorityWait) {
  EXPECT_EQ(granted({prompt(9000, 0), prompt(20, 1)}, {100, 100}), (Rows{100, 0}));
}

TEST(FormBatch, DemandsForNothingGetNothing) {
  EXPECT_EQ(granted({prompt(0), prompt(5)}, {100, 100}), (Rows{0, 5}));
  EXPECT_EQ(granted({}, {100, 100}), Rows{});
}

TEST(FormBatch, SteadyShortPromptsNeitherWaitForALongOneNorStarveIt) {
  struct Prompt {
    int64_t left, arrived;
  };
  std::vector<Prompt> prompts = {{9000, 0}};
  int64_t step = 0, longest_wait = 0;
  for (bool long_runs = true; long_runs; ++step) {
    prompts.push_back({50, step});  // 50 of 128 rows a step: less than half
    std::vector<Demand> demands;
    for (const Prompt& p : prompts) demands.push_back(prompt(p.left));
    const Rows rows = granted(demands, {128, 128});
    for (size_t i = 0; i < prompts.size(); ++i) prompts[i].left -= rows[i];
    long_runs = prompts[0].left > 0;
    std::erase_if(prompts, [&](const Prompt& p) {
      if (p.left == 0 && p.arrived > 0) longest_wait = std::max(longest_wait, step - p.arrived);
      return p.left == 0;
    });
  }
  EXPECT_LE(step, 2 * 9000 / 128 + 1);
  EXPECT_EQ(longest_wait, 0);
}

TEST(FormBatch, RandomDemandsAreServedWithinTheBudgetAndNothingIsWasted) {
  for (uint64_t seed = 0; seed < 2000; ++seed) {
    uint64_t at = 0;
    const auto dice = [&](uint64_t sides) {
      return static_cast<int64_t>(random_bits(seed, at++, Purpose::kTest) % sides);
    };
    std::vector<Demand> demands;
    int64_t decodes = 0, prompts = 0;
    for (int64_t i = dice(12); i > 0; --i) {
      demands.push_back(dice(2) == 0 ? kDecode : prompt(dice(300), static_cast<int32_t>(dice(2))));
      (demands.back().decoding ? decodes : prompts) += demands.back().pending;
    }
    const int64_t rows = 12 + dice(200), prompt_rows = 1 + dice(static_cast<uint64_t>(rows));
    const Rows got = granted(demands, {rows, prompt_rows});
    const int64_t room = decodes > 0 ? std::min(rows - decodes, prompt_rows) : rows;
    ASSERT_EQ(std::accumulate(got.begin(), got.end(), int64_t{0}), decodes + std::min(room, prompts));
    int64_t first = -1;
    for (size_t i = 0; i < demands.size(); ++i) {
      ASSERT_GE(got[i], 0);
      ASSERT_LE(got[i], demands[i].pending);
      if (demands[i].decoding) {
        ASSERT_EQ(got[i], 1);
      } else if (first < 0 && demands[i].pending > 0) {
        first = static_cast<int64_t>(i);
        ASSERT_GE(got[i], std::min(demands[i].pending, (room + 1) / 2));  // the queue's first always goes on
      }
    }
  }
}

}  // namespace
}  // namespace mete
