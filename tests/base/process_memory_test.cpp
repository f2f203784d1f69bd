#include "base/process_memory.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>

#include "base/aligned.h"

namespace mete {
namespace {

TEST(ProcessMemory, ResidentBytesAreThoseThatWereTouched) {
  AlignedBuffer buffer(64 << 12);
  EXPECT_EQ(buffer.resident(), 0);
  for (const int page : {0, 7, 63}) buffer.data()[page << 12] = 1;
  EXPECT_EQ(buffer.resident(), 3 << 12);
  EXPECT_EQ(AlignedBuffer().resident(), 0);
}

TEST(ProcessMemory, GrowsByWhatIsTouched) {
  const int64_t before = read_process_memory().rss;
  AlignedBuffer buffer(size_t{64} << 20);
  std::memset(buffer.data(), 1, buffer.bytes());
  const ProcessMemory now = read_process_memory();
  EXPECT_GE(now.rss - before, int64_t{63} << 20);  // the kernel counts in batches
  EXPECT_GE(now.peak_rss, now.rss - (1 << 20));
  EXPECT_GT(now.page_tables, 0);
  EXPECT_GE(now.threads, 1);
  EXPECT_GT(mapped_file_bytes(), 1 << 20);
  EXPECT_GE(mapped_file_bytes(), now.file);
}

TEST(ProcessMemory, FileCacheCountsWrittenPages) {
  char path[] = "/tmp/mete_cache_XXXXXX";
  const int fd = ::mkstemp(path);
  ASSERT_GE(fd, 0);
  EXPECT_EQ(file_cache_bytes(path), 0);
  const std::string data(5 * 4096 + 1, 'x');
  ASSERT_EQ(::write(fd, data.data(), data.size()), static_cast<ssize_t>(data.size()));
  EXPECT_EQ(file_cache_bytes(path), 6 * 4096);
  ::close(fd);
  ::unlink(path);
  EXPECT_EQ(file_cache_bytes(path), -1);
}

}  // namespace
}  // namespace mete
