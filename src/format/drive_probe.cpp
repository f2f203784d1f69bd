#include "format/drive_probe.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <thread>

#include "base/aligned.h"
#include "base/clock.h"
#include "base/rng.h"

namespace mete {
namespace {

constexpr int kWindows = 5;  // of one measurement, for its spread

class File {
 public:
  File(const std::string& path, int flags) : fd_(::open(path.c_str(), flags | O_CLOEXEC)) {}
  ~File() {
    if (fd_ >= 0) ::close(fd_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  int fd() const { return fd_; }

 private:
  int fd_;
};

Result<int64_t> file_size(int fd, const std::string& path) {
  struct stat info {};
  if (::fstat(fd, &info) != 0) return run_failure("{}: {}", path, std::strerror(errno));
  if (!S_ISREG(info.st_mode)) return run_failure("{}: not a regular file", path);
  return static_cast<int64_t>(info.st_size);
}

/// Threads that read blocks until told to stop; `bytes` counts what they got.
class Readers {
 public:
  Readers(int fd, const DrivePattern& pattern, int64_t blocks, bool huge)
      : fd_(fd), pattern_(pattern), blocks_(blocks) {
    buffers_ = AlignedBuffer(
        std::max(kHugePage, static_cast<size_t>(pattern.block) * static_cast<size_t>(pattern.depth)), huge);
    for (int i = 0; i < pattern.depth; ++i) threads_.emplace_back([this, i] { run(i); });
  }
  ~Readers() { stop(); }
  void stop() {
    stop_ = true;
    for (std::thread& t : threads_) {
      if (t.joinable()) t.join();
    }
  }
  int64_t bytes() const { return bytes_.load(); }
  int error() const { return error_.load(); }

 private:
  void run(int reader) {
    uint8_t* buffer = buffers_.data() + static_cast<size_t>(pattern_.block) * static_cast<size_t>(reader);
    while (!stop_.load(std::memory_order_relaxed)) {
      const auto index = static_cast<uint64_t>(next_.fetch_add(1));
      const uint64_t block =
          (pattern_.random ? random_bits(1, index, Purpose::kTest) : index) % static_cast<uint64_t>(blocks_);
      const ssize_t got = ::pread(fd_, buffer, static_cast<size_t>(pattern_.block),
                                  static_cast<off_t>(block) * pattern_.block);
      if (got != pattern_.block) {
        error_ = got < 0 ? errno : EIO;
        return;
      }
      bytes_.fetch_add(got);
    }
  }

  int fd_;
  DrivePattern pattern_;
  int64_t blocks_;
  AlignedBuffer buffers_;
  std::vector<std::thread> threads_;
  std::atomic<bool> stop_{false};
  std::atomic<int64_t> next_{0}, bytes_{0};
  std::atomic<int> error_{0};
};

}  // namespace

Result<DriveRate> measure_drive(const std::string& path, const DrivePattern& pattern, double seconds,
                                bool huge) {
  METE_CHECK(pattern.block > 0 && pattern.block % 4096 == 0 && pattern.depth > 0);
  File file(path, O_RDONLY | (pattern.direct ? O_DIRECT : 0));
  if (file.fd() < 0) {
    return run_failure("{}: cannot be opened{}: {}", path, pattern.direct ? " with O_DIRECT" : "",
                       std::strerror(errno));
  }
  const Result<int64_t> size = file_size(file.fd(), path);
  if (!size) return size.error();
  const int64_t blocks = *size / pattern.block;
  if (blocks < 1) return run_failure("{}: {} bytes, less than a block of {}", path, *size, pattern.block);
  if (!pattern.direct) {
    if (Status dropped = drop_page_cache(path); !dropped) return dropped.error();
  }

  // A buffered read of a block that came before would measure the page cache: stop in time.
  const int64_t limit = pattern.direct ? INT64_MAX : *size / (pattern.random ? 4 : 1);
  std::vector<double> rates;
  Readers readers(file.fd(), pattern, blocks, huge);
  const double start = now_seconds();
  double window_start = start;
  int64_t window_bytes = 0;
  for (bool over = false; !over;) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    const double now = now_seconds();
    const int64_t bytes = readers.bytes();
    over = now - start >= seconds || bytes >= limit || readers.error() != 0;
    if (now - window_start < seconds / kWindows && !(over && rates.empty())) continue;
    rates.push_back(static_cast<double>(bytes - window_bytes) / (now - window_start));
    window_start = now;
    window_bytes = bytes;
  }
  readers.stop();
  if (readers.error() != 0) {
    return run_failure("{}: a read of {} bytes failed: {}", path, pattern.block,
                       std::strerror(readers.error()));
  }
  return DriveRate{pattern, spread_of(std::move(rates))};
}

std::vector<DrivePattern> drive_patterns() {
  std::vector<DrivePattern> patterns;
  for (const int64_t block : {int64_t{4} << 10, int64_t{64} << 10, int64_t{256} << 10, int64_t{1} << 20}) {
    for (const int depth : {1, 4, 16}) patterns.push_back({true, true, block, depth});
  }
  for (const int depth : {1, 4}) patterns.push_back({true, false, 1 << 20, depth});
  patterns.push_back({false, false, 1 << 20, 1});
  patterns.push_back({false, true, 64 << 10, 4});
  return patterns;
}

Status drop_page_cache(const std::string& path) {
  File file(path, O_RDONLY);
  if (file.fd() < 0) return run_failure("{}: cannot be opened: {}", path, std::strerror(errno));
  const Result<int64_t> size = file_size(file.fd(), path);
  if (!size) return size.error();
  // Pages that were never written back are not dropped.
  ::fdatasync(file.fd());
  if (const int code = ::posix_fadvise(file.fd(), 0, 0, POSIX_FADV_DONTNEED); code != 0) {
    return run_failure("{}: the page cache keeps its pages: {}", path, std::strerror(code));
  }
  if (*size == 0) return {};
  void* map = ::mmap(nullptr, static_cast<size_t>(*size), PROT_READ, MAP_SHARED, file.fd(), 0);
  if (map == MAP_FAILED) return run_failure("{}: cannot be mapped: {}", path, std::strerror(errno));
  std::vector<unsigned char> resident(static_cast<size_t>((*size + 4095) / 4096));
  const int looked = ::mincore(map, static_cast<size_t>(*size), resident.data());
  ::munmap(map, static_cast<size_t>(*size));
  if (looked != 0) return run_failure("{}: mincore fails: {}", path, std::strerror(errno));
  const auto kept =
      std::count_if(resident.begin(), resident.end(), [](unsigned char c) { return (c & 1) != 0; });
  if (kept > static_cast<int64_t>(resident.size()) / 20) {
    return run_failure("{}: {} of {} pages stay in the page cache (another process holds them)", path, kept,
                       resident.size());
  }
  return {};
}

}  // namespace mete
