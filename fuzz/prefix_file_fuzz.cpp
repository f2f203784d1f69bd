// The prefix cache's file on arbitrary bytes. The first byte chooses whether checksums are made good, so that
// what lies behind them is reached.
#include <xxhash.h>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <sstream>

#include "base/error.h"
#include "format/prefix_file.h"

namespace {

using namespace mete;

constexpr size_t kHead = 8 + 11 * 8, kPage = 4, kBlock = 16, kRecord = 24 + kPage * 4 + kBlock;

void set_checksum(std::string& bytes, size_t begin, size_t size, uint64_t seed) {
  if (bytes.size() < begin + size + 8) return;
  const uint64_t sum = XXH3_64bits_withSeed(bytes.data() + begin, size, seed);
  std::memcpy(bytes.data() + begin + size, &sum, 8);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  PrefixIdentity identity;
  identity.page_slots = kPage;
  identity.block_bytes = kBlock;
  identity.vocab = 100;
  std::string bytes(reinterpret_cast<const char*>(data + 1), size - 1);
  if (data[0] % 2 == 1 && bytes.size() >= kHead) {
    const uint64_t head[11] = {0, 0, 0, 0, 0, 0, kPage, kBlock, 0, 100, bytes[0] & 7u};
    std::memcpy(bytes.data(), "METEKV02", 8);
    std::memcpy(bytes.data() + 8, head, sizeof head);
    set_checksum(bytes, 0, kHead, 0);
    for (uint64_t i = 0; i < 8; ++i) set_checksum(bytes, kHead + 8 + i * (kRecord + 8), kRecord, i);
  }
  std::istringstream in(bytes);
  Result<PrefixFileReader> reader = PrefixFileReader::open(in, "fuzz", identity);
  if (!reader) {
    METE_CHECK(reader.error().code() == Code::kRuntime);
    return 0;
  }
  for (int64_t i = 0;; ++i) {
    const Result<const PrefixRecord*> record = reader->next();
    if (!record || *record == nullptr) return 0;
    METE_CHECK(i < reader->records() && (*record)->parent < i);
    METE_CHECK(!(*record)->tokens.empty() && (*record)->tokens.size() <= kPage &&
               (*record)->kv.size() == kBlock);
  }
}
