// Sizes in bytes as people write them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.h"

namespace mete {

/// "6GiB", "512M", "1.5g", "800 MB", "65536". K, M, G, T and KiB, MiB, GiB, TiB are powers of 1024; KB, MB,
/// GB, TB powers of 1000; no unit: bytes. Case does not matter. An Error(kUsage) for anything else, 0 or 2^62
/// and more.
Result<int64_t> parse_size(std::string_view text);

/// "112.5 MiB", "8.00 GiB".
std::string size_text(int64_t bytes);

}  // namespace mete
