// Page-aligned memory that the process owns, zero-filled, obtained from the kernel directly so that
// the byte count is exact and release is immediate.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

namespace mete {

inline constexpr size_t kHugePage = size_t{2} << 20;  ///< size and alignment of a transparent huge page

/// Anonymous memory with transparent huge pages asked for (a hint; refusal costs speed only), from a multiple
/// of kHugePage on. `flags`: more of mmap's. Null: errno says why.
uint8_t* map_huge(size_t bytes, int flags = 0);

class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  /// `bytes` may be 0. `huge`: ask for transparent huge pages. Throws Error(kRuntime) naming the bytes
  /// needed and available when the kernel refuses.
  explicit AlignedBuffer(size_t bytes, bool huge = false);
  ~AlignedBuffer();
  AlignedBuffer(AlignedBuffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  uint8_t* data() { return data_; }
  const uint8_t* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  int64_t resident() const;  ///< bytes of it that are in memory now
  template <typename T>
  T* as() {
    return reinterpret_cast<T*>(data_);
  }

 private:
  uint8_t* data_ = nullptr;
  size_t bytes_ = 0;
};

/// Bytes that this process may still take: MemAvailable, and what the memory cgroups (v1, v2, up the tree)
/// leave; 0 if unknown.
size_t memory_available();

/// Bytes of memory of this machine; 0 if unknown.
size_t memory_total();

}  // namespace mete
