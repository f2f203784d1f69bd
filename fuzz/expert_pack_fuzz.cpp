// The directory of an expert pack on arbitrary bytes, its checksum made right so that the fields behind it
// are reached.
#include <xxhash.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "format/expert_pack.h"

using namespace mete;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::vector<uint8_t> bytes(data, data + size);
  if (size >= 64) {
    uint32_t layers, experts;
    std::memcpy(&layers, data + 12, 4);
    std::memcpy(&experts, data + 16, 4);
    const uint64_t before = 64 + uint64_t{layers} * 24 + uint64_t{layers} * experts * 8;
    if (before <= size - 8) {
      const uint64_t sum = XXH3_64bits(bytes.data(), before);
      std::memcpy(bytes.data() + before, &sum, 8);
    }
  }
  const auto directory = ExpertPackDirectory::parse(bytes);
  if (!directory) {
    METE_CHECK(directory.error().code() == Code::kBadModel);
    METE_CHECK(directory.error().message().find('\n') == std::string::npos);
    return 0;
  }
  METE_CHECK(directory->layer.size() == directory->layers);
  METE_CHECK(directory->checksums.size() == size_t{directory->layers} * directory->experts);
  METE_CHECK(directory->file_bytes() > directory->data_offset);
  return 0;
}
