// Read rates of the drive that holds a file.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/spread.h"

namespace mete {

/// How a file is read.
struct DrivePattern {
  bool direct = true;     ///< O_DIRECT, past the page cache; else buffered, from a cold page cache
  bool random = true;     ///< blocks in random order; else ascending
  int64_t block = 65536;  ///< bytes of one read, a multiple of 4096
  int depth = 1;          ///< reads in flight, one thread each

  bool operator==(const DrivePattern&) const = default;
};

struct DriveRate {
  DrivePattern pattern;
  Spread bytes_per_s;
};

/// Reads `path` for about `seconds` in the given pattern, into huge pages as the expert store does, or into
/// pages of 4 KiB (a virtual drive may do half as well with those). Error(kRuntime): the file cannot be
/// opened that way (the file system has no O_DIRECT), is smaller than one block, or a read failed.
Result<DriveRate> measure_drive(const std::string& path, const DrivePattern& pattern, double seconds,
                                bool huge = true);

/// The patterns of the machine profile: random direct reads over blocks and depths, sequential ones,
/// buffered.
std::vector<DrivePattern> drive_patterns();

/// Whether the pages of [0, bytes) of the file were given up by the page cache when asked; false and a reason
/// if the system keeps them.
Status drop_page_cache(const std::string& path);

}  // namespace mete
