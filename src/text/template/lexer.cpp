#include "text/template/lexer.h"

#include <algorithm>

#include "base/error.h"
#include "text/template/text.h"

namespace mete::jinja {

namespace {

std::string normalise_newlines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
      out.push_back('\n');
    } else {
      out.push_back(source[i]);
    }
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

bool is_name_start(char c) {
  const auto byte = static_cast<uint8_t>(c);
  return c == '_' || ((byte | 32) >= 'a' && (byte | 32) <= 'z') || byte >= 0x80;
}
bool is_digit_char(char c) { return c >= '0' && c <= '9'; }
bool is_name_char(char c) { return is_name_start(c) || is_digit_char(c); }

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(normalise_newlines(source)) {}

  std::vector<Token> run() {
    while (at_ < source_.size()) lex_data();
    push(TokenType::kEnd, "");
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void fail(std::string_view what) const {
    throw bad_model("chat template line {}: {}", line_, what);
  }
  std::string_view rest() const { return std::string_view(source_).substr(at_); }
  bool starts(std::string_view prefix) const { return rest().substr(0, prefix.size()) == prefix; }
  void push(TokenType type, std::string_view value) { tokens_.push_back({type, line_, std::string(value)}); }
  /// Moves on, counting lines.
  void advance(size_t bytes) {
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<std::ptrdiff_t>(at_),
                                         source_.begin() + static_cast<std::ptrdiff_t>(at_ + bytes), '\n'));
    at_ += bytes;
  }
  void skip_space() {
    size_t end = at_;
    for (size_t size = 0; end < source_.size(); end += size) {
      if (!is_space(decode_char(source_, end, &size))) break;
    }
    advance(end - at_);
  }

  void lex_data();
  void emit_data(std::string_view data, char sign, bool variable);
  bool lex_raw();
  void lex_comment();
  void lex_code(bool block);
  bool code_end(bool block);
  void lex_code_token();
  void lex_string();
  void lex_number();
  void close_block_end(bool trimmed_by_default);

  std::string source_;
  size_t at_ = 0;
  int line_ = 1;
  bool line_start_ = true;  // the text before at_ ended with a newline
  std::vector<char> brackets_;
  std::vector<Token> tokens_;
};

/// Data up to the next {{ {% or {#, then that construct.
void Lexer::lex_data() {
  size_t open = at_;
  while (true) {
    open = source_.find('{', open);
    if (open == std::string::npos || open + 1 >= source_.size()) {
      open = std::string::npos;
      break;
    }
    const char kind = source_[open + 1];
    if (kind == '{' || kind == '%' || kind == '#') break;
    ++open;
  }
  if (open == std::string::npos) {
    push(TokenType::kData, rest());
    advance(source_.size() - at_);
    return;
  }
  const char kind = source_[open + 1];
  const char sign = open + 2 < source_.size() ? source_[open + 2] : ' ';
  const std::string_view data = std::string_view(source_).substr(at_, open - at_);
  emit_data(data, sign, kind == '{');
  advance(data.size() + 2);
  line_start_ = false;
  if (kind == '#') return lex_comment();
  if (sign == '-' || sign == '+') advance(1);
  if (kind == '%' && lex_raw()) return;
  lex_code(kind == '%');
}

void Lexer::emit_data(std::string_view data, char sign, bool variable) {
  if (sign == '-') {
    const Text all(data, Origin::kTemplate);
    data = data.substr(0, strip(all, Side::kRight, nullptr).size());
  } else if (sign != '+' && !variable) {
    const size_t newline = data.rfind('\n');
    const size_t begin = newline == std::string_view::npos ? 0 : newline + 1;
    if (begin > 0 || line_start_) {
      const Text tail(data.substr(begin), Origin::kTemplate);
      if (strip(tail, Side::kLeft, nullptr).empty()) data = data.substr(0, begin);
    }
  }
  if (!data.empty()) push(TokenType::kData, data);
}

/// After "%}" or "#}" or their signed forms: `-` eats white space, plain eats one newline.
void Lexer::close_block_end(bool minus) {
  if (minus) {
    skip_space();
  } else if (starts("\n")) {
    advance(1);
  }
  line_start_ = at_ > 0 && source_[at_ - 1] == '\n';
}

void Lexer::lex_comment() {
  const size_t end = source_.find("#}", at_);
  if (end == std::string::npos) fail("missing end of comment tag");
  const char sign = end > at_ ? source_[end - 1] : ' ';
  advance(end + 2 - at_);
  if (sign == '+') {
    line_start_ = false;
    return;
  }
  close_block_end(sign == '-');
}

/// {% raw %}...{% endraw %}; false if this block is something else.
bool Lexer::lex_raw() {
  const auto skip_blanks = [&](size_t i) {
    for (size_t size = 0; i < source_.size(); i += size) {
      if (!is_space(decode_char(source_, i, &size))) break;
    }
    return i;
  };
  size_t i = skip_blanks(at_);
  if (source_.compare(i, 3, "raw") != 0) return false;
  i = skip_blanks(i + 3);
  const bool minus = source_.compare(i, 3, "-%}") == 0;
  if (!minus && source_.compare(i, 2, "%}") != 0) return false;
  advance(i + (minus ? 3 : 2) - at_);
  if (minus) skip_space();
  line_start_ = at_ > 0 && source_[at_ - 1] == '\n';
  for (size_t open = at_; (open = source_.find("{%", open)) != std::string::npos; ++open) {
    const char sign = open + 2 < source_.size() ? source_[open + 2] : ' ';
    size_t j = skip_blanks(open + 2 + (sign == '-' || sign == '+' ? 1 : 0));
    if (source_.compare(j, 6, "endraw") != 0) continue;
    j = skip_blanks(j + 6);
    const char end_sign = j < source_.size() ? source_[j] : ' ';
    if (end_sign == '-' || end_sign == '+') ++j;
    if (source_.compare(j, 2, "%}") != 0) continue;
    emit_data(std::string_view(source_).substr(at_, open - at_), sign, false);
    advance(j + 2 - at_);
    line_start_ = false;
    if (end_sign != '+') close_block_end(end_sign == '-');
    return true;
  }
  fail("missing end of raw directive");
}

void Lexer::lex_code(bool block) {
  push(block ? TokenType::kBlockBegin : TokenType::kVariableBegin, "");
  brackets_.clear();
  while (true) {
    if (at_ >= source_.size()) fail(block ? "missing '%}'" : "missing '}}'");
    if (brackets_.empty() && code_end(block)) return;
    lex_code_token();
  }
}

bool Lexer::code_end(bool block) {
  const std::string_view close = block ? "%}" : "}}";
  const char sign = starts("-") ? '-' : block && starts("+") ? '+' : ' ';
  const size_t offset = sign == ' ' ? 0 : 1;
  if (rest().substr(offset, 2) != close) return false;
  push(block ? TokenType::kBlockEnd : TokenType::kVariableEnd, "");
  advance(offset + 2);
  line_start_ = false;
  if (block) {
    if (sign != '+') close_block_end(sign == '-');
  } else if (sign == '-') {
    skip_space();
    line_start_ = source_[at_ - 1] == '\n';
  }
  return true;
}

void Lexer::lex_code_token() {
  size_t size = 0;
  const char c = source_[at_];
  if (is_space(decode_char(source_, at_, &size))) return skip_space();
  if (c == '\'' || c == '"') return lex_string();
  if (is_digit_char(c)) return lex_number();
  if (is_name_start(c)) {
    size_t end = at_;
    while (end < source_.size() && is_name_char(source_[end])) ++end;
    push(TokenType::kName, rest().substr(0, end - at_));
    return advance(end - at_);
  }
  for (const char* two : {"//", "**", "==", "!=", ">=", "<="}) {
    if (!starts(two)) continue;
    push(TokenType::kOperator, two);
    return advance(2);
  }
  if (std::string_view("+-/*%~[](){}><=.:|,;").find(c) == std::string_view::npos) {
    fail(fmt::format("unexpected character {}", rest().substr(0, size)));
  }
  if (c == '(' || c == '[' || c == '{') brackets_.push_back(c == '(' ? ')' : c == '[' ? ']' : '}');
  if (c == ')' || c == ']' || c == '}') {
    if (brackets_.empty()) fail(fmt::format("unexpected '{}'", c));
    if (brackets_.back() != c) fail(fmt::format("unexpected '{}', expected '{}'", c, brackets_.back()));
    brackets_.pop_back();
  }
  push(TokenType::kOperator, rest().substr(0, 1));
  advance(1);
}

void Lexer::lex_number() {
  size_t end = at_;
  const auto digits = [&](auto accept) {
    while (end < source_.size() &&
           (accept(source_[end]) ||
            (source_[end] == '_' && end + 1 < source_.size() && accept(source_[end + 1])))) {
      ++end;
    }
  };
  TokenType type = TokenType::kInteger;
  const char prefix = at_ + 1 < source_.size() ? static_cast<char>(source_[at_ + 1] | 32) : ' ';
  if (source_[at_] == '0' && (prefix == 'x' || prefix == 'o' || prefix == 'b')) {
    end += 2;
    digits([](char c) { return is_digit_char(c) || ((c | 32) >= 'a' && (c | 32) <= 'f'); });
  } else {
    digits(is_digit_char);
    if (end + 1 < source_.size() && source_[end] == '.' && is_digit_char(source_[end + 1])) {
      type = TokenType::kFloat;
      ++end;
      digits(is_digit_char);
    }
    if (end < source_.size() && (source_[end] | 32) == 'e') {
      size_t sign = end + 1;
      if (sign < source_.size() && (source_[sign] == '+' || source_[sign] == '-')) ++sign;
      if (sign < source_.size() && is_digit_char(source_[sign])) {
        type = TokenType::kFloat;
        end = sign;
        digits(is_digit_char);
      }
    }
  }
  std::string value(rest().substr(0, end - at_));
  value.erase(std::remove(value.begin(), value.end(), '_'), value.end());
  push(type, value);
  advance(end - at_);
}

/// A quoted string with Python's escapes; unknown escapes stay as written.
void Lexer::lex_string() {
  const char quote = source_[at_];
  std::string out;
  size_t i = at_ + 1;
  const auto hex = [&](size_t count) {
    uint32_t code = 0;
    for (size_t k = 0; k < count; ++k) {
      const char c = i + k < source_.size() ? static_cast<char>(source_[i + k] | 32) : ' ';
      if (!is_digit_char(c) && !(c >= 'a' && c <= 'f')) fail("malformed \\x, \\u or \\U escape in a string");
      code = code * 16 + static_cast<uint32_t>(is_digit_char(c) ? c - '0' : c - 'a' + 10);
    }
    i += count;
    if (code > 0x10FFFF) fail("escape over \\U0010ffff in a string");
    return code;
  };
  while (i < source_.size() && source_[i] != quote) {
    if (source_[i] != '\\') {
      out.push_back(source_[i++]);
      continue;
    }
    if (++i >= source_.size()) break;
    const char c = source_[i++];
    constexpr std::string_view kNames = "ntr\\'\"abfv";
    const size_t simple = kNames.find(c);
    if (simple != std::string_view::npos) {
      out.push_back("\n\t\r\\'\"\a\b\f\v"[simple]);
    } else if (c == 'x' || c == 'u' || c == 'U') {
      encode_char(hex(c == 'x' ? 2 : c == 'u' ? 4 : 8), &out);
    } else if (c >= '0' && c <= '7') {
      uint32_t code = static_cast<uint32_t>(c - '0');
      for (int k = 0; k < 2 && i < source_.size() && source_[i] >= '0' && source_[i] <= '7'; ++k) {
        code = code * 8 + static_cast<uint32_t>(source_[i++] - '0');
      }
      encode_char(code, &out);
    } else if (c != '\n') {
      out.push_back('\\');
      out.push_back(c);
    }
  }
  if (i >= source_.size()) fail("a string without its closing quote");
  push(TokenType::kString, out);
  advance(i + 1 - at_);
}

}  // namespace

std::vector<Token> tokenize(std::string_view source) { return Lexer(source).run(); }

}  // namespace mete::jinja
