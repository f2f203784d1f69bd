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
  ~FileSource() override {
    ::close(fd_);
    if (direct_fd_ >= 0) ::close(direct_fd_);
  }

  Status read(uint64_t offset, std::span<uint8_t> out) const override {
    METE_CHECK(offset <= size() && out.size() <= size() - offset);
    return read_all(fd_, offset, out, out.size());
  }

  void drop_cache(uint64_t offset, uint64_t bytes) const override {
    ::posix_fadvise(fd_, static_cast<off_t>(offset), static_cast<off_t>(bytes), POSIX_FADV_DONTNEED);
  }

  Result<const uint8_t*> read_into(uint64_t offset, uint64_t bytes,
                                   std::span<uint8_t> buffer) const override {
    METE_CHECK(offset <= size() && bytes <= size() - offset && buffer.size() >= bytes + kDirectSlack);
    const uint64_t begin = offset / kDirectAlign * kDirectAlign;
    if (direct_fd_ >= 0) {
      const uint64_t end = (offset + bytes + kDirectAlign - 1) / kDirectAlign * kDirectAlign;
      Status status = read_all(direct_fd_, begin, buffer.first(end - begin), offset + bytes - begin);
      if (!status) return status.error();
      return static_cast<const uint8_t*>(buffer.data() + (offset - begin));
    }
    Status status = read_all(fd_, offset, buffer.first(bytes), bytes);
    if (!status) return status.error();
    if (spare_) {  // whole pages only
      ::posix_fadvise(fd_, static_cast<off_t>(begin), static_cast<off_t>(bytes + kDirectSlack),
                      POSIX_FADV_DONTNEED);
    }
    return static_cast<const uint8_t*>(buffer.data());
  }

  bool spare_cache() override {
    spare_ = true;
    ::posix_fadvise(fd_, 0, 0, POSIX_FADV_RANDOM);
    ::posix_fadvise(fd_, 0, 0, POSIX_FADV_DONTNEED);
    if (direct_fd_ < 0) direct_fd_ = ::open(path().c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_DIRECT);
    if (direct_fd_ >= 0 && !(same_file() && direct_reads_work())) {
      ::close(direct_fd_);
      direct_fd_ = -1;
    }
    return direct_fd_ >= 0;
  }

 private:
  /// Fills at least `least` bytes of `out`; more only as far as the file goes.
  Status read_all(int fd, uint64_t offset, std::span<uint8_t> out, uint64_t least) const {
    size_t done = 0;
    while (done < least) {
      constexpr size_t kMaxRead = size_t{1} << 30;  // Linux reads at most 2^31 - 4096 bytes at a time
      const size_t want = std::min(out.size() - done, kMaxRead);
      const ssize_t got = ::pread(fd, out.data() + done, want, static_cast<off_t>(offset + done));
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

  /// The path may have come to name another file.
  bool same_file() const {
    struct stat a {
    }, b{};
    return ::fstat(fd_, &a) == 0 && ::fstat(direct_fd_, &b) == 0 && a.st_dev == b.st_dev &&
           a.st_ino == b.st_ino;
  }
  bool direct_reads_work() const {
    alignas(kDirectAlign) static thread_local uint8_t page[kDirectAlign];
    return ::pread(direct_fd_, page, sizeof page, 0) >= 0;
  }

  int fd_;
  int direct_fd_ = -1;  // for reads past the page cache, or -1
  bool spare_ = false;
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
  Result<const uint8_t*> read_into(uint64_t offset, uint64_t bytes, std::span<uint8_t>) const override {
    METE_CHECK(offset <= size() && bytes <= size() - offset);
    return bytes_.data() + offset;
  }
  bool spare_cache() override { return true; }

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
