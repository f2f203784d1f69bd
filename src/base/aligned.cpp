#include "base/aligned.h"

#include <sys/mman.h>

#include <fstream>
#include <string>

#include "base/error.h"

namespace mete {

size_t memory_available() {
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
