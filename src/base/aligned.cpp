#include "base/aligned.h"

#include <sys/mman.h>

#include <algorithm>
#include <fstream>
#include <string>

#include "base/cgroup.h"
#include "base/error.h"
#include "base/process_memory.h"

namespace mete {

namespace {

constexpr size_t kPage = 4096;

/// A line of /proc/meminfo in bytes; 0 if it is not there.
size_t read_meminfo(const char* wanted) {
  std::ifstream file("/proc/meminfo");
  std::string key;
  size_t kib = 0;
  std::string unit;
  while (file >> key >> kib) {
    std::getline(file, unit);
    if (key == wanted) return kib * 1024;
  }
  return 0;
}

uint8_t* map_memory(size_t bytes, int flags) {
  void* at = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
  return at == MAP_FAILED ? nullptr : static_cast<uint8_t*>(at);
}

}  // namespace

uint8_t* map_huge(size_t bytes, int flags) {
  bytes = (bytes + kPage - 1) / kPage * kPage;
  uint8_t* const at = map_memory(bytes + kHugePage, flags);
  if (at == nullptr) return nullptr;
  const size_t before = (kHugePage - reinterpret_cast<uintptr_t>(at) % kHugePage) % kHugePage;
  if (before > 0) ::munmap(at, before);
  ::munmap(at + before + bytes, kHugePage - before);
  ::madvise(at + before, bytes, MADV_HUGEPAGE);
  return at + before;
}

size_t memory_available() {
  auto available = static_cast<double>(read_meminfo("MemAvailable:"));
  const double left = cgroup_memory_left();
  return static_cast<size_t>(left < 0 ? available : std::min(available, left));
}

size_t memory_total() { return read_meminfo("MemTotal:"); }

int64_t AlignedBuffer::resident() const { return resident_bytes(data_, static_cast<int64_t>(bytes_)); }

AlignedBuffer::AlignedBuffer(size_t bytes, bool huge) {
  if (bytes == 0) return;
  data_ = huge ? map_huge(bytes) : map_memory(bytes, 0);
  if (data_ == nullptr) {
    throw run_failure("out of memory: {} bytes needed, {} available", bytes, memory_available());
  }
  bytes_ = bytes;
}

AlignedBuffer::~AlignedBuffer() {
  if (data_ != nullptr) ::munmap(data_, bytes_);
}

}  // namespace mete
