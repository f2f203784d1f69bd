#include "format/direct_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>

#include "base/aligned.h"

namespace mete {
namespace {

class DirectReaderTest : public ::testing::Test {
 protected:
  static constexpr size_t kBytes = 64 * kReadAlign + 1000;

  DirectReaderTest() : path_(::testing::TempDir() + "/mete_reader_" + std::to_string(::getpid())) {
    for (size_t i = 0; i < kBytes; ++i) content_.push_back(static_cast<char>(i * 2654435761u >> 13));
    std::ofstream(path_, std::ios::binary) << content_;
  }
  ~DirectReaderTest() override { std::remove(path_.c_str()); }

  /// Reads the file in pages, several at a time, and compares.
  void read_all(const DirectFiles& files, const ReaderConfig& config) {
    auto reader = make_reader(files, config);
    ASSERT_TRUE(reader) << reader.error().message();
    const size_t pages = kBytes / kReadAlign + 1;
    AlignedBuffer buffer(pages * kReadAlign);
    size_t next = 0, ended = 0, bytes = 0;
    while (ended < pages) {
      for (; next < pages && next - ended < static_cast<size_t>((*reader)->depth()); ++next) {
        (*reader)->submit({0, next * kReadAlign, kReadAlign, buffer.data() + next * kReadAlign, next});
      }
      ReadDone done[3];
      const size_t n = (*reader)->collect(done, true);
      ASSERT_GT(n, 0u);
      for (size_t i = 0; i < n; ++i) {
        ASSERT_GE(done[i].result, 0);
        bytes += static_cast<size_t>(done[i].result);
      }
      ended += n;
    }
    EXPECT_EQ(bytes, kBytes);
    EXPECT_EQ(std::memcmp(buffer.data(), content_.data(), kBytes), 0);
  }

  std::string path_, content_;
};

TEST_F(DirectReaderTest, EveryWayReadsTheSame) {
  for (const bool direct : {true, false}) {
    DirectFiles files;
    ASSERT_TRUE(files.open({path_}, direct));
    for (const ReadWay way : {ReadWay::kAuto, ReadWay::kThreads}) {
      for (const int depth : {1, 2, 8, 64}) {
        for (const int threads : {1, 2, 8}) read_all(files, {way, direct, depth, threads});
      }
    }
  }
}

TEST_F(DirectReaderTest, AFailedReadIsAResult) {
  DirectFiles files;
  ASSERT_TRUE(files.open({path_}, true));
  for (const ReadWay way : {ReadWay::kAuto, ReadWay::kThreads}) {
    auto reader = make_reader(files, {way, true, 4, 2});
    ASSERT_TRUE(reader);
    (*reader)->submit({0, 0, kReadAlign, nullptr, 77});
    ReadDone done[2];
    ASSERT_EQ((*reader)->collect(done, true), 1u);
    EXPECT_EQ(done[0].tag, 77u);
    EXPECT_EQ(done[0].result, -EFAULT);
  }
}

TEST_F(DirectReaderTest, SaysHowItReads) {
  DirectFiles files;
  ASSERT_TRUE(files.open({path_}, false));
  EXPECT_EQ((*make_reader(files, {ReadWay::kThreads, false, 4, 2}))->how(), "2 threads, buffered");
  EXPECT_THAT((*make_reader(files, {ReadWay::kThreads, true, 4, 1}))->how(),
              ::testing::HasSubstr("1 thread, buffered (the file system refuses direct reads)"));
}

TEST_F(DirectReaderTest, AMissingFileIsNamed) {
  DirectFiles files;
  const Status opened = files.open({path_ + ".none"}, true);
  ASSERT_FALSE(opened);
  EXPECT_THAT(opened.error().message(), ::testing::HasSubstr(path_ + ".none"));
}

}  // namespace
}  // namespace mete
