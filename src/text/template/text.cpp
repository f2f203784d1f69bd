#include "text/template/text.h"

#include <cstring>

#include <algorithm>

#include "base/error.h"

namespace mete::jinja {

Origin Text::origin_at(size_t offset) const {
  if (runs_.empty()) return Origin::kTemplate;
  const auto run = std::upper_bound(runs_.begin(), runs_.end(), offset,
                                    [](size_t value, const Run& r) { return value < r.end; });
  return run == runs_.end() ? runs_.back().origin : run->origin;
}

void Text::append(std::string_view bytes, Origin origin) {
  if (bytes.empty()) return;
  if (bytes_.size() + bytes.size() > kMaxTextBytes) {
    throw run_failure("chat template: a string of more than {} bytes, the limit", kMaxTextBytes);
  }
  bytes_.append(bytes);
  if (!runs_.empty() && runs_.back().origin == origin) {
    runs_.back().end = bytes_.size();
  } else {
    runs_.push_back({bytes_.size(), origin});
  }
}

void Text::append(const Text& other, size_t begin, size_t end) {
  if (&other == this) {
    const Text copy = other;
    return append(copy, begin, end);
  }
  if (begin >= end) return;
  auto run = std::upper_bound(other.runs_.begin(), other.runs_.end(), begin,
                              [](size_t value, const Run& r) { return value < r.end; });
  for (; begin < end; ++run) {
    const size_t stop = std::min(end, run->end);
    append(other.view().substr(begin, stop - begin), run->origin);
    begin = stop;
  }
}

Text Text::slice(size_t begin, size_t end) const {
  Text out;
  out.append(*this, begin, end);
  out.markup = markup;
  return out;
}

uint32_t decode_char(std::string_view bytes, size_t offset, size_t* size) {
  const auto at = [&](size_t i) { return static_cast<uint8_t>(bytes[offset + i]); };
  const uint8_t lead = at(0);
  *size = 1;
  if (lead < 0x80) return lead;
  const size_t length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  const uint32_t invalid = 0xDC00U + lead;
  if (lead < 0xC2 || lead > 0xF4 || offset + length > bytes.size()) return invalid;
  uint32_t code = lead & (0x7FU >> length);
  for (size_t i = 1; i < length; ++i) {
    if ((at(i) & 0xC0) != 0x80) return invalid;
    code = (code << 6) | (at(i) & 0x3FU);
  }
  const uint32_t least = length == 2 ? 0x80 : length == 3 ? 0x800 : 0x10000;
  if (code < least || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) return invalid;
  *size = length;
  return code;
}

size_t char_size(std::string_view bytes, size_t offset) {
  size_t size = 0;
  decode_char(bytes, offset, &size);
  return size;
}

void encode_char(uint32_t code, std::string* out) {
  const auto put = [&](uint32_t byte) { out->push_back(static_cast<char>(byte)); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xC0 | (code >> 6));
    put(0x80 | (code & 0x3F));
  } else if (code >= 0xDC80 && code < 0xDD00) {
    put(code - 0xDC00);
  } else if (code < 0x10000) {
    put(0xE0 | (code >> 12));
    put(0x80 | ((code >> 6) & 0x3F));
    put(0x80 | (code & 0x3F));
  } else {
    put(0xF0 | (code >> 18));
    put(0x80 | ((code >> 12) & 0x3F));
    put(0x80 | ((code >> 6) & 0x3F));
    put(0x80 | (code & 0x3F));
  }
}

size_t count_chars(std::string_view bytes) {
  size_t count = 0;
  for (size_t i = 0; i < bytes.size(); i += char_size(bytes, i)) ++count;
  return count;
}

std::vector<size_t> char_offsets(std::string_view bytes) {
  std::vector<size_t> offsets;
  offsets.reserve(bytes.size() + 1);
  for (size_t i = 0; i < bytes.size(); i += char_size(bytes, i)) offsets.push_back(i);
  offsets.push_back(bytes.size());
  return offsets;
}

bool is_space(uint32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

bool is_digit(uint32_t c) { return c >= '0' && c <= '9'; }

namespace {

// One range of letters: [first, last] upper case; lower = upper + delta, or, for delta 0, pairs (even upper
// or odd upper, by the parity of `first`).
struct CaseRange {
  uint32_t first, last;
  uint32_t delta;
};
constexpr CaseRange kCases[] = {
    {'A', 'Z', 32},     {0xC0, 0xD6, 32},   {0xD8, 0xDE, 32},    {0x100, 0x12F, 0},   {0x132, 0x137, 0},
    {0x139, 0x148, 0},  {0x14A, 0x177, 0},  {0x179, 0x17E, 0},   {0x1CD, 0x1DC, 0},   {0x1DE, 0x1EF, 0},
    {0x1F8, 0x21F, 0},  {0x222, 0x233, 0},  {0x388, 0x38A, 37},  {0x391, 0x3A1, 32},  {0x3A3, 0x3AB, 32},
    {0x400, 0x40F, 80}, {0x410, 0x42F, 32}, {0x460, 0x481, 0},   {0x48A, 0x4BF, 0},   {0x4C1, 0x4CE, 0},
    {0x4D0, 0x52F, 0},  {0x531, 0x556, 48}, {0x1E00, 0x1E95, 0}, {0x1EA0, 0x1EFF, 0}, {0xFF21, 0xFF3A, 32},
};

}  // namespace

uint32_t to_lower(uint32_t c) {
  if (c < 0x80) return c >= 'A' && c <= 'Z' ? c + 32 : c;
  if (c == 0x130) return 'i';
  if (c == 0x178) return 0xFF;
  if (c == 0x386) return 0x3AC;
  for (const CaseRange& range : kCases) {
    if (c < range.first || c > range.last) continue;
    if (range.delta != 0) return c + range.delta;
    return ((c ^ range.first) & 1) == 0 ? c + 1 : c;
  }
  return c;
}

uint32_t to_upper(uint32_t c) {
  if (c < 0x80) return c >= 'a' && c <= 'z' ? c - 32 : c;
  if (c == 0x131) return 'I';
  if (c == 0xFF) return 0x178;
  if (c == 0xB5) return 0x39C;
  if (c == 0x3C2) return 0x3A3;
  if (c == 0x3AC) return 0x386;
  for (const CaseRange& range : kCases) {
    if (range.delta != 0 && c >= range.first + range.delta && c <= range.last + range.delta)
      return c - range.delta;
    if (range.delta == 0 && c >= range.first && c <= range.last)
      return ((c ^ range.first) & 1) != 0 ? c - 1 : c;
  }
  return c;
}

bool is_alpha(uint32_t c) {
  if (c < 0x80) return (c | 32) >= 'a' && (c | 32) <= 'z';
  if (c < 0xC0) return c == 0xAA || c == 0xB5 || c == 0xBA;
  return c != 0xD7 && c != 0xF7 && !is_space(c) && is_printable(c) && !(c >= 0x2000 && c <= 0x2BFF) &&
         !(c >= 0x3000 && c <= 0x3004) && !(c >= 0x3008 && c <= 0x3020) && !(c >= 0xFF00 && c <= 0xFF20) &&
         c < 0x1F000;
}

bool is_printable(uint32_t c) {
  if (c < 0x20 || (c >= 0x7F && c <= 0xA0) || c == 0xAD) return false;
  if (c == ' ') return true;
  if (is_space(c)) return false;
  return !((c >= 0x600 && c <= 0x605) || c == 0x61C || c == 0x6DD || c == 0x70F || c == 0x180E ||
           (c >= 0x200B && c <= 0x200F) || (c >= 0x202A && c <= 0x202E) || (c >= 0x2060 && c <= 0x206F) ||
           (c >= 0xD800 && c <= 0xF8FF) || c == 0xFEFF || (c >= 0xFFF0 && c <= 0xFFFB) ||
           (c & 0xFFFE) == 0xFFFE || c >= 0xE0000);
}

namespace {

template <typename Map>
Text map_chars(const Text& text, Map map) {
  Text out;
  std::string piece;
  const std::string_view bytes = text.view();
  for (size_t i = 0, size = 0; i < bytes.size(); i += size) {
    piece.clear();
    encode_char(map(decode_char(bytes, i, &size)), &piece);
    out.append(piece, text.origin_at(i));
  }
  out.markup = text.markup;
  return out;
}

bool contains_char(std::string_view set, std::string_view character) {
  for (size_t i = 0; i < set.size();) {
    const size_t size = char_size(set, i);
    if (set.substr(i, size) == character) return true;
    i += size;
  }
  return false;
}

}  // namespace

Text upper(const Text& text) { return map_chars(text, to_upper); }
Text lower(const Text& text) { return map_chars(text, to_lower); }

Text capitalize(const Text& text) {
  bool first = true;
  return map_chars(text, [&](uint32_t c) {
    const uint32_t mapped = first ? to_upper(c) : to_lower(c);
    first = false;
    return mapped;
  });
}

Text title(const Text& text) {
  bool inside = false;
  return map_chars(text, [&](uint32_t c) {
    const uint32_t mapped = inside ? to_lower(c) : to_upper(c);
    inside = is_alpha(c);
    return mapped;
  });
}

Text strip(const Text& text, Side side, const Text* chars) {
  const std::string_view bytes = text.view();
  const auto strippable = [&](size_t at, size_t size) {
    if (chars) return contains_char(chars->view(), bytes.substr(at, size));
    size_t unused = 0;
    return is_space(decode_char(bytes, at, &unused));
  };
  size_t begin = 0;
  size_t end = bytes.size();
  if (side != Side::kRight) {
    while (begin < end) {
      const size_t size = char_size(bytes, begin);
      if (!strippable(begin, size)) break;
      begin += size;
    }
  }
  while (side != Side::kLeft && begin < end) {
    size_t at = end - 1;
    while (at > begin && end - at < 4 && (static_cast<uint8_t>(bytes[at]) & 0xC0) == 0x80) --at;
    if (at + char_size(bytes, at) != end) at = end - 1;
    if (!strippable(at, end - at)) break;
    end = at;
  }
  return text.slice(begin, end);
}

Text escape_html(const Text& text) {
  Text out;
  out.markup = true;
  if (text.markup) {
    out.append(text);
    return out;
  }
  const std::string_view bytes = text.view();
  size_t done = 0;
  for (size_t i = 0; i < bytes.size(); ++i) {
    const char c = bytes[i];
    const char* name = c == '&'    ? "&amp;"
                       : c == '<'  ? "&lt;"
                       : c == '>'  ? "&gt;"
                       : c == '\'' ? "&#39;"
                       : c == '"'  ? "&#34;"
                                   : nullptr;
    if (!name) continue;
    out.append(text, done, i);
    out.append(name, text.origin_at(i));
    done = i + 1;
  }
  out.append(text, done, bytes.size());
  return out;
}

size_t find_bytes(std::string_view hay, std::string_view needle, size_t from) {
  if (from > hay.size()) return std::string_view::npos;
  if (needle.empty()) return from;
  const void* hit = memmem(hay.data() + from, hay.size() - from, needle.data(), needle.size());
  if (!hit) return std::string_view::npos;
  return static_cast<size_t>(static_cast<const char*>(hit) - hay.data());
}

Text replace(const Text& text, const Text& from, const Text& to, int64_t count) {
  Text out;
  out.markup = text.markup;
  const std::string_view bytes = text.view();
  size_t done = 0;
  if (from.empty()) {  // Python inserts before every character and at the end
    for (; count != 0 && done < bytes.size(); --count) {
      out.append(to);
      const size_t next = done + char_size(bytes, done);
      out.append(text, done, next);
      done = next;
    }
    if (count != 0) out.append(to);
  } else {
    for (; count != 0; --count) {
      const size_t hit = find_bytes(bytes, from.view(), done);
      if (hit == std::string_view::npos) break;
      out.append(text, done, hit);
      out.append(to);
      done = hit + from.size();
    }
  }
  out.append(text, done, bytes.size());
  return out;
}

std::vector<Text> split_lines(const Text& text, bool keep_ends) {
  std::vector<Text> lines;
  const std::string_view bytes = text.view();
  size_t begin = 0;
  for (size_t i = 0, size = 0; i < bytes.size(); i += size) {
    const uint32_t c = decode_char(bytes, i, &size);
    const bool ends =
        (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
    if (!ends) continue;
    if (c == '\r' && i + 1 < bytes.size() && bytes[i + 1] == '\n') size = 2;
    lines.push_back(text.slice(begin, keep_ends ? i + size : i));
    begin = i + size;
  }
  if (begin < bytes.size()) lines.push_back(text.slice(begin, bytes.size()));
  return lines;
}

}  // namespace mete::jinja
