// Strings of the template interpreter: UTF-8 bytes that remember where they came from.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace mete::jinja {

/// Where bytes come from: written in the template (or a trusted token variable), or given by the caller.
enum class Origin : uint8_t { kTemplate, kInput };

/// Longest string that a template may make; longer throws Error.
inline constexpr size_t kMaxTextBytes = size_t{64} << 20;

/// UTF-8 bytes as runs of one origin each. Every operation that copies bytes copies their origin, so a
/// control token spelled in a message stays recognisable as input wherever the template moves it.
/// Bytes that are not valid UTF-8 count as one character each.
class Text {
 public:
  struct Run {
    size_t end;  ///< one past the run's last byte
    Origin origin;
  };

  Text() = default;
  Text(std::string_view bytes, Origin origin) { append(bytes, origin); }

  std::string_view view() const { return bytes_; }
  size_t size() const { return bytes_.size(); }
  bool empty() const { return bytes_.empty(); }
  const std::vector<Run>& runs() const { return runs_; }
  /// Origin of the byte at `offset`; of the last byte if `offset` is the size; kTemplate if empty.
  Origin origin_at(size_t offset) const;

  void append(std::string_view bytes, Origin origin);
  void append(const Text& other) { append(other, 0, other.size()); }
  void append(const Text& other, size_t begin, size_t end);
  Text slice(size_t begin, size_t end) const;

  /// Marked by `safe` or `escape`: `+` escapes its other operand for HTML, as markupsafe does.
  bool markup = false;

 private:
  std::string bytes_;
  std::vector<Run> runs_;
};

/// Bytes of the character that starts at `offset` (1 for an invalid byte).
size_t char_size(std::string_view bytes, size_t offset);
/// The code point at `offset`; an invalid byte b is 0xDC00 + b, as Python's surrogateescape has it.
uint32_t decode_char(std::string_view bytes, size_t offset, size_t* size);
void encode_char(uint32_t code_point, std::string* out);
size_t count_chars(std::string_view bytes);
/// Byte offsets at which characters start, and the size as the last element.
std::vector<size_t> char_offsets(std::string_view bytes);

/// str.isspace of Python.
bool is_space(uint32_t code_point);
bool is_alpha(uint32_t code_point);
bool is_digit(uint32_t code_point);
/// Simple case mappings of Latin, Greek, Cyrillic and Armenian letters; others map to themselves.
uint32_t to_upper(uint32_t code_point);
uint32_t to_lower(uint32_t code_point);
/// False for what Python's repr() escapes: controls, separators other than ' ', format characters,
/// surrogates.
bool is_printable(uint32_t code_point);

Text upper(const Text& text);
Text lower(const Text& text);
/// First character upper, the rest lower.
Text capitalize(const Text& text);
/// str.title: upper after every non-letter.
Text title(const Text& text);

/// Which ends strip() works on.
enum class Side : uint8_t { kBoth, kLeft, kRight };
/// Strips characters in `chars` (white space if null).
Text strip(const Text& text, Side side, const Text* chars);
/// Escapes & < > ' " for HTML; the result is markup.
Text escape_html(const Text& text);
/// First offset >= `from` of `needle`, or npos; linear.
size_t find_bytes(std::string_view hay, std::string_view needle, size_t from);
/// Replaces at most `count` (negative: all) occurrences, left to right.
Text replace(const Text& text, const Text& from, const Text& to, int64_t count);
/// str.splitlines.
std::vector<Text> split_lines(const Text& text, bool keep_ends);

}  // namespace mete::jinja
