#include "base/thread_pool.h"

#include <gtest/gtest.h>

#include <vector>

namespace mete {
namespace {

TEST(ThreadPool, ParallelForCoversEveryIndexOnce) {
  for (int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    for (int64_t n : {0, 1, 2, 7, 64, 1000}) {
      std::vector<std::atomic<int>> count(static_cast<size_t>(n));
      pool.parallel_for(n, 3, [&](int64_t begin, int64_t end, int worker) {
        EXPECT_LT(worker, threads);
        for (int64_t i = begin; i < end; ++i) count[static_cast<size_t>(i)]++;
      });
      for (const auto& c : count) EXPECT_EQ(c.load(), 1);
    }
  }
}

TEST(ThreadPool, RunCallsEachActiveWorkerOnce) {
  ThreadPool pool(3);
  for (int round = 0; round < 1000; ++round) {
    std::atomic<int> calls{0};
    pool.run([&](int) { calls++; });
    ASSERT_EQ(calls.load(), 3);
    pool.run([&](int worker) { ASSERT_LT(worker, 2); }, 2);
  }
}

}  // namespace
}  // namespace mete
