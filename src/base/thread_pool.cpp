#include "base/thread_pool.h"

#include <immintrin.h>
#include <sched.h>

#include <system_error>

#include "base/cpu.h"
#include "base/error.h"

namespace mete {
namespace {

// Spin this many pauses (some tens of microseconds) before blocking: long enough to bridge the gap between
// two parallel sections of a decode step, short enough that more threads than CPUs do not starve each other.
constexpr int kSpins = 2000;
constexpr int kSpinsForSoon = 40000;  // where work was announced
constexpr int kYields = 16;           // instead of kSpins where threads share CPUs

}  // namespace

ThreadPool::ThreadPool(int threads)
    : size_(std::clamp(threads, 1, static_cast<int>(kActiveMask))),
      shared_(std::make_unique<Shared>()),
      limit_(size_),
      oversubscribed_(size_ > usable_cpus()),
      spin_limit_(oversubscribed_ ? kYields : kSpins) {
  threads_.reserve(static_cast<size_t>(size_ - 1));
  try {
    for (int i = 1; i < size_; ++i) threads_.emplace_back([this, i] { worker_loop(i); });
  } catch (const std::system_error&) {
    const size_t started = threads_.size();
    shared_->stop = true;
    shared_->generation.fetch_add(kActiveMask + 1);
    shared_->generation.notify_all();
    for (std::thread& t : threads_) t.join();
    throw run_failure("thread pool: {} threads asked for, the system started {}", size_, started + 1);
  }
}

ThreadPool::~ThreadPool() {
  shared_->stop.store(true);
  shared_->generation.fetch_add(kActiveMask + 1);
  shared_->generation.notify_all();
  for (std::thread& t : threads_) t.join();
}

void ThreadPool::pause() const noexcept {
  // With more threads than CPUs the one that is waited for may be waiting for this CPU.
  if (oversubscribed_) {
    ::sched_yield();
  } else {
    _mm_pause();
  }
}

bool ThreadPool::keep_spinning(int spins) const noexcept {
  if (spins < spin_limit_) return true;
  return !oversubscribed_ && spins < kSpinsForSoon && shared_->soon.load(std::memory_order_relaxed);
}

void ThreadPool::worker_loop(int worker) noexcept {
  uint32_t seen = 0;
  for (;;) {
    int spins = 0;
    while (shared_->generation.load(std::memory_order_acquire) == seen) {
      if (keep_spinning(++spins)) {
        pause();
      } else {
        shared_->sleepers.fetch_add(1);
        shared_->generation.wait(seen);
        shared_->sleepers.fetch_sub(1);
      }
    }
    seen = shared_->generation.load(std::memory_order_acquire);
    if (shared_->stop.load()) return;
    if (worker >= static_cast<int>(seen & kActiveMask)) continue;  // nobody waits for this worker
    (*work_)(worker);
    if (shared_->pending.fetch_sub(1, std::memory_order_acq_rel) == 1) shared_->pending.notify_one();
  }
}

void ThreadPool::run(FunctionRef<void(int)> work, int workers) noexcept {
  const int active = workers <= 0 ? limit_ : std::min(workers, limit_);
  if (active == 1) {
    work(0);
    return;
  }
  work_ = &work;
  shared_->pending.store(active - 1, std::memory_order_relaxed);
  const uint32_t count =
      (shared_->generation.load(std::memory_order_relaxed) & ~kActiveMask) + kActiveMask + 1;
  shared_->generation.store(count | static_cast<uint32_t>(active));
  if (shared_->sleepers.load() > 0) shared_->generation.notify_all();
  work(0);
  int spins = 0;
  for (int left; (left = shared_->pending.load(std::memory_order_acquire)) != 0;) {
    if (++spins < spin_limit_) {
      pause();
    } else {
      shared_->pending.wait(left);
    }
  }
}

void ThreadPool::parallel_for(int64_t n, int64_t grain,
                              FunctionRef<void(int64_t, int64_t, int)> body) noexcept {
  if (n <= 0) return;
  grain = std::max<int64_t>(1, grain);
  const int64_t pieces = (n + grain - 1) / grain;
  if (pieces == 1 || limit_ == 1) {
    body(0, n, 0);
    return;
  }
  std::atomic<int64_t> next{0};
  run(
      [&](int worker) {
        for (;;) {
          const int64_t begin = next.fetch_add(grain, std::memory_order_relaxed);
          if (begin >= n) return;
          body(begin, std::min(n, begin + grain), worker);
        }
      },
      static_cast<int>(std::min<int64_t>(pieces, limit_)));
}

}  // namespace mete
