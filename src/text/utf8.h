// UTF-8 as RFC 3629 defines it: no surrogates, no overlong forms, nothing above U+10FFFF.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace mete {

/// What stands at the start of a string: a whole code point, or a piece of broken text.
struct Utf8Step {
  uint32_t code_point;  ///< 0xfffd if not valid
  uint32_t
      bytes;  ///< bytes used, 0 only for an empty string; if not valid, the maximal subpart (Unicode 3.9)
  bool valid;
  bool cut;  ///< not valid only because the string ends inside a sequence that could still become valid
};
Utf8Step utf8_step(std::string_view text);

/// Length in bytes of the longest prefix that is valid UTF-8.
size_t utf8_valid_prefix(std::string_view text);

/// The text with every maximal invalid subpart replaced by U+FFFD.
std::string utf8_repair(std::string_view text);

void utf8_append(std::string& out, uint32_t code_point);

/// The first code point's bytes, or one byte where the text is broken. `text` not empty.
inline std::string_view utf8_symbol(std::string_view text) {
  if (static_cast<uint8_t>(text[0]) < 0x80) return text.substr(0, 1);
  const Utf8Step step = utf8_step(text);
  return text.substr(0, step.valid ? step.bytes : 1);
}

}  // namespace mete
