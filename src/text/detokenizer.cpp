#include "text/detokenizer.h"

#include <algorithm>

#include "text/utf8.h"

namespace mete {

std::string decode(const Tokenizer& tokenizer, std::span<const int32_t> ids, bool show_special) {
  std::string bytes;
  for (const int32_t id : ids) {
    if (show_special || !tokenizer.is_special(id)) bytes.append(tokenizer.piece(id));
  }
  return utf8_repair(bytes);
}

std::string StreamDetokenizer::put(int32_t id) {
  if (!show_special_ && tokenizer_.is_special(id) &&
      std::find(shown_.begin(), shown_.end(), id) == shown_.end()) {
    return "";
  }
  pending_.append(tokenizer_.piece(id));
  // Only a sequence that starts in the last 3 bytes can be unfinished.
  size_t whole = pending_.size();
  for (size_t back = 1; back <= 3 && back <= pending_.size(); ++back) {
    const size_t start = pending_.size() - back;
    if ((static_cast<uint8_t>(pending_[start]) & 0xc0) == 0x80) continue;
    if (utf8_step(std::string_view(pending_).substr(start)).cut) whole = start;
    break;
  }
  std::string out = utf8_repair(std::string_view(pending_).substr(0, whole));
  pending_.erase(0, whole);
  return out;
}

std::string StreamDetokenizer::finish() {
  std::string out = utf8_repair(pending_);
  pending_.clear();
  return out;
}

}  // namespace mete
