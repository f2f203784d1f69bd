#include "base/aligned.h"

#include <sys/mman.h>

#include <algorithm>
#include <fstream>
#include <string>

#include "base/cgroup.h"
#include "base/error.h"

namespace mete {

namespace {

size_t system_available() {
  std::ifstream file("/proc/meminfo");
  std::string key;
  size_t kib = 0;
  std::string unit;
  while (file >> key >> kib) {
    std::getline(file, unit);
    if (key == "MemAvailable:") return kib * 1024;
  }
  return 0;
}

/// Bytes of the group's page cache that the kernel would give back.
double reclaimable(const CgroupFolder& folder) {
  std::ifstream file(folder.path + "/memory.stat");
  std::string key;
  double bytes = 0;
  while (file >> key >> bytes) {
    if (key == (folder.v2 ? "inactive_file" : "total_inactive_file")) return bytes;
  }
  return 0;
}

}  // namespace

size_t memory_available() {
  auto available = static_cast<double>(system_available());
  for (const CgroupFolder& folder : cgroup_folders("memory")) {
    const double limit = read_cgroup_number(folder, folder.v2 ? "memory.max" : "memory.limit_in_bytes");
    const double used = read_cgroup_number(folder, folder.v2 ? "memory.current" : "memory.usage_in_bytes");
    if (limit < 0 || used < 0) continue;
    available = std::min(available, std::max(0.0, limit - used + reclaimable(folder)));
  }
  return static_cast<size_t>(available);
}

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
