#include "format/direct_reader.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <mutex>
#include <thread>

namespace mete {
namespace {

/// pread by worker threads.
class ThreadReader final : public AsyncReader {
 public:
  ThreadReader(const DirectFiles& files, int depth, int threads) : files_(files), depth_(depth) {
    for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { work(); });
  }
  ThreadReader(const ThreadReader&) = delete;
  ThreadReader& operator=(const ThreadReader&) = delete;
  ~ThreadReader() override {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    wake_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  void submit(const ReadRequest& request) noexcept override {
    {
      const std::lock_guard lock(mutex_);
      queue_.push_back(request);
    }
    wake_.notify_one();
  }

  size_t collect(std::span<ReadDone> done, bool wait) noexcept override {
    std::unique_lock lock(mutex_);
    if (wait) arrived_.wait(lock, [this] { return !done_.empty(); });
    const size_t n = std::min(done.size(), done_.size());
    std::copy_n(done_.begin(), n, done.begin());
    done_.erase(done_.begin(), done_.begin() + static_cast<std::ptrdiff_t>(n));
    return n;
  }

  int depth() const override { return depth_; }
  std::string how() const override {
    return fmt::format("{} thread{}, {}", threads_.size(), threads_.size() == 1 ? "" : "s",
                       files_.all_direct() ? "direct" : "buffered");
  }

 private:
  void work() {
    std::unique_lock lock(mutex_);
    while (true) {
      wake_.wait(lock, [this] { return stop_ || !queue_.empty(); });
      if (queue_.empty()) return;  // stopped, and nothing left that writes to the caller's memory
      const ReadRequest request = queue_.front();
      queue_.pop_front();
      lock.unlock();
      const ReadDone done{request.tag, read(request)};
      lock.lock();
      done_.push_back(done);
      arrived_.notify_one();
    }
  }

  int64_t read(const ReadRequest& r) const {
    const int fd = files_.descriptor(r.file);
    ssize_t got;
    do {
      got = ::pread(fd, r.out, r.bytes, static_cast<off_t>(r.offset));
    } while (got < 0 && errno == EINTR);
    const int64_t result = got < 0 ? -errno : got;
    if (!files_.direct(r.file)) {
      ::posix_fadvise(fd, static_cast<off_t>(r.offset), static_cast<off_t>(r.bytes), POSIX_FADV_DONTNEED);
    }
    return result;
  }

  const DirectFiles& files_;
  int depth_;
  std::mutex mutex_;  // guards all below but threads_
  std::condition_variable wake_, arrived_;
  std::deque<ReadRequest> queue_;
  std::deque<ReadDone> done_;
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

/// Adds the reason for the second way to how().
class SaidReader final : public AsyncReader {
 public:
  SaidReader(std::unique_ptr<AsyncReader> reader, std::string why)
      : reader_(std::move(reader)), why_(std::move(why)) {}
  void submit(const ReadRequest& request) noexcept override { reader_->submit(request); }
  size_t collect(std::span<ReadDone> done, bool wait) noexcept override {
    return reader_->collect(done, wait);
  }
  int depth() const override { return reader_->depth(); }
  std::string how() const override { return fmt::format("{} ({})", reader_->how(), why_); }

 private:
  std::unique_ptr<AsyncReader> reader_;
  std::string why_;
};

}  // namespace

DirectFiles::~DirectFiles() {
  for (const File& file : files_) ::close(file.fd);
}

Status DirectFiles::open(const std::vector<std::string>& paths, bool direct) {
  for (const std::string& path : paths) {
    constexpr int kFlags = O_RDONLY | O_CLOEXEC | O_NONBLOCK;  // O_NONBLOCK: a FIFO must not hang
    File file{path, -1, direct, 0, 0, 0};
    if (direct) file.fd = ::open(path.c_str(), kFlags | O_DIRECT);
    if (file.fd < 0) {
      file.direct = false;
      file.fd = ::open(path.c_str(), kFlags);
    }
    if (file.fd < 0) return run_failure("{}: cannot open: {}", path, std::strerror(errno));
    files_.push_back(file);
    struct stat status {};
    if (::fstat(file.fd, &status) != 0 || !S_ISREG(status.st_mode)) {
      return run_failure("{}: not a regular file", path);
    }
    files_.back().bytes = static_cast<uint64_t>(status.st_size);
    files_.back().changed_s = status.st_mtim.tv_sec;
    files_.back().changed_ns = status.st_mtim.tv_nsec;
    // Random access: the kernel reads ahead of nothing.
    if (!file.direct) ::posix_fadvise(file.fd, 0, 0, POSIX_FADV_RANDOM);
  }
  return {};
}

Status DirectFiles::open(const GgufFile& file, bool direct) {
  if (Status opened = open(file.paths(), direct); !opened) return opened;
  uint64_t bytes = 0;
  for (const File& part : files_) bytes += part.bytes;
  if (bytes == file.file_bytes()) return {};
  return run_failure("{}: {} bytes, expected {}: the file changed while it was loaded", file.paths()[0],
                     bytes, file.file_bytes());
}

Status DirectFiles::check_unchanged() const {
  for (const File& file : files_) {
    struct stat status {};
    if (::fstat(file.fd, &status) != 0) {
      return run_failure("{}: cannot be examined: {}", file.path, std::strerror(errno));
    }
    if (static_cast<uint64_t>(status.st_size) != file.bytes) {
      return run_failure("{}: the file changed while in use: {} bytes, expected {}", file.path,
                         status.st_size, file.bytes);
    }
    if (status.st_mtim.tv_sec != file.changed_s || status.st_mtim.tv_nsec != file.changed_ns) {
      return run_failure("{}: the file was written to while in use; load the model again", file.path);
    }
  }
  return {};
}

bool DirectFiles::all_direct() const {
  return std::all_of(files_.begin(), files_.end(), [](const File& file) { return file.direct; });
}

std::unique_ptr<AsyncReader> make_thread_reader(const DirectFiles& files, int depth, int threads) {
  return std::make_unique<ThreadReader>(files, depth, threads);
}

ReadState advance_read(int64_t result, uint64_t needed, uint64_t* done, int* error) {
  const uint64_t got = result < 0 ? 0 : static_cast<uint64_t>(result), pages = round_down_read(got);
  if (*done + got >= needed) return ReadState::kComplete;
  *done += pages;
  if (pages > 0) return ReadState::kAgain;
  *error = result < 0 ? static_cast<int>(-result) : EIO;
  return ReadState::kStuck;
}

Result<std::unique_ptr<AsyncReader>> make_reader(const DirectFiles& files, const ReaderConfig& config) {
  const std::string buffered =
      config.direct && !files.all_direct() ? "the file system refuses direct reads" : "";
  std::string why = buffered;
  std::unique_ptr<AsyncReader> reader;
  if (config.way != ReadWay::kThreads) {
    auto uring = make_uring_reader(files, config.depth);
    if (!uring && config.way == ReadWay::kUring) return uring.error();
    if (uring) {
      reader = std::move(*uring);
    } else {
      why = uring.error().message() + (buffered.empty() ? "" : "; " + buffered);
    }
  }
  if (reader == nullptr) reader = make_thread_reader(files, config.depth, config.threads);
  if (why.empty()) return reader;
  return std::unique_ptr<AsyncReader>(std::make_unique<SaidReader>(std::move(reader), why));
}

}  // namespace mete
