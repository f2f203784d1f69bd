#include "request/sampling.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace mete {
namespace {

TEST(SamplingParams, DefaultsAreValid) { EXPECT_TRUE(SamplingParams{}.validate(10)); }

TEST(SamplingParams, EachBadFieldIsNamed) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const auto message = [](auto change) {
    SamplingParams p;
    change(p);
    const Status status = p.validate(10);
    return status ? std::string("valid") : status.error().message();
  };
  EXPECT_EQ(message([](auto& p) { p.top_p = 1.5f; }), "top_p: found 1.5, expected 0 to 1");
  EXPECT_EQ(message([&](auto& p) { p.min_p = nan; }), "min_p: found nan, expected 0 to 1");
  EXPECT_EQ(message([](auto& p) { p.temperature = INFINITY; }),
            "temperature: found inf, expected a finite number");
  EXPECT_EQ(message([](auto& p) { p.repeat_penalty = 0; }),
            "repeat_penalty: found 0, expected a finite number above 0");
  EXPECT_EQ(message([](auto& p) { p.mirostat = 3; }), "mirostat: found 3, expected 0, 1 or 2");
  EXPECT_EQ(message([](auto& p) {
              p.logit_bias = {{10, 0.0f}};
            }),
            "logit_bias: found token id 10, expected 0 to 9");
}

}  // namespace
}  // namespace mete
