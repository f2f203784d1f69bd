// What this process takes of the machine's memory, as the kernel counts it.
#pragma once

#include <cstdint>
#include <string>

namespace mete {

struct ProcessMemory {
  int64_t rss = 0;          ///< resident set
  int64_t peak_rss = 0;     ///< its peak (VmHWM)
  int64_t file = 0;         ///< of rss, pages of mapped files: binary and libraries
  int64_t page_tables = 0;  ///< of the kernel, for this process
  int64_t threads = 1;
};
ProcessMemory read_process_memory();

/// Bytes of all file mappings of this process (binary and libraries): what they can come to in memory.
int64_t mapped_file_bytes();

/// Peak resident set of this process in bytes (VmHWM).
int64_t peak_rss_bytes();

/// Starts peak_rss_bytes() anew from what is resident now; false if the system does not allow it.
bool reset_peak_rss();

/// What the allocator holds: bytes in use, and free bytes that it has not given back.
struct HeapMemory {
  int64_t used = 0, free = 0;
};
HeapMemory read_heap_memory();

/// Makes the memory of malloc and of thread stacks predictable: one arena, large blocks always their own
/// mapping, free memory given back early, stacks of kThreadStackBytes. To be called before threads start.
void limit_memory_overhead();
inline constexpr int64_t kThreadStackBytes = 1 << 20;

/// Pages of a file that are in the page cache, in bytes, whoever reads them; -1 if the system does not say
/// (it does only to the file's owner).
int64_t file_cache_bytes(const std::string& path);

/// Bytes of [address, address + bytes) that are resident; `address` at a page.
int64_t resident_bytes(const void* address, int64_t bytes);

}  // namespace mete
