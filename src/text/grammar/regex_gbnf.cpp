#include "text/grammar/regex_gbnf.h"

#include <algorithm>
#include <vector>

#include "text/grammar/rules.h"
#include "text/utf8.h"

namespace mete {
namespace {

constexpr int kMaxDepth = 64;
using Ranges = std::vector<CodePointRange>;

const Ranges kDigits = {{'0', '9'}};
const Ranges kWords = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
const Ranges kSpaces = {{0x09, 0x0d},     {0x20, 0x20},     {0xa0, 0xa0},     {0x1680, 0x1680},
                        {0x2000, 0x200a}, {0x2028, 0x2029}, {0x202f, 0x202f}, {0x205f, 0x205f},
                        {0x3000, 0x3000}, {0xfeff, 0xfeff}};
const Ranges kLineEnds = {{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}};

bool holds(const Ranges& ranges, uint32_t c) {
  return std::any_of(ranges.begin(), ranges.end(), [c](auto r) { return r.first <= c && c <= r.last; });
}

/// One character of the set, as it stands in a JSON string. Control characters without a short escape are
/// left out of large sets.
std::string set_to_gbnf(const Ranges& set) {
  Ranges never = complement(set);
  for (const CodePointRange& r : Ranges{{0, 0x1f}, {'"', '"'}, {'\\', '\\'}, {0x7f, 0x7f}})
    never.push_back(r);
  std::vector<std::string> alternatives;
  std::string plain;
  for (const CodePointRange& r : complement(never)) {
    plain += fmt::format("\\U{:08X}-\\U{:08X}", r.first, r.last);
  }
  if (!plain.empty()) alternatives.push_back("[" + plain + "]");
  constexpr std::string_view kEscaped = "\"\\\b\f\n\r\t", kNames = "\"\\bfnrt";
  for (size_t i = 0; i < kEscaped.size(); ++i) {
    if (holds(set, static_cast<uint8_t>(kEscaped[i]))) {
      alternatives.push_back(gbnf_literal(std::string("\\") + kNames[i]));
    }
  }
  if (alternatives.empty()) {
    for (const CodePointRange& r : set) {
      for (uint32_t c = r.first; c <= std::min(r.last, 0x7fU); ++c) {
        alternatives.push_back(gbnf_literal(fmt::format("\\u{:04x}", c)));
      }
    }
  }
  if (alternatives.empty()) return "";
  return fmt::format("({})", fmt::join(alternatives, " | "));
}

class Converter {
 public:
  explicit Converter(std::string_view pattern) : text_(pattern) {}

  Result<std::string> convert() {
    std::vector<std::string> branches;
    do {
      const bool from_start = take('^');
      std::string body;
      if (!sequence(body, 0)) return *failure_;
      const bool to_end = take('$');
      branches.push_back((from_start ? "" : "char* ") + (body.empty() ? "\"\"" : body) +
                         (to_end ? "" : " char*"));
    } while (take('|'));
    if (pos_ < text_.size()) {
      fail("the end of the pattern, or \"^\" and \"$\" only at the ends of the whole pattern");
      return *failure_;
    }
    return fmt::format("{}", fmt::join(branches, " | "));
  }

 private:
  bool at(char c) const { return pos_ < text_.size() && text_[pos_] == c; }
  bool take(char c) {
    if (!at(c)) return false;
    ++pos_;
    return true;
  }
  bool fail(std::string_view expected) {
    if (!failure_) {
      const std::string found = pos_ < text_.size()
                                    ? fmt::format("\"{}\"", utf8_repair(utf8_symbol(text_.substr(pos_))))
                                    : "its end";
      failure_ = bad_usage("pattern \"{}\" at offset {}: found {}, expected {}", utf8_repair(text_), pos_,
                           found, expected);
    }
    return false;
  }

  bool alternatives(std::string& out, int depth) {
    if (depth > kMaxDepth) return fail("fewer nested groups");
    std::vector<std::string> branches;
    do {
      std::string body;
      if (!sequence(body, depth)) return false;
      branches.push_back(body.empty() ? "\"\"" : body);
    } while (take('|'));
    out = fmt::format("({})", fmt::join(branches, " | "));
    return true;
  }

  bool sequence(std::string& out, int depth) {
    while (pos_ < text_.size() && !at('|') && !at(')') && !at('$')) {
      std::string unit;
      if (!atom(unit, depth)) return false;
      if (!quantifier(unit)) return false;
      if (!out.empty()) out += ' ';
      out += unit;
    }
    return true;
  }

  bool atom(std::string& out, int depth) {
    const char c = text_[pos_];
    if (c == '(') {
      ++pos_;
      if (take('?')) {
        if (!take(':') && !name()) return fail("\"(?:\" or \"(?<name>\" (look-around is not supported)");
      }
      if (!alternatives(out, depth + 1)) return false;
      return take(')') || fail("\")\"");
    }
    if (c == '^') return fail("\"^\" only at the start of the pattern");
    if (c == '*' || c == '+' || c == '?') return fail("something to repeat");
    Ranges set;
    if (c == '.') {
      ++pos_;
      set = complement(kLineEnds);
    } else if (c == '[') {
      if (!character_class(set)) return false;
    } else if (!character(set)) {
      return false;
    }
    out = set_to_gbnf(set);
    return !out.empty() || fail("a class that is not empty before it");
  }

  /// "<name>" of a named group.
  bool name() {
    if (!take('<') || at('=') || at('!')) return false;
    while (pos_ < text_.size() && !at('>')) ++pos_;
    return take('>');
  }

  bool number(int64_t& value) {
    const size_t begin = pos_;
    value = 0;
    for (; pos_ < text_.size() && text_[pos_] >= '0' && text_[pos_] <= '9'; ++pos_) {
      value = std::min<int64_t>(value * 10 + (text_[pos_] - '0'), 1000000);
    }
    return pos_ > begin || fail("a number");
  }

  bool quantifier(std::string& unit) {
    if (at('*') || at('+') || at('?')) {
      unit += text_[pos_++];
    } else if (take('{')) {
      int64_t min = 0, max = 0;
      if (!number(min)) return false;
      if (!take(',')) {
        unit += fmt::format("{{{}}}", min);
      } else if (at('}')) {
        unit += fmt::format("{{{},}}", min);
      } else {
        if (!number(max)) return false;
        unit += fmt::format("{{{},{}}}", min, max);
      }
      if (!take('}')) return fail("\"}\"");
    } else {
      return true;
    }
    take('?');  // a lazy quantifier matches the same texts
    return !(at('*') || at('+') || at('?')) || fail("one quantifier");
  }

  bool hex(int digits, uint32_t& value) {
    value = 0;
    for (int i = 0; i < digits; ++i, ++pos_) {
      const char h = pos_ < text_.size() ? text_[pos_] : ' ';
      const int v = h >= '0' && h <= '9'   ? h - '0'
                    : h >= 'a' && h <= 'f' ? h - 'a' + 10
                    : h >= 'A' && h <= 'F' ? h - 'A' + 10
                                           : -1;
      if (v < 0) return fail("a hexadecimal digit");
      value = value * 16 + static_cast<uint32_t>(v);
    }
    return true;
  }

  /// A character or an escape; classes such as \d give several ranges.
  bool character(Ranges& set) {
    const Utf8Step step = utf8_step(text_.substr(pos_));
    if (!step.valid) return fail("a UTF-8 character");
    if (step.code_point != '\\') {
      pos_ += step.bytes;
      set = {{step.code_point, step.code_point}};
      return true;
    }
    if (pos_ + 1 >= text_.size()) return fail("an escape");
    const char c = text_[pos_ + 1];
    const auto is = [&](Ranges ranges) {
      pos_ += 2;
      set = std::move(ranges);
      return true;
    };
    switch (c) {
      case 'd':
        return is(kDigits);
      case 'D':
        return is(complement(kDigits));
      case 'w':
        return is(kWords);
      case 'W':
        return is(complement(kWords));
      case 's':
        return is(kSpaces);
      case 'S':
        return is(complement(kSpaces));
      case 't':
        return is({{'\t', '\t'}});
      case 'n':
        return is({{'\n', '\n'}});
      case 'r':
        return is({{'\r', '\r'}});
      case 'f':
        return is({{'\f', '\f'}});
      case 'v':
        return is({{'\v', '\v'}});
      case 'x':
      case 'u': {
        pos_ += 2;
        uint32_t value = 0;
        if (!hex(c == 'x' ? 2 : 4, value)) return false;
        if (value >= 0xd800 && value <= 0xdfff) return fail("no surrogate before it");
        set = {{value, value}};
        return true;
      }
      default:
        break;
    }
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (letter || static_cast<uint8_t>(c) >= 0x80) {
      return fail(
          "an escape that is supported: \\d \\w \\s \\D \\W \\S \\t \\n \\r \\f \\v \\xHH \\uHHHH or a mark");
    }
    return is({{static_cast<uint8_t>(c), static_cast<uint8_t>(c)}});
  }

  bool character_class(Ranges& set) {
    ++pos_;
    const bool inverted = take('^');
    Ranges ranges;
    while (!at(']')) {
      if (pos_ >= text_.size()) return fail("\"]\"");
      Ranges first;
      if (!character(first)) return false;
      const bool single = first.size() == 1 && first[0].first == first[0].last;
      if (single && at('-') && pos_ + 1 < text_.size() && text_[pos_ + 1] != ']') {
        ++pos_;
        Ranges last;
        if (!character(last)) return false;
        if (last.size() != 1 || last[0].first != last[0].last || last[0].first < first[0].first) {
          return fail("a range in ascending order before it");
        }
        first[0].last = last[0].first;
      }
      ranges.insert(ranges.end(), first.begin(), first.end());
    }
    ++pos_;
    set = inverted ? complement(ranges) : complement(complement(ranges));
    return true;
  }

  std::string_view text_;
  size_t pos_ = 0;
  std::optional<Error> failure_;
};

}  // namespace

std::string gbnf_literal(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<uint8_t>(c) < 0x20 || c == 0x7f) {
      out += fmt::format("\\x{:02X}", static_cast<uint8_t>(c));
    } else {
      out += c;
    }
  }
  return out + "\"";
}

Result<std::string> regex_to_gbnf(std::string_view pattern) { return Converter(pattern).convert(); }

}  // namespace mete
