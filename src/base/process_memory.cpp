#include "base/process_memory.h"

#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <vector>

namespace mete {

ProcessMemory read_process_memory() {
  ProcessMemory memory;
  std::ifstream file("/proc/self/status");
  std::string key;
  while (file >> key) {
    int64_t* field = key == "VmRSS:"     ? &memory.rss
                     : key == "VmHWM:"   ? &memory.peak_rss
                     : key == "RssFile:" ? &memory.file
                     : key == "VmPTE:"   ? &memory.page_tables
                     : key == "Threads:" ? &memory.threads
                                         : nullptr;
    if (field != nullptr && file >> *field && field != &memory.threads) *field *= 1024;
    file.ignore(1 << 20, '\n');
  }
  return memory;
}

int64_t mapped_file_bytes() {
  std::ifstream file("/proc/self/maps");  // "begin-end rwxp offset device inode path"
  std::string line;
  int64_t sum = 0;
  while (std::getline(file, line)) {
    unsigned long long begin = 0, end = 0, offset = 0, inode = 0;
    unsigned major = 0, minor = 0;
    char rights[8];
    const int fields = std::sscanf(line.c_str(), "%llx-%llx %7s %llx %x:%x %llu", &begin, &end, rights,
                                   &offset, &major, &minor, &inode);
    if (fields == 7 && inode != 0) sum += static_cast<int64_t>(end - begin);
  }
  return sum;
}

int64_t peak_rss_bytes() { return read_process_memory().peak_rss; }

bool reset_peak_rss() {
  std::ofstream file("/proc/self/clear_refs");
  file << 5 << std::flush;
  return file.good();
}

HeapMemory read_heap_memory() {
  const struct mallinfo2 info = ::mallinfo2();
  return {static_cast<int64_t>(info.uordblks + info.hblkhd), static_cast<int64_t>(info.fordblks)};
}

void limit_memory_overhead() {
  ::mallopt(M_ARENA_MAX, 1);
  ::mallopt(M_MMAP_THRESHOLD, 128 << 10);  // fixed: glibc would raise it with every large block freed
  ::mallopt(M_TRIM_THRESHOLD, 128 << 10);
  pthread_attr_t attributes;
  if (::pthread_attr_init(&attributes) != 0) return;
  ::pthread_attr_setstacksize(&attributes, kThreadStackBytes);
  ::pthread_setattr_default_np(&attributes);
  ::pthread_attr_destroy(&attributes);
}

namespace {

constexpr int64_t kPage = 4096;

/// Pages of a mapping that mincore() says are in memory.
int64_t count_pages(const uint8_t* address, int64_t bytes) {
  constexpr int64_t kChunk = int64_t{1} << 30;
  std::vector<unsigned char> present(static_cast<size_t>(std::min(bytes, kChunk) / kPage + 1));
  int64_t pages = 0;
  for (int64_t at = 0; at < bytes; at += kChunk) {
    const int64_t part = std::min(kChunk, bytes - at);
    if (::mincore(const_cast<uint8_t*>(address + at), static_cast<size_t>(part), present.data()) != 0)
      return -1;
    const auto end = present.begin() + static_cast<ptrdiff_t>((part + kPage - 1) / kPage);
    pages += std::count_if(present.begin(), end, [](unsigned char p) { return (p & 1) != 0; });
  }
  return pages;
}

}  // namespace

int64_t file_cache_bytes(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return -1;
  struct stat status {};
  int64_t bytes = -1;
  // To others mincore() calls every page present.
  if (::fstat(fd, &status) == 0 && (::geteuid() == 0 || ::geteuid() == status.st_uid)) {
    bytes = 0;
    if (status.st_size > 0) {
      void* map = ::mmap(nullptr, static_cast<size_t>(status.st_size), PROT_READ, MAP_SHARED, fd, 0);
      const int64_t pages = map == MAP_FAILED ? -1
                                              : count_pages(static_cast<const uint8_t*>(map),
                                                            static_cast<int64_t>(status.st_size));
      if (map != MAP_FAILED) ::munmap(map, static_cast<size_t>(status.st_size));
      bytes = pages < 0 ? -1 : pages * kPage;
    }
  }
  ::close(fd);
  return bytes;
}

int64_t resident_bytes(const void* address, int64_t bytes) {
  if (bytes <= 0) return 0;
  return std::max<int64_t>(0, count_pages(static_cast<const uint8_t*>(address), bytes)) * kPage;
}

}  // namespace mete
