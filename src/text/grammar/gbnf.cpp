#include "text/grammar/gbnf.h"

#include <algorithm>

#include "text/utf8.h"

namespace mete {
namespace {

constexpr int kMaxDepth = 128;
constexpr size_t kMaxText = size_t{1} << 22;

bool is_name(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  Result<GrammarProgram> parse() {
    space(true);
    while (!failure_ && pos_ < text_.size()) rule();
    if (failure_) return *failure_;
    return builder_.build();
  }

 private:
  bool at(char c) const { return pos_ < text_.size() && text_[pos_] == c; }
  bool fail(std::string_view expected) {
    if (failure_) return false;
    const auto line = std::count(text_.begin(), text_.begin() + static_cast<ptrdiff_t>(pos_), '\n') + 1;
    const size_t newline = text_.rfind('\n', pos_ == 0 ? 0 : pos_ - 1);
    const size_t column = pos_ - (newline == std::string_view::npos ? 0 : newline + 1) + 1;
    const std::string found = pos_ < text_.size()
                                  ? fmt::format("\"{}\"", utf8_repair(utf8_symbol(text_.substr(pos_))))
                                  : "the end of the text";
    failure_ = bad_usage("grammar line {} column {}: found {}, expected {}", line, column, found, expected);
    return false;
  }

  void space(bool newlines) {
    while (pos_ < text_.size()) {
      const char c = text_[pos_];
      if (c == '#') {
        while (pos_ < text_.size() && text_[pos_] != '\n' && text_[pos_] != '\r') ++pos_;
      } else if (c == ' ' || c == '\t' || (newlines && (c == '\n' || c == '\r'))) {
        ++pos_;
      } else {
        return;
      }
    }
  }

  std::string name() {
    const size_t begin = pos_;
    while (pos_ < text_.size() && is_name(text_[pos_])) ++pos_;
    return std::string(text_.substr(begin, pos_ - begin));
  }

  bool rule() {
    const std::string left = name();
    if (left.empty()) return fail("a rule name");
    space(false);
    if (text_.substr(pos_, 3) != "::=") return fail("\"::=\"");
    pos_ += 3;
    space(true);
    const int32_t number = builder_.rule(left);
    if (builder_.defined(number)) return fail(fmt::format("no second definition of rule \"{}\"", left));
    std::vector<Sequence> all;
    if (!alternatives(all, 0)) return false;
    builder_.define(number, std::move(all));
    if (pos_ < text_.size() && !at('\n') && !at('\r')) return fail("the end of the line");
    space(true);
    return true;
  }

  bool alternatives(std::vector<Sequence>& out, int depth) {
    if (depth > kMaxDepth) return fail("fewer nested groups");
    for (;;) {
      Sequence one;
      if (!sequence(one, depth)) return false;
      out.push_back(std::move(one));
      if (!at('|')) return true;
      ++pos_;
      space(true);
    }
  }

  bool sequence(Sequence& out, int depth) {
    while (pos_ < text_.size()) {
      Sequence unit;
      const char c = text_[pos_];
      if (c == '"') {
        if (!literal(unit)) return false;
      } else if (c == '[') {
        if (!character_class(unit)) return false;
      } else if (c == '.') {
        ++pos_;
        unit.push_back(builder_.code_points({}, true));
      } else if (c == '(') {
        ++pos_;
        space(true);
        std::vector<Sequence> inner;
        if (!alternatives(inner, depth + 1)) return false;
        if (!at(')')) return fail("\")\"");
        ++pos_;
        const int32_t group = builder_.fresh("group");
        builder_.define(group, std::move(inner));
        unit.push_back({false, group});
      } else if (c == '<' || c == '!') {
        return fail("no token literal (they are not supported)");
      } else if (is_name(c)) {
        unit.push_back({false, builder_.rule(name())});
      } else {
        return true;
      }
      space(depth > 0);
      if (!repetition(std::move(unit), out)) return false;
      space(depth > 0);
    }
    return true;
  }

  bool repetition(Sequence unit, Sequence& out) {
    int64_t min = 1, max = 1;
    if (at('*')) {
      min = 0, max = -1, ++pos_;
    } else if (at('+')) {
      max = -1, ++pos_;
    } else if (at('?')) {
      min = 0, ++pos_;
    } else if (at('{')) {
      ++pos_;
      if (!bounds(min, max)) return false;
    } else {
      out.insert(out.end(), unit.begin(), unit.end());
      return true;
    }
    if (unit.empty()) return true;  // "" repeated
    if (Status added = builder_.append_repeated(std::move(unit), min, max, out); !added) {
      failure_ = added.error();
      return false;
    }
    return true;
  }

  bool number(int64_t& value) {
    if (pos_ >= text_.size() || text_[pos_] < '0' || text_[pos_] > '9') return fail("a number");
    value = 0;
    for (; pos_ < text_.size() && text_[pos_] >= '0' && text_[pos_] <= '9'; ++pos_) {
      value = std::min<int64_t>(value * 10 + (text_[pos_] - '0'), int64_t{1} << 40);
    }
    return true;
  }

  bool bounds(int64_t& min, int64_t& max) {
    space(false);
    if (!number(min)) return false;
    max = min;
    space(false);
    if (at(',')) {
      ++pos_;
      space(false);
      max = -1;
      if (!at('}') && !number(max)) return false;
      space(false);
    }
    if (!at('}')) return fail("\"}\"");
    ++pos_;
    return true;
  }

  /// One code point of a literal or class, escapes resolved.
  bool character(uint32_t& code_point) {
    const Utf8Step step = utf8_step(text_.substr(pos_));
    if (step.bytes == 0 || !step.valid) return fail("a UTF-8 character");
    pos_ += step.bytes;
    code_point = step.code_point;
    if (code_point != '\\') return true;
    if (pos_ >= text_.size()) return fail("an escape");
    const char c = text_[pos_];
    constexpr std::string_view kNames = "tnr\\\"[]-^", kValues = "\t\n\r\\\"[]-^";
    if (const size_t known = kNames.find(c); known != std::string_view::npos) {
      code_point = static_cast<uint8_t>(kValues[known]);
      ++pos_;
      return true;
    }
    const int digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (digits == 0) return fail("an escape: \\t \\n \\r \\\\ \\\" \\[ \\] \\xHH \\uHHHH \\UHHHHHHHH");
    ++pos_;
    code_point = 0;
    for (int i = 0; i < digits; ++i, ++pos_) {
      const char h = pos_ < text_.size() ? text_[pos_] : ' ';
      const int v = h >= '0' && h <= '9'   ? h - '0'
                    : h >= 'a' && h <= 'f' ? h - 'a' + 10
                    : h >= 'A' && h <= 'F' ? h - 'A' + 10
                                           : -1;
      if (v < 0) return fail("a hexadecimal digit");
      code_point = code_point * 16 + static_cast<uint32_t>(v);
    }
    const bool surrogate = code_point >= 0xd800 && code_point <= 0xdfff;
    return (code_point <= 0x10ffff && !surrogate) || fail("a Unicode code point before it");
  }

  bool literal(Sequence& out) {
    ++pos_;
    std::string bytes;
    while (!at('"')) {
      if (pos_ >= text_.size() || at('\n')) return fail("the closing quote of a literal");
      uint32_t code_point = 0;
      if (!character(code_point)) return false;
      utf8_append(bytes, code_point);
    }
    ++pos_;
    builder_.append_literal(bytes, out);
    return true;
  }

  bool character_class(Sequence& out) {
    ++pos_;
    const bool complement = at('^');
    if (complement) ++pos_;
    std::vector<CodePointRange> ranges;
    while (!at(']')) {
      if (pos_ >= text_.size()) return fail("the \"]\" of a character class");
      uint32_t first = 0;
      if (!character(first)) return false;
      uint32_t last = first;
      if (at('-') && pos_ + 1 < text_.size() && text_[pos_ + 1] != ']') {
        ++pos_;
        if (!character(last)) return false;
        if (last < first) return fail("a range in ascending order before it");
      }
      ranges.push_back({first, last});
    }
    if (ranges.empty() && !complement) return fail("a character in the class");
    ++pos_;
    out.push_back(builder_.code_points(std::move(ranges), complement));
    return true;
  }

  std::string_view text_;
  size_t pos_ = 0;
  RuleBuilder builder_;
  std::optional<Error> failure_;
};

}  // namespace

Result<GrammarProgram> parse_gbnf(std::string_view text) {
  if (text.size() > kMaxText) {
    return bad_usage("the grammar has {} bytes: at most {} are accepted", text.size(), kMaxText);
  }
  return Parser(text).parse();
}

}  // namespace mete
