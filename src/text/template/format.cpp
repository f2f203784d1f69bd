// str.format and the % operator, for the conversions that templates use.
#include <cmath>

#include <algorithm>

#include "text/template/interpreter.h"

namespace mete::jinja {

namespace {

constexpr int64_t kMaxWidth = 100000;

/// [[fill]align][sign][#][0][width][,][.precision][type] of Python's format specification.
struct Spec {
  Text fill{" ", Origin::kTemplate};
  char align = 0;
  char sign = '-';
  bool comma = false;
  int64_t width = 0;
  int64_t precision = -1;
  char type = 0;
};

int64_t digits(std::string_view text, size_t* at) {
  int64_t value = 0;
  while (*at < text.size() && is_digit(static_cast<uint8_t>(text[*at]))) {
    value = std::min(value * 10 + (text[*at] - '0'), kMaxWidth + 1);
    ++*at;
  }
  if (value > kMaxWidth) throw run_failure("format: a width or precision over {}", kMaxWidth);
  return value;
}

bool is_align(char c) { return c == '<' || c == '>' || c == '^' || c == '='; }

Spec parse_spec(std::string_view text) {
  Spec spec;
  size_t at = 0;
  const auto peek = [&](size_t i) { return i < text.size() ? text[i] : '\0'; };
  const size_t fill = text.empty() ? 0 : char_size(text, 0);
  if (fill > 0 && is_align(peek(fill))) {
    spec.fill = Text(text.substr(0, fill), Origin::kTemplate);
    spec.align = text[fill];
    at = fill + 1;
  } else if (is_align(peek(0))) {
    spec.align = text[at++];
  }
  if (peek(at) == '+' || peek(at) == '-' || peek(at) == ' ') spec.sign = text[at++];
  if (peek(at) == '0') {
    if (spec.align == 0) {
      spec.fill = Text("0", Origin::kTemplate);
      spec.align = '=';
    }
    ++at;
  }
  spec.width = digits(text, &at);
  if (peek(at) == ',') {
    spec.comma = true;
    ++at;
  }
  if (peek(at) == '.') {
    ++at;
    if (!is_digit(static_cast<uint8_t>(peek(at))))
      throw run_failure("format: missing precision in '{}'", text);
    spec.precision = digits(text, &at);
  }
  if (at < text.size()) spec.type = text[at++];
  if (at != text.size()) throw run_failure("format: specification '{}' is not supported", text);
  return spec;
}

std::string group_thousands(const std::string& number) {
  const size_t end = std::min(number.find_first_not_of("0123456789"), number.size());
  std::string out;
  for (size_t i = 0; i < end; ++i) {
    if (i > 0 && (end - i) % 3 == 0) out.push_back(',');
    out.push_back(number[i]);
  }
  return out + number.substr(end);
}

/// Magnitude of a number in the spec's type, without sign.
std::string magnitude(const Value& value, const Spec& spec) {
  const double number = value.as_double();
  if (value.is_integral() &&
      (spec.type == 0 || std::string_view("dxXob").find(spec.type) != std::string_view::npos)) {
    const int64_t integer = value.as_int();
    const uint64_t bits = integer < 0 ? 0 - static_cast<uint64_t>(integer) : static_cast<uint64_t>(integer);
    if (spec.type == 'x') return fmt::format("{:x}", bits);
    if (spec.type == 'X') return fmt::format("{:X}", bits);
    if (spec.type == 'o') return fmt::format("{:o}", bits);
    if (spec.type == 'b') return fmt::format("{:b}", bits);
    return fmt::format("{}", bits);
  }
  const double size = std::fabs(number);
  const int precision = static_cast<int>(spec.precision < 0 ? 6 : std::min<int64_t>(spec.precision, 500));
  switch (spec.type) {
    case 0:
      return spec.precision < 0 ? float_repr(size) : fmt::format("{:.{}g}", size, std::max(precision, 1));
    case 'f':
    case 'F':
      return fmt::format("{:.{}f}", size, precision);
    case 'e':
      return fmt::format("{:.{}e}", size, precision);
    case 'g':
      return fmt::format("{:.{}g}", size, std::max(precision, 1));
    case '%':
      return fmt::format("{:.{}f}%", size * 100, precision);
    default:
      throw run_failure("format: type '{}' for a {}", spec.type, type_name(value));
  }
}

Text pad(const Text& sign, const Text& body, const Spec& spec, char default_align) {
  const char align = spec.align ? spec.align : default_align;
  const auto used = static_cast<int64_t>(count_chars(sign.view()) + count_chars(body.view()));
  const int64_t missing = std::max<int64_t>(spec.width - used, 0);
  const int64_t left = align == '>' || align == '=' ? missing : align == '^' ? missing / 2 : 0;
  Text out;
  if (align == '=') out.append(sign);
  for (int64_t i = 0; i < left; ++i) out.append(spec.fill);
  if (align != '=') out.append(sign);
  out.append(body);
  for (int64_t i = left; i < missing; ++i) out.append(spec.fill);
  return out;
}

Text apply_spec(const Value& value, const Spec& spec) {
  if (value.is_number() && !(value.is(Kind::kBool) && spec.type == 0)) {
    std::string body = magnitude(value, spec);
    if (spec.comma) body = group_thousands(body);
    const bool negative = value.is(Kind::kFloat) ? std::signbit(value.number) : value.as_int() < 0;
    const std::string sign = negative ? "-" : spec.sign == '-' ? "" : std::string(1, spec.sign);
    return pad(Text(sign, Origin::kTemplate), Text(body, Origin::kTemplate), spec, '>');
  }
  if (spec.type != 0 && spec.type != 's') {
    throw run_failure("format: type '{}' for a {}", spec.type, type_name(value));
  }
  Text body = to_text(value);
  if (spec.precision >= 0) {
    const std::vector<size_t> offsets = char_offsets(body.view());
    body = body.slice(0, offsets[static_cast<size_t>(
                             std::min<int64_t>(spec.precision, static_cast<int64_t>(offsets.size()) - 1))]);
  }
  return pad(Text(), body, spec, '<');
}

/// The value that "name.attribute[key]" names.
Value field(Interpreter& in, const Call& call, std::string_view path, int64_t* next) {
  const size_t end = std::min(path.find_first_of(".["), path.size());
  const std::string_view name = path.substr(0, end);
  size_t at = 0;
  const bool numbered = !name.empty() && is_digit(static_cast<uint8_t>(name[0]));
  Value value;
  if (name.empty() || numbered) {
    const int64_t index = numbered ? digits(name, &at) : (*next)++;
    if (static_cast<size_t>(index) >= call.args.size()) in.fail("format: no argument {}", index);
    value = call.args[static_cast<size_t>(index)];
  } else {
    const auto found = std::find_if(call.named.begin(), call.named.end(),
                                    [&](const auto& argument) { return argument.first == name; });
    if (found == call.named.end()) in.fail("format: no argument '{}'", name);
    value = found->second;
  }
  for (path.remove_prefix(end); !path.empty();) {
    const bool bracket = path[0] == '[';
    const size_t stop = bracket ? path.find(']') : std::min(path.find_first_of(".[", 1), path.size());
    if (stop == std::string_view::npos) in.fail("format: missing ']'");
    const std::string_view part = path.substr(1, stop - 1);
    size_t used = 0;
    const bool index = bracket && !part.empty() && is_digit(static_cast<uint8_t>(part[0]));
    value = index ? in.item(value, Value::of(digits(part, &used))) : in.item(value, in.arena.literal(part));
    path.remove_prefix(stop + (bracket ? 1 : 0));
  }
  return value;
}

}  // namespace

Text format_braces(Interpreter& in, const Call& call) {
  const Text& text = *call.self.text;
  const std::string_view bytes = text.view();
  Text out;
  out.markup = text.markup;
  int64_t next = 0;
  size_t done = 0;
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (bytes[i] != '{' && bytes[i] != '}') continue;
    out.append(text, done, i);
    if (i + 1 < bytes.size() && bytes[i + 1] == bytes[i]) {
      done = ++i;  // the second brace stays
      continue;
    }
    const size_t close = bytes.find_first_of("{}", i + 1);
    if (bytes[i] == '}' || close == std::string_view::npos) in.fail("format: single '{}'", bytes[i]);
    if (bytes[close] == '{') in.fail("format: nested replacement fields are not supported");
    std::string_view inside = bytes.substr(i + 1, close - i - 1);
    const size_t colon = inside.find(':');
    const Spec spec = parse_spec(colon == std::string_view::npos ? "" : inside.substr(colon + 1));
    inside = inside.substr(0, colon);
    const size_t bang = inside.find('!');
    Value value = field(in, call, inside.substr(0, bang), &next);
    if (bang != std::string_view::npos) {
      const std::string_view conversion = inside.substr(bang + 1);
      if (conversion != "r" && conversion != "s")
        in.fail("format: conversion '{}' is not supported", conversion);
      Text shown;
      if (conversion == "r") repr(value, &shown);
      value = in.string(conversion == "r" ? shown : to_text(value));
    }
    out.append(apply_spec(value, spec));
    in.spend(1);
    done = close + 1;
    i = close;
  }
  out.append(text, std::min(done, bytes.size()), bytes.size());
  return out;
}

Text format_percent(Interpreter& in, const Text& format, const Value& arguments) {
  const std::string_view bytes = format.view();
  const bool tuple = arguments.is(Kind::kTuple);
  size_t next = 0;
  size_t done = 0;
  Text out;
  out.markup = format.markup;
  for (size_t i = bytes.find('%'); i != std::string_view::npos; i = bytes.find('%', done)) {
    out.append(format, done, i);
    size_t at = i + 1;
    std::optional<Value> value;
    if (at < bytes.size() && bytes[at] == '(') {
      const size_t close = bytes.find(')', at);
      if (close == std::string_view::npos) in.fail("%: incomplete format key");
      if (!arguments.is(Kind::kDict)) in.fail("%: format requires a mapping");
      const Value* found = arguments.dict->find(bytes.substr(at + 1, close - at - 1));
      if (!found) in.fail("%: no key '{}'", bytes.substr(at + 1, close - at - 1));
      value = *found;
      at = close + 1;
    }
    Spec spec;
    for (; at < bytes.size() && std::string_view("-+ 0#").find(bytes[at]) != std::string_view::npos; ++at) {
      if (bytes[at] == '-') spec.align = '<';
      if (bytes[at] == '+' || bytes[at] == ' ') spec.sign = bytes[at];
      if (bytes[at] == '0' && spec.align == 0) {
        spec.align = '=';
        spec.fill = Text("0", Origin::kTemplate);
      }
    }
    if (spec.align == 0) spec.align = '>';
    spec.width = digits(bytes, &at);
    if (at < bytes.size() && bytes[at] == '.') spec.precision = digits(bytes, &++at);
    if (at >= bytes.size()) in.fail("%: incomplete format");
    const char type = bytes[at++];
    done = at;
    in.spend(1);
    if (type == '%') {
      out.append("%", Origin::kTemplate);
      continue;
    }
    if (!value) {
      if (tuple ? next >= arguments.sequence->items.size() : next > 0) in.fail("%: not enough arguments");
      value = tuple ? arguments.sequence->items[next] : arguments;
      ++next;
    }
    if (type == 's' || type == 'r') {
      Text shown;
      if (type == 'r') repr(*value, &shown);
      value = in.string(type == 'r' ? shown : to_text(*value));
    } else if (std::string_view("dixXofeg").find(type) == std::string_view::npos) {
      in.fail("%: conversion '{}' is not supported", type);
    } else {
      if (value->is(Kind::kUndefined)) in.fail_undefined(*value);
      if (!value->is_number()) in.fail("%: %{} needs a number, found '{}'", type, type_name(*value));
      spec.type = type == 'i' ? 'd' : type;
      const bool integer = type == 'd' || type == 'i';
      if (integer && value->is(Kind::kFloat))
        value = in.filter({.name = "int", .self = *value, .args = {}, .named = {}});
    }
    out.append(apply_spec(*value, spec));
  }
  const bool all_used = !tuple || next == arguments.sequence->items.size();
  if (!all_used) in.fail("%: not all arguments converted during string formatting");
  out.append(format, done, bytes.size());
  return out;
}

}  // namespace mete::jinja
