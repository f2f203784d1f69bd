#include "server/http.h"

#include <gtest/gtest.h>

#include "server/metrics.h"

namespace mete {
namespace {

TEST(Http, KeysAreEqualOnlyWhenTheyAre) {
  EXPECT_TRUE(equal_in_constant_time("secret", "secret"));
  for (const char* other : {"", "secre", "secrets", "Secret", "secretsecret"}) {
    EXPECT_FALSE(equal_in_constant_time("secret", other)) << other;
  }
  EXPECT_TRUE(equal_in_constant_time("", ""));
  EXPECT_FALSE(equal_in_constant_time("", "x"));
}

TEST(Metrics, HistogramIsCumulativeAndEndsWithInfinity) {
  static constexpr double kBounds[] = {1, 2};
  Histogram histogram(kBounds);
  for (const double x : {0.5, 1.0, 1.5, 99.0}) histogram.observe(x);
  std::string text;
  histogram.write(text, "h", "a=\"b\"");
  EXPECT_EQ(text,
            "h_bucket{a=\"b\",le=\"1\"} 2\nh_bucket{a=\"b\",le=\"2\"} 3\nh_bucket{a=\"b\",le=\"+Inf\"} 4\n"
            "h_sum{a=\"b\"} 102\nh_count{a=\"b\"} 4\n");
}

TEST(Metrics, PageHasWhatTheGatewayExtensionReads) {
  Metrics metrics;
  MetricsInput input;
  input.model = "a\"b\\c\nd";
  input.stats.running = 3;
  input.stats.queued = 2;
  input.stats.kv_slots_total = 64;
  input.stats.kv_slots_used = 16;
  input.stats.page_slots = 32;
  input.stats.pages = 2;
  const std::string page = metrics.page(input, false);
  const std::string labels = "{model_name=\"a\\\"b\\\\c d\",engine=\"0\"";
  for (const char* line :
       {"vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"}) {
    EXPECT_NE(page.find(line + labels + "}"), std::string::npos) << line;
  }
  EXPECT_NE(page.find("vllm:kv_cache_usage_perc" + labels + "} 0.25\n"), std::string::npos);
  EXPECT_NE(page.find("vllm:cache_config_info" + labels + ",block_size=\"32\",num_gpu_blocks=\"2\"} 1\n"),
            std::string::npos);
  EXPECT_EQ(page.find("llamacpp:"), std::string::npos);
  EXPECT_NE(metrics.page(input, true).find("llamacpp:requests_processing"), std::string::npos);
}

}  // namespace
}  // namespace mete
