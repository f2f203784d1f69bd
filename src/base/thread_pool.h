// One pool per engine, passed in Context. Fork-join only: run() returns when every worker is done.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <type_traits>
#include <vector>

namespace mete {

/// A non-owning reference to a callable; valid while the callable lives.
template <typename Signature>
class FunctionRef;
template <typename R, typename... Args>
class FunctionRef<R(Args...)> {
 public:
  template <typename F, typename = std::enable_if_t<!std::is_same_v<std::decay_t<F>, FunctionRef>>>
  FunctionRef(F&& f)
      : object_(const_cast<void*>(static_cast<const void*>(&f))), call_([](void* object, Args... args) -> R {
          return (*static_cast<std::remove_reference_t<F>*>(object))(args...);
        }) {}
  R operator()(Args... args) const { return call_(object_, args...); }

 private:
  void* object_;
  R (*call_)(void*, Args...);
};

class ThreadPool {
 public:
  /// `threads` >= 1 counts the caller, which works too. Throws Error(kRuntime) if threads cannot start.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  /// Threads in the pool.
  int size() const { return size_; }

  /// Threads that take part in run() and parallel_for() from now on, 1..size(). Never changes a result.
  void set_active(int workers) { limit_ = std::clamp(workers, 1, size_); }
  int active() const { return limit_; }

  /// `soon`: work comes within a millisecond though the caller waits for something else now. Workers then
  /// stay awake instead of going to sleep, from which they would take tens of microseconds to wake up.
  void expect_work(bool soon) { shared_->soon.store(soon, std::memory_order_relaxed); }

  /// Calls work(worker) once on each of the first `workers` threads (default: active()), worker 0 on the
  /// caller. Not reentrant; `work` must not throw.
  void run(FunctionRef<void(int)> work, int workers = 0) noexcept;

  /// Calls body(begin, end, worker) over [0, n) in pieces of at most `grain`, handed out dynamically.
  /// Results must not depend on which worker gets a piece.
  void parallel_for(int64_t n, int64_t grain, FunctionRef<void(int64_t, int64_t, int)> body) noexcept;

 private:
  static constexpr uint32_t kActiveMask = 0xfff;  // of generation: workers that take part

  void worker_loop(int worker) noexcept;
  void pause() const noexcept;
  bool keep_spinning(int spins) const noexcept;

  int size_;
  struct alignas(64) Shared {
    std::atomic<uint32_t> generation{0};  // a change means new work; the low bits say for how many workers
    std::atomic<bool> stop{false}, soon{false};
    alignas(64) std::atomic<int> pending{0};
    alignas(64) std::atomic<int> sleepers{0};
  };
  std::unique_ptr<Shared> shared_;
  const FunctionRef<void(int)>* work_ = nullptr;
  int limit_;
  bool oversubscribed_;
  int spin_limit_;
  std::vector<std::thread> threads_;
};

}  // namespace mete
