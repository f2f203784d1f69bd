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

}  // namespace

size_t memory_available() {
  auto available = static_cast<double>(read_meminfo("MemAvailable:"));
  const double left = cgroup_memory_left();
  return static_cast<size_t>(left < 0 ? available : std::min(available, left));
}

size_t memory_total() { return read_meminfo("MemTotal:"); }

int64_t AlignedBuffer::resident() const { return resident_bytes(data_, static_cast<int64_t>(bytes_)); }

AlignedBuffer::AlignedBuffer(size_t bytes, bool huge) {
  if (bytes == 0) return;
  void* address = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (address == MAP_FAILED) {
    throw run_failure("out of memory: {} bytes needed, {} available", bytes, memory_available());
  }
  data_ = static_cast<uint8_t*>(address);
  bytes_ = bytes;
  if (huge) ::madvise(address, bytes, MADV_HUGEPAGE);  // a hint; refusal costs speed only
}

AlignedBuffer::~AlignedBuffer() {
  if (data_ != nullptr) ::munmap(data_, bytes_);
}

}  // namespace mete
