// str(), repr() and tojson of values, with the bytes that Python 3 and its json module give.
#include <cmath>

#include <algorithm>
#include <charconv>

#include "text/template/value.h"

namespace mete::jinja {

namespace {

void literal(std::string_view bytes, Text* out) { out->append(bytes, Origin::kTemplate); }

[[noreturn]] void fail_deep() {
  throw run_failure("chat template: values nested deeper than {}", kMaxNesting);
}

}  // namespace

std::string float_repr(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char buffer[64];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific).ptr;
  std::string_view text(buffer, static_cast<size_t>(end - buffer));
  const std::string sign = text.front() == '-' ? "-" : "";
  text.remove_prefix(sign.size());
  const size_t e = text.find('e');
  std::string digits(text.substr(0, 1));
  if (e > 2) digits.append(text.substr(2, e - 2));
  const int exponent = std::stoi(std::string(text.substr(e + 1)));
  const int count = static_cast<int>(digits.size());
  if (exponent < -4 || exponent >= 16) {
    const std::string_view fraction = std::string_view(digits).substr(1);
    return fmt::format("{}{}{}{}e{}{:02d}", sign, digits[0], fraction.empty() ? "" : ".", fraction,
                       exponent < 0 ? '-' : '+', std::abs(exponent));
  }
  if (exponent < 0) return fmt::format("{}0.{:0>{}}{}", sign, "", -exponent - 1, digits);
  if (count <= exponent + 1) return fmt::format("{}{:0<{}}.0", sign, digits, exponent + 1);
  const auto whole = static_cast<size_t>(exponent) + 1;
  return fmt::format("{}{}.{}", sign, digits.substr(0, whole), digits.substr(whole));
}

namespace {

void repr_string(const Text& text, Text* out) {
  const std::string_view bytes = text.view();
  const bool single = bytes.find('\'') != std::string_view::npos && bytes.find('"') == std::string_view::npos;
  const char quote = single ? '"' : '\'';
  literal(std::string_view(&quote, 1), out);
  for (size_t i = 0, size = 0; i < bytes.size(); i += size) {
    const uint32_t c = decode_char(bytes, i, &size);
    const Origin origin = text.origin_at(i);
    if (c == static_cast<uint32_t>(quote) || c == '\\') {
      out->append("\\", origin);
      out->append(bytes.substr(i, size), origin);
    } else if (c == '\n' || c == '\r' || c == '\t') {
      out->append(c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t", origin);
    } else if (is_printable(c)) {
      out->append(bytes.substr(i, size), origin);
    } else if (c < 0x100) {
      out->append(fmt::format("\\x{:02x}", c), origin);
    } else if (c < 0x10000) {
      out->append(fmt::format("\\u{:04x}", c), origin);
    } else {
      out->append(fmt::format("\\U{:08x}", c), origin);
    }
  }
  literal(std::string_view(&quote, 1), out);
}

void repr_items(const std::vector<Value>& items, std::string_view open, std::string_view close, Text* out,
                int depth) {
  literal(open, out);
  for (size_t i = 0; i < items.size(); ++i) {
    if (i > 0) literal(", ", out);
    repr(items[i], out, depth + 1);
  }
  literal(close, out);
}

void repr_dict(const Dict& dict, Text* out, int depth) {
  literal("{", out);
  bool first = true;
  for (const auto& [key, value] : dict.entries()) {
    if (!first) literal(", ", out);
    first = false;
    repr(key, out, depth + 1);
    literal(": ", out);
    repr(value, out, depth + 1);
  }
  literal("}", out);
}

}  // namespace

void repr(const Value& value, Text* out, int depth) {
  if (depth > kMaxNesting) fail_deep();
  switch (value.kind) {
    case Kind::kUndefined:
      return literal("Undefined", out);
    case Kind::kNone:
      return literal("None", out);
    case Kind::kBool:
      return literal(value.boolean ? "True" : "False", out);
    case Kind::kInt:
      return literal(fmt::format("{}", value.integer), out);
    case Kind::kFloat:
      return literal(float_repr(value.number), out);
    case Kind::kString:
      if (value.text->markup) literal("Markup(", out);
      repr_string(*value.text, out);
      if (value.text->markup) literal(")", out);
      return;
    case Kind::kList:
      return repr_items(value.sequence->items, "[", "]", out, depth);
    case Kind::kTuple:
      return repr_items(value.sequence->items, "(", value.sequence->items.size() == 1 ? ",)" : ")", out,
                        depth);
    case Kind::kRange:
      return literal(value.sequence->label, out);
    case Kind::kView:
      return repr_items(value.sequence->items, value.sequence->label + "([", "])", out, depth);
    case Kind::kNamespace:
      literal("<Namespace ", out);
      repr_dict(value.space->attributes, out, depth);
      return literal(">", out);
    case Kind::kDict:
      return repr_dict(*value.dict, out, depth);
    default:
      return literal(fmt::format("<{}>", type_name(value)), out);
  }
}

Text to_text(const Value& value) {
  if (value.is(Kind::kString)) return *value.text;
  Text out;
  if (!value.is(Kind::kUndefined)) repr(value, &out);
  return out;
}

namespace {

void json_string(const Text& text, bool ensure_ascii, Text* out) {
  const std::string_view bytes = text.view();
  literal("\"", out);
  size_t done = 0;
  std::string escaped;
  for (size_t i = 0, size = 0; i < bytes.size(); i += size) {
    const uint32_t c = decode_char(bytes, i, &size);
    escaped.clear();
    switch (c) {
      case '"':
        escaped = "\\\"";
        break;
      case '\\':
        escaped = "\\\\";
        break;
      case '\n':
        escaped = "\\n";
        break;
      case '\r':
        escaped = "\\r";
        break;
      case '\t':
        escaped = "\\t";
        break;
      case '\f':
        escaped = "\\f";
        break;
      case '\b':
        escaped = "\\b";
        break;
      default:
        if (c >= 0x10000 && ensure_ascii) {
          escaped = fmt::format("\\u{:04x}\\u{:04x}", 0xD7C0 + (c >> 10), 0xDC00 + (c & 0x3FF));
        } else if (c < 0x20 || (ensure_ascii && c > 0x7E)) {
          escaped = fmt::format("\\u{:04x}", c);
        }
    }
    if (escaped.empty()) continue;
    out->append(text, done, i);
    out->append(escaped, text.origin_at(i));
    done = i + size;
  }
  out->append(text, done, bytes.size());
  literal("\"", out);
}

std::string json_number(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value < 0 ? "-Infinity" : "Infinity";
  return float_repr(value);
}

void json_break(const JsonOptions& options, int depth, Text* out) {
  if (!options.pretty) return;
  literal("\n", out);
  for (int i = 0; i < depth; ++i) literal(options.indent, out);
}

void json_key(const Value& key, const JsonOptions& options, Text* out) {
  Text name;
  switch (key.kind) {
    case Kind::kString:
      name = *key.text;
      break;
    case Kind::kBool:
      name = Text(key.boolean ? "true" : "false", Origin::kTemplate);
      break;
    case Kind::kNone:
      name = Text("null", Origin::kTemplate);
      break;
    case Kind::kInt:
      name = to_text(key);
      break;
    case Kind::kFloat:
      name = Text(json_number(key.number), Origin::kTemplate);
      break;
    default:
      throw run_failure("tojson: a key is '{}', expected str, int, float, bool or None", type_name(key));
  }
  json_string(name, options.ensure_ascii, out);
}

void json_dict(const Dict& dict, const JsonOptions& options, Text* out, int depth) {
  if (dict.size() == 0) return literal("{}", out);
  std::vector<Dict::Entry> entries = dict.entries();
  if (options.sort_keys) {
    std::stable_sort(entries.begin(), entries.end(),
                     [](const auto& a, const auto& b) { return compare(a.first, b.first) == -1; });
  }
  literal("{", out);
  for (size_t i = 0; i < entries.size(); ++i) {
    if (i > 0) out->append(options.item_separator);
    json_break(options, depth + 1, out);
    json_key(entries[i].first, options, out);
    out->append(options.key_separator);
    to_json(entries[i].second, options, out, depth + 1);
  }
  json_break(options, depth, out);
  literal("}", out);
}

}  // namespace

void to_json(const Value& value, const JsonOptions& options, Text* out, int depth) {
  if (depth > kMaxNesting) fail_deep();
  switch (value.kind) {
    case Kind::kNone:
      return literal("null", out);
    case Kind::kBool:
      return literal(value.boolean ? "true" : "false", out);
    case Kind::kInt:
      return literal(fmt::format("{}", value.integer), out);
    case Kind::kFloat:
      return literal(json_number(value.number), out);
    case Kind::kString:
      return json_string(*value.text, options.ensure_ascii, out);
    case Kind::kDict:
      return json_dict(*value.dict, options, out, depth);
    case Kind::kList:
    case Kind::kTuple: {
      const auto& items = value.sequence->items;
      if (items.empty()) return literal("[]", out);
      literal("[", out);
      for (size_t i = 0; i < items.size(); ++i) {
        if (i > 0) out->append(options.item_separator);
        json_break(options, depth + 1, out);
        to_json(items[i], options, out, depth + 1);
      }
      json_break(options, depth, out);
      return literal("]", out);
    }
    default:
      throw run_failure("tojson: object of type {} is not JSON serializable", type_name(value));
  }
}

}  // namespace mete::jinja
