// Asynchronous reads of whole pages, past the page cache where the file system allows it. One thread submits
// and collects; the kernel (io_uring) or worker threads (pread) read. What could not be had as asked is said
// in how().
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "format/gguf.h"

namespace mete {

inline constexpr uint64_t kReadAlign = 4096;  ///< of offset, length and buffer
constexpr uint64_t round_up_read(uint64_t bytes) {
  return (bytes + kReadAlign - 1) / kReadAlign * kReadAlign;
}
constexpr uint64_t round_down_read(uint64_t bytes) { return bytes / kReadAlign * kReadAlign; }

/// Files opened for reading, direct where that is possible.
class DirectFiles {
 public:
  DirectFiles() = default;
  DirectFiles(const DirectFiles&) = delete;
  DirectFiles& operator=(const DirectFiles&) = delete;
  ~DirectFiles();

  /// `direct`: try O_DIRECT. Error(kRuntime) naming the file that cannot be opened.
  Status open(const std::vector<std::string>& paths, bool direct);
  /// The parts of a model file. Error(kRuntime) also if they are not what `file` was made of.
  Status open(const GgufFile& file, bool direct);
  /// Error(kRuntime) naming a file that is not what it was when it was opened: size, time of change.
  Status check_unchanged() const;

  int count() const { return static_cast<int>(files_.size()); }
  int descriptor(int file) const { return files_[static_cast<size_t>(file)].fd; }
  bool direct(int file) const { return files_[static_cast<size_t>(file)].direct; }
  uint64_t size(int file) const { return files_[static_cast<size_t>(file)].bytes; }
  const std::string& path(int file) const { return files_[static_cast<size_t>(file)].path; }
  bool all_direct() const;

 private:
  struct File {
    std::string path;
    int fd;
    bool direct;
    uint64_t bytes;
    int64_t changed_s, changed_ns;
  };
  std::vector<File> files_;
};

/// offset, bytes and out are multiples of kReadAlign; out must stay until the read was collected.
struct ReadRequest {
  int file;
  uint64_t offset;
  uint64_t bytes;
  uint8_t* out;
  uint64_t tag;  ///< comes back in ReadDone
};

struct ReadDone {
  uint64_t tag;
  int64_t result;  ///< bytes read (fewer at the end of the file), or -errno
};

/// A read may end early anywhere. kAgain: it goes on at `done`, behind the last page that arrived in full;
/// kStuck: none did, and `error` is the errno.
enum class ReadState { kComplete, kAgain, kStuck };
/// `result` of a read at `done`, of which `needed` bytes must arrive in all.
ReadState advance_read(int64_t result, uint64_t needed, uint64_t* done, int* error);

class AsyncReader {
 public:
  virtual ~AsyncReader() = default;
  /// Starts a read. At most depth() may be under way.
  virtual void submit(const ReadRequest& request) noexcept = 0;
  /// Pushes what was submitted to the kernel, then returns reads that have ended, 0 if none has. `wait`: at
  /// least one (one must be under way).
  virtual size_t collect(std::span<ReadDone> done, bool wait) noexcept = 0;
  virtual int depth() const = 0;
  /// "io_uring, direct" or the like, with the reason where it is not what was asked for.
  virtual std::string how() const = 0;
};

enum class ReadWay { kAuto, kUring, kThreads };

struct ReaderConfig {
  ReadWay way = ReadWay::kAuto;  ///< kAuto: io_uring, or threads where it is forbidden
  bool direct = true;
  int depth = 32;   ///< reads under way at most
  int threads = 4;  ///< of kThreads
};

/// `files` must outlive the reader. Error(kRuntime) if kUring was demanded and cannot be had.
Result<std::unique_ptr<AsyncReader>> make_reader(const DirectFiles& files, const ReaderConfig& config);

// The two ways (make_reader chooses).
Result<std::unique_ptr<AsyncReader>> make_uring_reader(const DirectFiles& files, int depth);
std::unique_ptr<AsyncReader> make_thread_reader(const DirectFiles& files, int depth, int threads);

}  // namespace mete
