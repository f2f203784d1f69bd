// Counts what the whole test program allocates.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <new>

#include "testing/engine_fixture.h"

namespace {
std::atomic<int64_t> g_allocations{0};
}  // namespace

// A sanitizer has operators of its own, which may not be replaced.
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define METE_SANITIZED 1
#endif
#endif

#ifndef METE_SANITIZED
// Not inlined: the compiler would see free() on what operator new gave and warn.
__attribute__((noinline)) void* operator new(size_t bytes) {
  g_allocations.fetch_add(1, std::memory_order_relaxed);
  if (void* memory = std::malloc(bytes)) return memory;
  throw std::bad_alloc();
}
__attribute__((noinline)) void* operator new(size_t bytes, const std::nothrow_t&) noexcept {
  g_allocations.fetch_add(1, std::memory_order_relaxed);
  return std::malloc(bytes);
}
__attribute__((noinline)) void operator delete(void* memory) noexcept { std::free(memory); }
__attribute__((noinline)) void operator delete(void* memory, size_t) noexcept { std::free(memory); }
__attribute__((noinline)) void operator delete(void* memory, const std::nothrow_t&) noexcept {
  std::free(memory);
}
#endif

namespace mete {
namespace {

using testing::EngineTest;

TEST_F(EngineTest, AWarmStepAllocatesNothing) {
#ifdef METE_SANITIZED
  GTEST_SKIP() << "allocations are the sanitizer's";
#endif
  config_.context = 256;
  config_.kv_tokens = 600;
  config_.page_slots = 16;
  load();
  Engine engine(*runtime_);
  const auto round = [&](bool check) {
    std::vector<SeqId> ids;
    for (int i = 0; i < 8; ++i) {
      ids.push_back(engine.submit(request(std::vector<int32_t>(30, i), 90, 0.8f)).value());
      engine.step();  // admits it
    }
    int64_t steps = 0;
    while (!engine.idle()) {
      const int64_t before = g_allocations, preempted = engine.stats().preemptions,
                    waiting = engine.stats().queued;
      const std::vector<TokenEvent>& events = engine.step();
      const bool steady = std::none_of(events.begin(), events.end(),
                                       [](const TokenEvent& e) { return e.reason != FinishReason::kNone; });
      if (!steady || engine.stats().preemptions != preempted || engine.stats().queued != waiting) continue;
      ++steps;
      if (check) {
        EXPECT_EQ(g_allocations - before, 0) << "step " << steps;
      }
    }
    for (const SeqId id : ids) engine.release(id);
    return steps;
  };
  round(false);
  EXPECT_GT(round(true), 50);
}

}  // namespace
}  // namespace mete
