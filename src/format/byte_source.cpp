#include "format/byte_source.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace mete {
namespace {

class FileSource final : public ByteSource {
 public:
  FileSource(std::string path, uint64_t size, int fd) : ByteSource(std::move(path), size), fd_(fd) {}
  FileSource(const FileSource&) = delete;
  FileSource& operator=(const FileSource&) = delete;
  ~FileSource() override { ::close(fd_); }

  Status read(uint64_t offset, std::span<uint8_t> out) const override {
    METE_CHECK(offset <= size() && out.size() <= size() - offset);
    size_t done = 0;
    while (done < out.size()) {
      constexpr size_t kMaxRead = size_t{1} << 30;  // Linux reads at most 2^31 - 4096 bytes at a time
      const size_t want = std::min(out.size() - done, kMaxRead);
      const ssize_t got = ::pread(fd_, out.data() + done, want, static_cast<off_t>(offset + done));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0)
        return run_failure("{}: cannot read at byte {}: {}", path(), offset + done, std::strerror(errno));
      if (got == 0) {
        return run_failure(
            "{}: the file was truncated while it was read: it ends at byte {}, expected {} bytes", path(),
            offset + done, size());
      }
      done += static_cast<size_t>(got);
    }
    return {};
  }

  void drop_cache(uint64_t offset, uint64_t bytes) const override {
    ::posix_fadvise(fd_, static_cast<off_t>(offset), static_cast<off_t>(bytes), POSIX_FADV_DONTNEED);
  }

 private:
  int fd_;
};

class MemorySource final : public ByteSource {
 public:
  MemorySource(std::string path, std::span<const uint8_t> bytes)
      : ByteSource(std::move(path), bytes.size()), bytes_(bytes) {}

  Status read(uint64_t offset, std::span<uint8_t> out) const override {
    METE_CHECK(offset <= size() && out.size() <= size() - offset);
    if (!out.empty()) std::memcpy(out.data(), bytes_.data() + offset, out.size());
    return {};
  }

  void drop_cache(uint64_t, uint64_t) const override {}

 private:
  std::span<const uint8_t> bytes_;
};

}  // namespace

Result<std::unique_ptr<ByteSource>> ByteSource::open(const std::string& path) {
  // O_NONBLOCK: opening a FIFO must not wait for a writer; it does nothing to a regular file.
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return run_failure("{}: cannot open: {}", path, std::strerror(errno));
  struct stat status {};
  if (::fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) {
    ::close(fd);
    return run_failure("{}: not a regular file", path);
  }
  return std::unique_ptr<ByteSource>(
      std::make_unique<FileSource>(path, static_cast<uint64_t>(status.st_size), fd));
}

std::unique_ptr<ByteSource> ByteSource::memory(std::string path, std::span<const uint8_t> bytes) {
  return std::make_unique<MemorySource>(std::move(path), bytes);
}

}  // namespace mete
