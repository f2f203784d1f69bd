// Random-access bytes of an untrusted file, or of memory, behind one interface.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/error.h"

namespace mete {

/// Alignment of reads past the page cache; two of them are the slack of their buffers.
inline constexpr uint64_t kDirectAlign = 4096;
inline constexpr uint64_t kDirectSlack = 2 * kDirectAlign;

class ByteSource {
 public:
  /// Opens a regular file read-only. Missing, unreadable or not a regular file: Code::kRuntime.
  static Result<std::unique_ptr<ByteSource>> open(const std::string& path);
  /// Reads from memory that outlives the source. `path` names it in messages.
  static std::unique_ptr<ByteSource> memory(std::string path, std::span<const uint8_t> bytes);

  virtual ~ByteSource() = default;
  /// Fills `out` from bytes [offset, offset + out.size()). The range must lie within size(); a file that is
  /// by now shorter than that, or an I/O failure, is Code::kRuntime naming the file. Thread-safe.
  virtual Status read(uint64_t offset, std::span<uint8_t> out) const = 0;
  /// Tells the kernel that the range is not needed in the page cache.
  virtual void drop_cache(uint64_t offset, uint64_t bytes) const = 0;
  /// The bytes [offset, offset + bytes), somewhere in `buffer`, which begins at a page and holds kDirectSlack
  /// bytes more than that. After spare_cache() they come past the page cache where the file system allows it;
  /// where not, the pages are dropped after the read. Errors as read().
  virtual Result<const uint8_t*> read_into(uint64_t offset, uint64_t bytes,
                                           std::span<uint8_t> buffer) const = 0;
  /// From now on: no read-ahead, read_into() past the page cache, and nothing of the file kept there so far.
  /// Returns whether reads past the page cache are allowed.
  virtual bool spare_cache() = 0;

  const std::string& path() const { return path_; }
  uint64_t size() const { return size_; }  ///< bytes, when it was opened

 protected:
  ByteSource(std::string path, uint64_t size) : path_(std::move(path)), size_(size) {}

 private:
  std::string path_;
  uint64_t size_;
};

}  // namespace mete
