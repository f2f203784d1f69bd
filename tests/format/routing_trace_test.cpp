#include "format/routing_trace.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <iterator>

namespace mete {
namespace {

using ::testing::HasSubstr;

std::vector<uint8_t> sample() {
  const std::string path = ::testing::TempDir() + "/mete_trace_" + std::to_string(::getpid());
  RoutingTraceWriter writer(path, 2, 8, 2, 4096);
  const int32_t ids[] = {3, 1, 7, 0};
  const float weights[] = {0.75f, 0.25f, 0.5f, 0.5f};
  writer.sequence();
  writer.visit(0, 2, 2, ids, weights);
  const RoutingTrace::Served served[] = {{3, true, -1}, {1, false, 0}};
  writer.served(0, served);
  const RoutingTrace::Hint hints[] = {{6, 2}};
  writer.hint(1, hints);
  writer.close();
  std::ifstream file(path, std::ios::binary);
  std::vector<uint8_t> bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  std::remove(path.c_str());
  return bytes;
}

TEST(RoutingTrace, ReadsBackWhatWasWritten) {
  const auto trace = RoutingTrace::parse(sample());
  ASSERT_TRUE(trace) << trace.error().message();
  EXPECT_EQ(trace->layers, 2);
  EXPECT_EQ(trace->experts, 8);
  EXPECT_EQ(trace->used, 2);
  EXPECT_EQ(trace->expert_bytes, 4096);
  ASSERT_EQ(trace->records.size(), 4u);
  EXPECT_EQ(trace->ids, (std::vector<uint16_t>{3, 1, 7, 0}));
  EXPECT_EQ(trace->weights, (std::vector<float>{0.75f, 0.25f, 0.5f, 0.5f}));
  EXPECT_EQ(trace->served[1].after, 0);
  EXPECT_TRUE(trace->served[0].hit);
  EXPECT_EQ(trace->hints[0].expert, 6);
  EXPECT_EQ(trace->hints[0].rows, 2);
}

TEST(RoutingTrace, EveryCutOffIsAnErrorOrAShorterTrace) {
  const std::vector<uint8_t> bytes = sample();
  int shorter = 0;
  for (size_t n = 0; n < bytes.size(); ++n) shorter += RoutingTrace::parse({bytes.data(), n}) ? 1 : 0;
  EXPECT_EQ(shorter, 4);  // the head alone, and behind each record but the last
}

TEST(RoutingTrace, RefusesWhatCannotBe) {
  const std::vector<uint8_t> good = sample();
  const auto refused = [&good](size_t at, uint32_t value, const char* why) {
    std::vector<uint8_t> bytes = good;
    std::memcpy(bytes.data() + at, &value, 4);
    const auto trace = RoutingTrace::parse(bytes);
    ASSERT_FALSE(trace) << why;
    EXPECT_THAT(trace.error().message(), HasSubstr(why));
  };
  refused(0, 0, "not a routing trace");
  refused(8, 9, "version is 9");
  refused(12, 0, "not possible");
  refused(20, 9, "not possible");
  refused(32, 77, "record 0: kind 77");
  refused(40, 2, "record 1: layer 2 of 2");
  refused(44, 0xffffffffu, "4294967295 entries");
  refused(48, 9, "expert 9 of 8");
}

}  // namespace
}  // namespace mete
