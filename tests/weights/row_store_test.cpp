// The row store gives the bits of the table in memory, whatever the type, the batches, the cache, the way of
// reading and the faults of the drive.
#include "weights/row_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <fstream>
#include <set>

#include "base/rng.h"
#include "testing/bad_drive.h"
#include "testing/gguf_writer.h"
#include "weights/dense.h"

namespace mete {
namespace {

using testing::BadDrive;
using testing::GgufWriter;
using ::testing::HasSubstr;

constexpr int64_t kRows = 3000, kCols = 512;

class RowStoreTest : public ::testing::Test {
 protected:
  RowStoreTest()
      : path(::testing::TempDir() + "/mete_rows_" +
             ::testing::UnitTest::GetInstance()->current_test_info()->name() + std::to_string(::getpid())) {
    make_file(DType::kQ4_0);
  }
  ~RowStoreTest() override { std::remove(path.c_str()); }

  /// A table of random bytes behind another tensor, so that its rows begin anywhere in a page.
  void make_file(DType type) {
    std::vector<uint8_t> raw(row_bytes(type, kCols) * kRows);
    for (size_t i = 0; i < raw.size(); ++i) raw[i] = static_cast<uint8_t>(random_bits(3, i, Purpose::kTest));
    GgufWriter writer;
    writer.set("general.architecture", "test");
    writer.tensor("other", DType::kF32, {8}, std::vector<uint8_t>(32));
    writer.tensor("table", type, {kCols, kRows}, raw);
    writer.save(path);
    file = std::make_unique<GgufFile>(GgufFile::open(path).value());
    weights = std::make_unique<DenseWeights>(*file);
    weights->matrix("table", kRows, kCols, &memory);
    weights->load(ctx, 0, {});
  }

  RowStore make(int64_t max_rows = 512) { return RowStore(*file, *file->find("table"), config, max_rows); }

  std::vector<int32_t> draw(uint64_t count, uint64_t below) {
    std::vector<int32_t> ids(count);
    for (int32_t& id : ids) id = static_cast<int32_t>(random_bits(7, drawn++, Purpose::kTest) % below);
    return ids;
  }

  /// Gathers and compares with the table in memory; false if the store gave an Error.
  bool gather(RowStore& store, const std::vector<int32_t>& ids) {
    std::vector<float> got(ids.size() * kCols), want(ids.size() * kCols);
    const Status status = store.gather(ctx, ids, got.data());
    if (!status) {
      message = status.error().message();
      return false;
    }
    embed(ctx, memory, ids, want.data());
    EXPECT_EQ(std::memcmp(got.data(), want.data(), got.size() * sizeof(float)), 0);
    return true;
  }
  void gather_many(RowStore& store) {
    for (const uint64_t count : {1, 2, 7, 1, 64, 512, 3, 200, 1}) {
      EXPECT_TRUE(gather(store, draw(count, kRows))) << message;
      EXPECT_TRUE(gather(store, draw(count, 100))) << message;  // many twice, neighbours, cached ones
    }
    EXPECT_TRUE(gather(store, {0, kRows - 1, 0, kRows - 1})) << message;
  }

  ThreadPool pool{2};
  KernelTable table{};
  Context ctx{pool, table};
  std::string path, message;
  std::unique_ptr<GgufFile> file;
  std::unique_ptr<DenseWeights> weights;
  Linear memory;
  RowStoreConfig config;
  uint64_t drawn = 0;
};

TEST_F(RowStoreTest, GivesTheBitsOfTheTableInMemoryForEveryType) {
  for (const DType type : kAllDTypes) {
    SCOPED_TRACE(name(type));
    make_file(type);
    RowStore store = make();
    gather_many(store);
    EXPECT_GT(store.stats().hits, 0);
  }
}

TEST_F(RowStoreTest, EveryCacheAndWayOfReading) {
  for (const int64_t cache : {1, 10'000, 100'000, 100'000'000}) {
    for (const int depth : {1, 3, 32}) {
      for (const ReadWay way : {ReadWay::kAuto, ReadWay::kThreads}) {
        config.cache_bytes = cache, config.depth = depth, config.way = way, config.direct = depth != 3;
        RowStore store = make();
        gather_many(store);
      }
    }
  }
}

TEST_F(RowStoreTest, AllRowsInOneGatherAreReadOnceInMergedReads) {
  config.cache_bytes = 1;
  RowStore store = make(kRows);
  std::vector<int32_t> ids(kRows);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(kRows - 1 - static_cast<int64_t>(i));
  ASSERT_TRUE(gather(store, ids));
  const RowStoreStats stats = store.stats();
  EXPECT_EQ(stats.misses, kRows);
  EXPECT_LT(stats.disk_bytes, static_cast<int64_t>(file->find("table")->bytes) * 3 / 2);
  EXPECT_LT(stats.reads, kRows / 20);
}

TEST_F(RowStoreTest, RepeatedRowsComeFromTheCacheAndTheOldestGivesWay) {
  RowStore store = make();
  ASSERT_TRUE(gather(store, {5, 9, 5}));
  EXPECT_EQ(store.stats().misses, 2);
  const int64_t bytes = store.stats().disk_bytes;
  ASSERT_TRUE(gather(store, {9, 5, 9}));
  EXPECT_EQ(store.stats().hits, 2);
  EXPECT_EQ(store.stats().disk_bytes, bytes);

  config.cache_bytes = 1;  // one set of 8 rows
  RowStore small = make();
  ASSERT_EQ(small.cached_rows(), 8);
  for (int32_t id = 0; id < 8; ++id) ASSERT_TRUE(gather(small, {id}));
  ASSERT_TRUE(gather(small, {0}));  // 1 is the oldest now
  ASSERT_TRUE(gather(small, {8}));
  EXPECT_EQ(small.stats().hits, 1);
  ASSERT_TRUE(gather(small, {0, 2, 3, 4, 5, 6, 7, 8}));
  EXPECT_EQ(small.stats().hits, 9);
  ASSERT_TRUE(gather(small, {1}));
  EXPECT_EQ(small.stats().hits, 9);
}

TEST_F(RowStoreTest, FaultsThatAreRetriedAndADriveThatComesBack) {
  config.retries = 20;  // every third read is bad: four bad ones for the same row do occur
  for (const bool cut : {false, true}) {
    for (const int64_t cache : {1, 0}) {
      bool gone = false;
      config.cache_bytes = cache;
      config.wrap_reader = [&](auto reader) {
        return std::make_unique<BadDrive>(std::move(reader), 3, cut, &gone);
      };
      RowStore store = make();
      gather_many(store);
      EXPECT_GT(store.stats().retries, 0);
      gone = true;
      EXPECT_FALSE(gather(store, draw(500, kRows)));
      EXPECT_THAT(message, HasSubstr(path + ": cannot read row"));
      EXPECT_THAT(message, HasSubstr("of tensor \"table\": Input/output error (21 attempts)"));
      gone = false;
      gather_many(store);  // nothing that failed is in the cache
      EXPECT_TRUE(gather(store, draw(500, kRows)));
    }
  }
}

TEST_F(RowStoreTest, SeesThatTheFileChanged) {
  const RowStore store = make();
  EXPECT_TRUE(store.check_files());
  std::ofstream(path, std::ios::app) << "more";
  const Status changed = store.check_files();
  ASSERT_FALSE(changed);
  EXPECT_THAT(changed.error().message(), HasSubstr(path));
  EXPECT_THROW(make(), Error);
}

TEST_F(RowStoreTest, TakesTheMemoryThatItSays) {
  for (const int64_t cache : {0, 1, 1 << 20, 100 << 20}) {
    config.cache_bytes = cache;
    RowStore store = make();
    for (int i = 0; i < 40; ++i) gather(store, draw(500, kRows));
    EXPECT_LE(store.resident(), row_store_bytes(*file->find("table"), config, 512));
    EXPECT_GT(store.resident(), 0);
  }
}

}  // namespace
}  // namespace mete
