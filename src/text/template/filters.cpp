// Filters of Jinja 3.1 as transformers' environment has them (autoescape off, its own tojson).
#include <cmath>

#include <algorithm>
#include <charconv>

#include "text/template/interpreter.h"
#include "text/template/sequence_filters.h"

namespace mete::jinja {

namespace {

Text input_text(Interpreter& in, const Call& call) {
  Text text = to_text(call.self);
  in.spend(text.size() / 16);
  return text;
}

template <Text (*Map)(const Text&)>
Value map_text(Interpreter& in, const Call& call) {
  bind(call, {}, 0);
  return in.string(Map(input_text(in, call)));
}

Text title_words(const Text& text) {  // upper after white space and - ( { [ <
  Text out;
  bool start = true;
  for (size_t i = 0, size = 0; i < text.size(); i += size) {
    const uint32_t c = decode_char(text.view(), i, &size);
    const bool boundary = is_space(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<';
    const Text piece = text.slice(i, i + size);
    out.append(boundary ? piece : start ? upper(piece) : lower(piece));
    start = boundary;
  }
  return out;
}

Value trim(Interpreter& in, const Call& call) {
  const auto args = bind(call, {"chars"}, 0);
  const Text text = input_text(in, call);
  const bool given = args[0] && !args[0]->is(Kind::kNone);
  return in.string(strip(text, Side::kBoth, given ? &text_argument(call, *args[0]) : nullptr));
}

Value replace_filter(Interpreter& in, const Call& call) {
  const auto args = bind(call, {"old", "new", "count"}, 2);
  const bool counted = args[2] && !args[2]->is(Kind::kNone);
  Text out = replace(input_text(in, call), to_text(*args[0]), to_text(*args[1]),
                     counted ? int_argument(call, args[2], -1) : -1);
  out.markup = false;
  return in.string(std::move(out));
}

Value string_filter(Interpreter& in, const Call& call) {
  bind(call, {}, 0);
  return call.self.is(Kind::kString) ? call.self : in.string(to_text(call.self));
}

Value safe(Interpreter& in, const Call& call) {
  bind(call, {}, 0);
  Text text = to_text(call.self);
  text.markup = true;
  return in.string(std::move(text));
}

Value default_filter(Interpreter& in, const Call& call) {
  const auto args = bind(call, {"default_value", "boolean"}, 0);
  const bool falsy = args[1] && truth(*args[1]);
  if (!call.self.is(Kind::kUndefined) && !(falsy && !truth(call.self))) return call.self;
  return args[0] ? *args[0] : in.arena.literal("");
}

Value indent(Interpreter& in, const Call& call) {
  const auto args = bind(call, {"width", "first", "blank"}, 0);
  Text pad;
  if (args[0] && args[0]->is(Kind::kString)) {
    pad = *args[0]->text;
  } else {
    const int64_t width = int_argument(call, args[0], 4);
    if (width > 1000) in.fail("indent: width {}, expected at most 1000", width);
    pad = Text(std::string(static_cast<size_t>(std::max<int64_t>(width, 0)), ' '), Origin::kTemplate);
  }
  const bool blank = args[2] && truth(*args[2]);
  Text text = input_text(in, call);
  text.append("\n", Origin::kTemplate);
  Text out;
  if (args[1] && truth(*args[1])) out.append(pad);
  bool first = true;
  for (const Text& line : split_lines(text, false)) {
    if (!first) out.append("\n", Origin::kTemplate);
    if (!first && (blank || !line.empty())) out.append(pad);
    first = false;
    out.append(line);
  }
  in.spend(out.size() / 16);
  return in.string(std::move(out));
}

/// json.dumps accepts an indent as a number or a string.
Value tojson(Interpreter& in, const Call& call) {
  const auto args = bind(call, {"ensure_ascii", "indent", "separators", "sort_keys"}, 0);
  JsonOptions options;
  options.ensure_ascii = args[0] && truth(*args[0]);
  options.sort_keys = args[3] && truth(*args[3]);
  if (args[1] && !args[1]->is(Kind::kNone)) {
    options.pretty = true;
    options.item_separator = Text(",", Origin::kTemplate);
    if (args[1]->is(Kind::kString)) {
      options.indent = std::string(args[1]->view());
    } else {
      const int64_t width = int_argument(call, args[1], 0);
      if (width > 100) in.fail("tojson: indent {}, expected at most 100", width);
      options.indent = std::string(static_cast<size_t>(std::max<int64_t>(width, 0)), ' ');
    }
  }
  if (args[2] && !args[2]->is(Kind::kNone)) {
    const std::vector<Value> both = in.elements(*args[2]);
    if (both.size() != 2) in.fail("tojson: {} separators, expected 2", both.size());
    options.item_separator = text_argument(call, both[0]);
    options.key_separator = text_argument(call, both[1]);
  }
  Text out;
  if (call.self.is(Kind::kUndefined)) in.fail("tojson: object of type Undefined is not JSON serializable");
  to_json(call.self, options, &out);
  in.spend(out.size() / 4);
  return in.string(std::move(out));
}

Value format(Interpreter& in, const Call& call) {
  const Text pattern = to_text(call.self);
  if (!call.args.empty() && !call.named.empty()) in.fail("format: positional and keyword arguments at once");
  if (call.named.empty()) {
    return in.string(format_percent(in, pattern, in.arena.sequence(Kind::kTuple, call.args)));
  }
  Dict* dict = in.arena.dict();
  for (const auto& [name, value] : call.named) in.arena.set(dict, in.arena.literal(name), value);
  return in.string(format_percent(in, pattern, Value::of(dict)));
}

Value center(Interpreter& in, const Call& call) {
  const auto args = bind(call, {"width"}, 0);
  const Text text = input_text(in, call);
  const int64_t width = int_argument(call, args[0], 80);
  if (width > 100000) in.fail("center: width {}, expected at most 100000", width);
  const int64_t pad = width - static_cast<int64_t>(count_chars(text.view()));
  if (pad <= 0) return in.string(text);
  const int64_t left = pad / 2 + (pad & width & 1);  // as CPython's str.center
  Text out(std::string(static_cast<size_t>(left), ' '), Origin::kTemplate);
  out.append(text);
  out.append(std::string(static_cast<size_t>(pad - left), ' '), Origin::kTemplate);
  return in.string(std::move(out));
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && is_space(static_cast<uint8_t>(text.front()))) text.remove_prefix(1);
  while (!text.empty() && is_space(static_cast<uint8_t>(text.back()))) text.remove_suffix(1);
  return text;
}

std::optional<double> parse_float(std::string_view text) {
  text = trimmed(text);
  if (!text.empty() && text.front() == '+') text.remove_prefix(1);
  double value = 0;
  const auto end = text.data() + text.size();
  const auto result = std::from_chars(text.data(), end, value);
  if (text.empty() || result.ec != std::errc() || result.ptr != end) return std::nullopt;
  return value;
}

std::optional<int64_t> parse_int(std::string_view text, int base) {
  text = trimmed(text);
  if (!text.empty() && text.front() == '+') text.remove_prefix(1);
  if (base == 16 && text.substr(0, 2) == "0x") text.remove_prefix(2);
  int64_t value = 0;
  const auto end = text.data() + text.size();
  const auto result = std::from_chars(text.data(), end, value, base);
  if (text.empty() || result.ec != std::errc() || result.ptr != end) return std::nullopt;
  return value;
}

Value int_filter(Interpreter& in, const Call& call) {
  const auto args = bind(call, {"default", "base"}, 0);
  const Value otherwise = args[0] ? *args[0] : Value::of(int64_t{0});
  const int64_t base = int_argument(call, args[1], 10);
  if (base < 2 || base > 36) in.fail("int: base {}, expected 2 to 36", base);
  if (call.self.is(Kind::kUndefined)) in.fail_undefined(call.self);
  if (call.self.is_integral()) return Value::of(call.self.as_int());
  std::optional<double> number;
  if (call.self.is(Kind::kFloat)) number = call.self.number;
  if (call.self.is(Kind::kString)) {
    if (const auto value = parse_int(call.self.view(), static_cast<int>(base))) return Value::of(*value);
    number = parse_float(call.self.view());
  }
  if (!number || !(std::fabs(*number) < 9.2e18)) return otherwise;
  return Value::of(static_cast<int64_t>(*number));
}

Value float_filter(Interpreter& in, const Call& call) {
  const auto args = bind(call, {"default"}, 0);
  if (call.self.is(Kind::kUndefined)) in.fail_undefined(call.self);
  if (call.self.is_number()) return Value::of(call.self.as_double());
  if (call.self.is(Kind::kString)) {
    if (const auto value = parse_float(call.self.view())) return Value::of(*value);
  }
  return args[0] ? *args[0] : Value::of(0.0);
}

Value abs_filter(Interpreter& in, const Call& call) {
  bind(call, {}, 0);
  if (call.self.is(Kind::kUndefined)) in.fail_undefined(call.self);
  if (!call.self.is_number()) in.fail("abs: expected a number, found '{}'", type_name(call.self));
  if (call.self.is(Kind::kFloat)) return Value::of(std::fabs(call.self.number));
  return call.self.as_int() < 0 ? in.binary("-", Value::of(int64_t{0}), call.self)
                                : Value::of(call.self.as_int());
}

Value round_filter(Interpreter& in, const Call& call) {
  const auto args = bind(call, {"precision", "method"}, 0);
  const int64_t precision = int_argument(call, args[0], 0);
  const std::string_view method = args[1] ? text_argument(call, *args[1]).view() : std::string_view("common");
  if (call.self.is(Kind::kUndefined)) in.fail_undefined(call.self);
  if (!call.self.is_number()) in.fail("round: expected a number, found '{}'", type_name(call.self));
  if (precision < 0 || precision > 15) in.fail("round: precision {}, expected 0 to 15", precision);
  if (method == "common") {
    if (call.self.is_integral()) return Value::of(call.self.as_int());
    if (!std::isfinite(call.self.number)) return call.self;
    // Correct rounding of the decimal expansion, ties (exact ones only) to even, as Python's round.
    const std::string digits = fmt::format("{:.{}f}", call.self.number, precision);
    return Value::of(*parse_float(digits));
  }
  if (method != "ceil" && method != "floor")
    in.fail("round: method '{}', expected common, ceil or floor", method);
  const double scale = std::pow(10.0, static_cast<double>(precision));
  const double scaled = call.self.as_double() * scale;
  return Value::of((method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / scale);
}

Value word_count(Interpreter& in, const Call& call) {
  const Text text = input_text(in, call);
  int64_t words = 0;
  bool inside = false;
  for (size_t i = 0, size = 0; i < text.size(); i += size) {
    const uint32_t c = decode_char(text.view(), i, &size);
    const bool word = is_alpha(c) || is_digit(c) || c == '_';
    words += word && !inside ? 1 : 0;
    inside = word;
  }
  return Value::of(words);
}

Value attr(Interpreter& in, const Call& call) {
  const auto args = bind(call, {"name"}, 1);
  const Value& self = call.self;
  const std::string_view name = text_argument(call, *args[0]).view();
  if (self.is(Kind::kUndefined)) in.fail_undefined(self);
  if (self.is(Kind::kDict)) return in.undefined(fmt::format("'dict object' has no attribute '{}'", name));
  return in.attribute(self, name);
}

constexpr Function kFilters[] = {
    {"abs", abs_filter},
    {"attr", attr},
    {"capitalize", map_text<capitalize>},
    {"center", center},
    {"d", default_filter},
    {"default", default_filter},
    {"e", map_text<escape_html>},
    {"escape", map_text<escape_html>},
    {"float", float_filter},
    {"format", format},
    {"indent", indent},
    {"int", int_filter},
    {"lower", map_text<lower>},
    {"replace", replace_filter},
    {"round", round_filter},
    {"safe", safe},
    {"string", string_filter},
    {"title", map_text<title_words>},
    {"tojson", tojson},
    {"trim", trim},
    {"upper", map_text<upper>},
    {"wordcount", word_count},
};

}  // namespace

const Function* find_filter(std::string_view name) {
  for (const Function& function : kFilters) {
    if (name == function.name) return &function;
  }
  return find_sequence_filter(name);
}

}  // namespace mete::jinja
