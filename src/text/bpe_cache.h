// Remembers the ids of short words during one encode() call. Bounded: a new word replaces the one in its
// slot.
#pragma once

#include <xxhash.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <string_view>
#include <vector>

namespace mete {

class WordCache {
 public:
  /// Sized for a text of so many bytes; at most 32768 slots of 64 bytes.
  explicit WordCache(size_t text_bytes)
      : slots_(std::bit_ceil(std::clamp<size_t>(text_bytes / 8, 8, size_t{1} << 15))) {}

  /// Appends the ids and returns true if the word is known.
  bool find(std::string_view word, std::vector<int32_t>& ids) const {
    if (word.size() > kBytes) return false;
    const Slot& slot = slots_[index(word)];
    if (slot.bytes != word.size() || std::memcmp(slot.text, word.data(), word.size()) != 0) return false;
    ids.insert(ids.end(), slot.ids, slot.ids + slot.count);
    return true;
  }

  void put(std::string_view word, const int32_t* ids, size_t count) {
    if (word.size() > kBytes || count > kIds) return;
    Slot& slot = slots_[index(word)];
    slot.bytes = static_cast<uint8_t>(word.size());
    slot.count = static_cast<uint8_t>(count);
    std::memcpy(slot.text, word.data(), word.size());
    std::copy(ids, ids + count, slot.ids);
  }

 private:
  static constexpr size_t kBytes = 30, kIds = 8;
  struct Slot {
    uint8_t bytes = 0;  ///< 0: free
    uint8_t count = 0;
    char text[kBytes];
    int32_t ids[kIds];
  };
  size_t index(std::string_view word) const {
    return XXH3_64bits(word.data(), word.size()) & (slots_.size() - 1);
  }

  std::vector<Slot> slots_;
};

}  // namespace mete
