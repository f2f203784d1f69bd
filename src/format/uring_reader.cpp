// io_uring by its three system calls (io_uring(7)); a ring of reads needs no more.
#include <fcntl.h>
#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "format/direct_reader.h"

namespace mete {
namespace {

int setup(unsigned entries, io_uring_params* params) {
  return static_cast<int>(::syscall(__NR_io_uring_setup, entries, params));
}
int enter(int ring, unsigned submit, unsigned wait) {
  const unsigned flags = wait > 0 ? IORING_ENTER_GETEVENTS : 0;
  return static_cast<int>(::syscall(__NR_io_uring_enter, ring, submit, wait, flags, nullptr, 0));
}

uint32_t load_acquire(const uint32_t* p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
void store_release(uint32_t* p, uint32_t value) { __atomic_store_n(p, value, __ATOMIC_RELEASE); }

/// One mapping of the ring's memory.
class Mapping {
 public:
  Mapping() = default;
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping() {
    if (data_ != nullptr) ::munmap(data_, bytes_);
  }
  bool map(int ring, size_t bytes, off_t offset) {
    void* at = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring, offset);
    if (at == MAP_FAILED) return false;
    data_ = static_cast<uint8_t*>(at);
    bytes_ = bytes;
    return true;
  }
  template <typename T>
  T* at(uint32_t offset) const {
    return reinterpret_cast<T*>(data_ + offset);
  }

 private:
  uint8_t* data_ = nullptr;
  size_t bytes_ = 0;
};

class UringReader final : public AsyncReader {
 public:
  UringReader(const DirectFiles& files, int depth) : files_(files), depth_(depth) {
    slots_.resize(static_cast<size_t>(depth));
    for (uint32_t i = static_cast<uint32_t>(depth); i > 0; --i) free_.push_back(i - 1);
  }
  UringReader(const UringReader&) = delete;
  UringReader& operator=(const UringReader&) = delete;
  ~UringReader() override {
    ReadDone done[16];
    while (under_way_ > 0) collect(done, true);  // the kernel writes to memory of the caller until then
    if (ring_ >= 0) ::close(ring_);
  }

  Status start() {
    io_uring_params params{};
    ring_ = setup(static_cast<unsigned>(depth_), &params);
    if (ring_ < 0) return refused(errno);
    const size_t sq_bytes = params.sq_off.array + params.sq_entries * sizeof(uint32_t);
    const size_t cq_bytes = params.cq_off.cqes + params.cq_entries * sizeof(io_uring_cqe);
    const bool mapped = submissions_.map(ring_, sq_bytes, IORING_OFF_SQ_RING) &&
                        completions_.map(ring_, cq_bytes, IORING_OFF_CQ_RING) &&
                        entries_.map(ring_, params.sq_entries * sizeof(io_uring_sqe), IORING_OFF_SQES);
    if (!mapped) return refused(errno);
    sq_tail_ = submissions_.at<uint32_t>(params.sq_off.tail);
    sq_mask_ = *submissions_.at<uint32_t>(params.sq_off.ring_mask);
    sq_array_ = submissions_.at<uint32_t>(params.sq_off.array);
    cq_head_ = completions_.at<uint32_t>(params.cq_off.head);
    cq_tail_ = completions_.at<uint32_t>(params.cq_off.tail);
    cq_mask_ = *completions_.at<uint32_t>(params.cq_off.ring_mask);
    cqes_ = completions_.at<io_uring_cqe>(params.cq_off.cqes);
    return {};
  }

  void submit(const ReadRequest& request) noexcept override {
    METE_CHECK(!free_.empty());
    const uint32_t slot = free_.back();
    free_.pop_back();
    slots_[slot] = request;
    const uint32_t tail = *sq_tail_, index = tail & sq_mask_;
    io_uring_sqe* sqe = entries_.at<io_uring_sqe>(0) + index;
    std::memset(sqe, 0, sizeof *sqe);
    sqe->opcode = IORING_OP_READ;
    sqe->fd = files_.descriptor(request.file);
    sqe->off = request.offset;
    sqe->addr = reinterpret_cast<uint64_t>(request.out);
    sqe->len = static_cast<uint32_t>(request.bytes);
    sqe->user_data = slot;
    sq_array_[index] = index;
    store_release(sq_tail_, tail + 1);
    ++unsubmitted_;
    ++under_way_;
  }

  size_t collect(std::span<ReadDone> done, bool wait) noexcept override {
    size_t n = take(done);
    while (unsubmitted_ > 0 || (wait && n == 0)) {
      const bool block = wait && n == 0;
      const int submitted = enter(ring_, unsubmitted_, block ? 1 : 0);
      if (submitted < 0 && errno != EINTR && errno != EAGAIN && errno != EBUSY) {
        // The ring itself is broken: every read that waits fails, so that nobody waits for ever.
        return n + fail_all(done.subspan(n), errno);
      }
      if (submitted > 0) unsubmitted_ -= static_cast<uint32_t>(submitted);
      n += take(done.subspan(n));
      if (n == done.size()) break;
    }
    return n;
  }

  int depth() const override { return depth_; }
  std::string how() const override {
    return fmt::format("io_uring, {}", files_.all_direct() ? "direct" : "buffered");
  }

 private:
  static Error refused(int error) {
    const char* hint = error == ENOMEM ? " (limit of locked memory, ulimit -l)" : "";
    return run_failure("io_uring refused: {}{}", std::strerror(error), hint);
  }

  size_t take(std::span<ReadDone> done) {
    uint32_t head = *cq_head_;
    size_t n = 0;
    while (n < done.size() && head != load_acquire(cq_tail_)) {
      const io_uring_cqe& cqe = cqes_[head++ & cq_mask_];
      done[n++] = finish(static_cast<uint32_t>(cqe.user_data), cqe.res);
    }
    store_release(cq_head_, head);
    return n;
  }

  ReadDone finish(uint32_t slot, int64_t result) {
    const ReadRequest& r = slots_[slot];
    if (!files_.direct(r.file)) {
      ::posix_fadvise(files_.descriptor(r.file), static_cast<off_t>(r.offset), static_cast<off_t>(r.bytes),
                      POSIX_FADV_DONTNEED);
    }
    free_.push_back(slot);
    --under_way_;
    return {r.tag, result};
  }

  size_t fail_all(std::span<ReadDone> done, int error) {
    size_t n = 0;
    for (uint32_t slot = 0; slot < slots_.size() && n < done.size(); ++slot) {
      if (std::find(free_.begin(), free_.end(), slot) != free_.end()) continue;
      done[n++] = finish(slot, -error);
    }
    unsubmitted_ = 0;
    return n;
  }

  const DirectFiles& files_;
  int depth_;
  int ring_ = -1;
  Mapping submissions_, completions_, entries_;
  uint32_t *sq_tail_ = nullptr, *sq_array_ = nullptr, *cq_head_ = nullptr, *cq_tail_ = nullptr;
  uint32_t sq_mask_ = 0, cq_mask_ = 0;
  io_uring_cqe* cqes_ = nullptr;
  uint32_t unsubmitted_ = 0, under_way_ = 0;
  std::vector<ReadRequest> slots_;  // by user_data
  std::vector<uint32_t> free_;
};

}  // namespace

Result<std::unique_ptr<AsyncReader>> make_uring_reader(const DirectFiles& files, int depth) {
  auto reader = std::make_unique<UringReader>(files, depth);
  if (Status started = reader->start(); !started) return started.error();
  return std::unique_ptr<AsyncReader>(std::move(reader));
}

}  // namespace mete
