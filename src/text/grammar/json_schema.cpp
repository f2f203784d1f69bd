#include "text/grammar/json_schema.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "text/grammar/integer_range.h"
#include "text/grammar/regex_gbnf.h"
#include "text/utf8.h"

namespace mete {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kMaxDepth = 64;
constexpr size_t kMaxText = size_t{1} << 22;  // of the GBNF

constexpr std::string_view kBasics = R"gbnf(
space ::= | " " | "\n"{1,2} [ \t]{0,20}
char ::= [^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt/] | "u" [0-9a-fA-F]{4})
string ::= "\"" char* "\""
whole ::= "0" | [1-9] [0-9]{0,15}
integer ::= "-"? whole
number ::= "-"? whole ("." [0-9]{1,16})? ([eE] [-+]? [0-9]{1,2})?
boolean ::= "true" | "false"
null ::= "null"
object ::= "{" space (string space ":" space value (space "," space string space ":" space value)*)? space "}"
array ::= "[" space (value (space "," space value)*)? space "]"
value ::= object | array | string | number | boolean | null
date ::= [0-9]{4} "-" ("0" [1-9] | "1" [0-2]) "-" ("0" [1-9] | [12] [0-9] | "3" [01])
time ::= ([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9] ":" [0-5] [0-9] ("." [0-9]{1,9})? ("Z" | [-+] ([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9])
octet ::= "25" [0-5] | "2" [0-4] [0-9] | "1" [0-9] [0-9] | [1-9]? [0-9]
label ::= [a-zA-Z0-9] ([-a-zA-Z0-9]{0,61} [a-zA-Z0-9])?
h16 ::= [0-9a-fA-F]{1,4}
)gbnf";

/// Bodies of string formats, in terms of kBasics.
const std::map<std::string, std::string, std::less<>> kFormats = {
    {"date", "date"},
    {"time", "time"},
    {"date-time", "date \"T\" time"},
    {"duration",
     "\"P\" ([0-9]{1,6} \"W\" | ([0-9]{1,6} \"Y\")? ([0-9]{1,6} \"M\")? [0-9]{1,6} \"D\" | "
     "([0-9]{1,6} \"D\")? \"T\" ([0-9]{1,6} \"H\")? ([0-9]{1,6} \"M\")? [0-9]{1,6} \"S\")"},
    {"uuid",
     "[0-9a-fA-F]{8} \"-\" [0-9a-fA-F]{4} \"-\" [0-9a-fA-F]{4} \"-\" [0-9a-fA-F]{4} \"-\" [0-9a-fA-F]{12}"},
    {"email", "[a-zA-Z0-9_+-]{1,32} (\".\" [a-zA-Z0-9_+-]{1,32}){0,4} \"@\" label (\".\" label){1,8}"},
    {"hostname", "label (\".\" label){0,8}"},
    {"ipv4", "octet \".\" octet \".\" octet \".\" octet"},
    {"ipv6",
     "(h16 \":\"){7} h16 | \"::\" (h16 (\":\" h16){0,5})? | h16 (\":\" h16){0,3} \"::\" (h16 (\":\" "
     "h16){0,2})?"},
    {"uri",
     "[a-zA-Z] [a-zA-Z0-9+.-]{0,15} \":\" ([a-zA-Z0-9._~:/?#@!$&'()*+,;=-] | \"%\" [0-9a-fA-F]{2}){1,2048}"},
};

const std::set<std::string, std::less<>> kAnnotations = {
    "title",       "description",     "default",          "examples", "example",   "$schema",
    "$id",         "$comment",        "deprecated",       "readOnly", "writeOnly", "$defs",
    "definitions", "contentEncoding", "contentMediaType", "$anchor"};

/// Keywords, and the type whose values they constrain ("": any).
const std::map<std::string, std::string, std::less<>> kKeywords = {{"type", ""},
                                                                   {"enum", ""},
                                                                   {"const", ""},
                                                                   {"anyOf", ""},
                                                                   {"oneOf", ""},
                                                                   {"allOf", ""},
                                                                   {"$ref", ""},
                                                                   {"properties", "object"},
                                                                   {"required", "object"},
                                                                   {"additionalProperties", "object"},
                                                                   {"items", "array"},
                                                                   {"prefixItems", "array"},
                                                                   {"minItems", "array"},
                                                                   {"maxItems", "array"},
                                                                   {"minLength", "string"},
                                                                   {"maxLength", "string"},
                                                                   {"pattern", "string"},
                                                                   {"format", ""},
                                                                   {"minimum", "number"},
                                                                   {"maximum", "number"},
                                                                   {"exclusiveMinimum", "number"},
                                                                   {"exclusiveMaximum", "number"}};

const std::set<std::string, std::less<>> kTypes = {"object",  "array",   "string", "number",
                                                   "integer", "boolean", "null"};

class Converter {
 public:
  explicit Converter(Json root) : root_(std::move(root)) {}

  Result<std::string> convert(std::string_view before, std::string_view after) {
    try {
      const std::string body = expression(root_, "#", 0);
      std::string out = fmt::format("root ::= {} ({}) {}\n", gbnf_literal(before), body, gbnf_literal(after));
      out += kBasics;
      for (const auto& [name, text] : rules_) out += name + " ::= " + text + "\n";
      return out;
    } catch (const Error& error) {
      return error;
    }
  }

 private:
  template <typename... Args>
  [[noreturn]] void fail(const std::string& place, fmt::format_string<Args...> format, Args&&... args) const {
    throw bad_usage("JSON schema {}: {}", place, fmt::format(format, std::forward<Args>(args)...));
  }

  /// A short rendering of a value, for messages.
  static std::string show(const Json& value) {
    std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
    if (text.size() > 60)
      text = text.substr(0, utf8_valid_prefix(std::string_view(text).substr(0, 57))) + "...";
    return text;
  }

  std::string add_rule(std::string text) {
    size_ += text.size();
    if (size_ > kMaxText) throw bad_usage("JSON schema: its grammar is larger than {} bytes", kMaxText);
    std::string name = fmt::format("r{}", rules_.size());
    rules_.emplace_back(name, std::move(text));
    return name;
  }

  static std::string literal(const Json& value) {
    return gbnf_literal(value.dump(-1, ' ', false, Json::error_handler_t::replace));
  }

  static std::string join_alternatives(const std::vector<std::string>& all) {
    return all.size() == 1 ? all[0] : fmt::format("({})", fmt::join(all, " | "));
  }

  int64_t count(const Json& schema, const char* key, const std::string& place, int64_t fallback) const {
    if (!schema.contains(key)) return fallback;
    const Json& v = schema[key];
    if (!v.is_number_integer() || v < 0 || v > 10000) {
      fail(place + "/" + key, "found {}, expected a whole number from 0 to 10000", show(v));
    }
    return v.get<int64_t>();
  }

  void check_keywords(const Json& schema, const std::string& place) const {
    for (const auto& [key, value] : schema.items()) {
      if (kAnnotations.contains(key) || kKeywords.contains(key)) continue;
      if (key == "uniqueItems" && value == false) continue;
      fail(place, "the keyword \"{}\" is not supported", key);
    }
  }

  /// GBNF of a value that fits `schema`.
  std::string expression(const Json& schema, const std::string& place, int depth) {
    if (depth > kMaxDepth) fail(place, "nested more than {} deep", kMaxDepth);
    if (schema.is_boolean()) {
      if (schema == false) fail(place, "found false, which nothing fits");
      return "value";
    }
    if (!schema.is_object()) fail(place, "found {}, expected an object or true", show(schema));
    check_keywords(schema, place);
    if (schema.contains("$ref")) return reference(schema, place, depth);
    if (schema.contains("allOf")) return expression(merge_all(schema, place, depth), place, depth + 1);
    for (const char* key : {"anyOf", "oneOf"}) {
      if (schema.contains(key)) return any_of(schema, key, place, depth);
    }
    if (schema.contains("const")) return checked_literal(schema, schema["const"], place + "/const");
    if (schema.contains("enum")) return enumeration(schema, place);
    return typed(schema, place, depth);
  }

  std::string checked_literal(const Json& schema, const Json& value, const std::string& place) const {
    if (schema.contains("type") && !fits_type(schema["type"], value)) {
      fail(place, "{} is not of the type {}", show(value), show(schema["type"]));
    }
    return literal(value);
  }

  static bool fits_type(const Json& type, const Json& value) {
    if (type.is_array()) {
      return std::any_of(type.begin(), type.end(), [&](const Json& t) { return fits_type(t, value); });
    }
    if (value.is_object()) return type == "object";
    if (value.is_array()) return type == "array";
    if (value.is_string()) return type == "string";
    if (value.is_boolean()) return type == "boolean";
    if (value.is_null()) return type == "null";
    return type == "number" || (type == "integer" && value.is_number_integer());
  }

  std::string enumeration(const Json& schema, const std::string& place) const {
    const Json& values = schema["enum"];
    if (!values.is_array() || values.empty()) {
      fail(place + "/enum", "found {}, expected a list of values", show(values));
    }
    std::vector<std::string> all;
    for (const Json& v : values) {
      if (!schema.contains("type") || fits_type(schema["type"], v)) all.push_back(literal(v));
    }
    if (all.empty()) fail(place + "/enum", "no value is of the type {}", show(schema["type"]));
    return join_alternatives(all);
  }

  /// The schema with `part` merged in: what both demand. Keywords that both have must be equal, except for
  /// those that can be joined.
  Json merged(Json base, const Json& part, const std::string& place) const {
    if (part.is_boolean() && part == true) return base;
    if (!part.is_object()) fail(place, "found {}, expected an object", show(part));
    for (const auto& [key, value] : part.items()) {
      if (kAnnotations.contains(key)) continue;
      if (!base.contains(key)) {
        base[key] = value;
      } else if (key == "properties" && value.is_object() && base[key].is_object()) {
        for (const auto& [name, property] : value.items()) {
          if (!base[key].contains(name)) {
            base[key][name] = property;
          } else if (base[key][name] != property) {
            base[key][name] = merged(base[key][name], property, place + "/properties/" + name);
          }
        }
      } else if (key == "required" && value.is_array() && base[key].is_array()) {
        for (const Json& name : value) {
          if (std::find(base[key].begin(), base[key].end(), name) == base[key].end())
            base[key].push_back(name);
        }
      } else if (base[key] != value) {
        fail(place, "\"{}\" is {} and also {}: such a combination is not supported", key, show(base[key]),
             show(value));
      }
    }
    return base;
  }

  Json resolved(const Json& schema, const std::string& place, int depth) const {
    if (depth > kMaxDepth) fail(place, "$ref leads back to itself");
    if (!schema.is_object() || !schema.contains("$ref")) return schema;
    Json rest = schema;
    rest.erase("$ref");
    return merged(resolved(target(schema["$ref"], place), place, depth + 1), rest, place);
  }

  Json merge_all(const Json& schema, const std::string& place, int depth) const {
    const Json& parts = schema["allOf"];
    if (!parts.is_array() || parts.empty()) fail(place + "/allOf", "found {}, expected a list", show(parts));
    Json out = schema;
    out.erase("allOf");
    for (size_t i = 0; i < parts.size(); ++i) {
      const std::string there = fmt::format("{}/allOf/{}", place, i);
      out = merged(std::move(out), resolved(parts[i], there, depth), there);
    }
    return out;
  }

  std::string any_of(const Json& schema, const char* key, const std::string& place, int depth) {
    const Json& parts = schema[key];
    if (!parts.is_array() || parts.empty()) fail(place + "/" + key, "found {}, expected a list", show(parts));
    Json rest = Json::object();
    for (const auto& [name, value] : schema.items()) {
      if (name != key && !kAnnotations.contains(name)) rest[name] = value;
    }
    std::vector<std::string> all;
    for (size_t i = 0; i < parts.size(); ++i) {
      const std::string there = fmt::format("{}/{}/{}", place, key, i);
      all.push_back(
          rest.empty() ? expression(parts[i], there, depth + 1)
                       : expression(merged(rest, resolved(parts[i], there, depth), there), there, depth + 1));
    }
    return join_alternatives(all);
  }

  const Json& target(const Json& ref, const std::string& place) const {
    if (!ref.is_string()) fail(place + "/$ref", "found {}, expected a string", show(ref));
    const auto text = ref.get<std::string>();
    if (text.empty() || text[0] != '#') {
      fail(place + "/$ref", "found \"{}\", expected a place in this schema (#/...)", text);
    }
    try {
      return root_.at(Json::json_pointer(text.substr(1)));
    } catch (const Json::exception&) {
      fail(place + "/$ref", "there is nothing at \"{}\"", text);
    }
  }

  std::string reference(const Json& schema, const std::string& place, int depth) {
    const bool alone = std::all_of(schema.items().begin(), schema.items().end(), [](const auto& item) {
      return item.key() == "$ref" || kAnnotations.contains(item.key());
    });
    if (!alone) return expression(resolved(schema, place, depth), place, depth + 1);
    const Json& to = target(schema["$ref"], place);
    const auto key = schema["$ref"].get<std::string>();
    if (const auto known = references_.find(key); known != references_.end()) return known->second;
    const std::string name = fmt::format("ref{}", references_.size());
    references_.emplace(key, name);
    std::string body = expression(to, key, depth + 1);
    size_ += body.size();
    rules_.emplace_back(name, std::move(body));
    return name;
  }

  std::string typed(const Json& schema, const std::string& place, int depth) {
    if (!schema.contains("type")) {
      for (const auto& [key, value] : schema.items()) {
        const auto keyword = kKeywords.find(key);
        if (keyword != kKeywords.end() && !keyword->second.empty()) {
          return one_type(schema, keyword->second, place, depth);
        }
        if (key == "format") return one_type(schema, "string", place, depth);
      }
      return "value";
    }
    const Json& type = schema["type"];
    if (type.is_string()) return one_type(schema, type.get<std::string>(), place, depth);
    if (!type.is_array() || type.empty())
      fail(place + "/type", "found {}, expected a type's name", show(type));
    std::vector<std::string> all;
    for (const Json& t : type) {
      if (!t.is_string()) fail(place + "/type", "found {}, expected a type's name", show(t));
      all.push_back(one_type(schema, t.get<std::string>(), place, depth));
    }
    return join_alternatives(all);
  }

  std::string one_type(const Json& schema, const std::string& type, const std::string& place, int depth) {
    if (!kTypes.contains(type)) {
      fail(place + "/type", "found \"{}\", expected object, array, string, number, integer, boolean or null",
           type);
    }
    if (type == "object") return object(schema, place, depth);
    if (type == "array") return array(schema, place, depth);
    if (type == "string") return string(schema, place);
    if (type == "integer" || type == "number") return number(schema, type == "integer", place);
    return type;
  }

  std::string number(const Json& schema, bool integer, const std::string& place) const {
    NumberBounds bounds;
    const auto read = [&](const char* key, std::optional<int64_t>& bound) {
      if (!schema.contains(key)) return;
      const Json& v = schema[key];
      constexpr double kMost = 1e15;
      if (!v.is_number() || v.get<double>() != static_cast<double>(static_cast<int64_t>(v.get<double>())) ||
          v.get<double>() > kMost || v.get<double>() < -kMost) {
        fail(place + "/" + key, "found {}, expected a whole number within 1e15", show(v));
      }
      bound = static_cast<int64_t>(v.get<double>());
    };
    read("minimum", bounds.minimum);
    read("maximum", bounds.maximum);
    read("exclusiveMinimum", bounds.exclusive_minimum);
    read("exclusiveMaximum", bounds.exclusive_maximum);
    if (bounds.none()) return integer ? "integer" : "number";
    const std::string text = integer ? integer_range_gbnf(bounds) : number_range_gbnf(bounds);
    if (text.empty()) fail(place, "no number lies between the bounds");
    return text;
  }

  std::string string(const Json& schema, const std::string& place) const {
    const bool bounded = schema.contains("minLength") || schema.contains("maxLength");
    const bool has_pattern = schema.contains("pattern"), has_format = schema.contains("format");
    if ((bounded ? 1 : 0) + (has_pattern ? 1 : 0) + (has_format ? 1 : 0) > 1) {
      fail(place, "more than one of length bounds, \"pattern\" and \"format\" is not supported");
    }
    if (bounded) {
      const int64_t min = count(schema, "minLength", place, 0), max = count(schema, "maxLength", place, -1);
      if (max >= 0 && max < min) fail(place, "maxLength {} is below minLength {}", max, min);
      return fmt::format("\"\\\"\" char{{{},{}}} \"\\\"\"", min, max < 0 ? "" : std::to_string(max));
    }
    std::string body;
    if (has_pattern) {
      const Json& pattern = schema["pattern"];
      if (!pattern.is_string()) fail(place + "/pattern", "found {}, expected a string", show(pattern));
      Result<std::string> text = regex_to_gbnf(pattern.get<std::string>());
      if (!text) fail(place + "/pattern", "{}", text.error().message());
      body = *text;
    } else if (has_format) {
      const auto format =
          schema["format"].is_string() ? kFormats.find(schema["format"].get<std::string>()) : kFormats.end();
      if (format == kFormats.end()) {
        std::string names;
        for (const auto& [name, text] : kFormats) names += (names.empty() ? "" : ", ") + name;
        fail(place + "/format", "found {}, expected one of {}", show(schema["format"]), names);
      }
      body = format->second;
    } else {
      return "string";
    }
    return "\"\\\"\" (" + body + ") \"\\\"\"";
  }

  std::string array(const Json& schema, const std::string& place, int depth) {
    std::vector<std::string> first;  // of the first elements
    std::string rest = "value";      // of the others; empty: there are none
    const bool draft7 = schema.contains("items") && schema["items"].is_array();
    const char* tuple = draft7 ? "items" : "prefixItems";
    if (schema.contains(tuple)) {
      const Json& items = schema[tuple];
      if (!items.is_array()) fail(place + "/" + tuple, "found {}, expected a list", show(items));
      for (size_t i = 0; i < items.size(); ++i) {
        first.push_back(expression(items[i], fmt::format("{}/{}/{}", place, tuple, i), depth + 1));
      }
    }
    if (schema.contains("items") && !draft7) {
      rest =
          schema["items"] == false ? "" : add_rule(expression(schema["items"], place + "/items", depth + 1));
    }
    const int64_t min = count(schema, "minItems", place, 0), max = count(schema, "maxItems", place, -1);
    if (max >= 0 && max < min) fail(place, "maxItems {} is below minItems {}", max, min);
    return "\"[\" space " + elements(first, rest, min, max, place) + " space \"]\"";
  }

  /// Elements i, i + 1, ... of a list, each but the very first behind a comma; optional from `min` on.
  std::string elements(const std::vector<std::string>& first, const std::string& rest, int64_t min,
                       int64_t max, const std::string& place) const {
    const auto fixed = static_cast<int64_t>(first.size());
    if (rest.empty() && min > fixed) fail(place, "minItems {} with {} elements", min, fixed);
    std::string tail;  // what follows `i` elements
    int64_t more = max < 0 ? -1 : std::max<int64_t>(max - fixed, 0);
    if (rest.empty()) more = 0;
    const int64_t needed = std::max<int64_t>(min - fixed, 0);
    if (fixed == 0) {
      if (more == 0) return "\"\"";
      const std::string upper = more < 0 ? "" : std::to_string(more - 1);
      tail = fmt::format("{} (space \",\" space {}){{{},{}}}", rest, rest, std::max<int64_t>(needed - 1, 0),
                         upper);
      return needed > 0 ? tail : "(" + tail + ")?";
    }
    if (more != 0) {
      tail =
          fmt::format("(space \",\" space {}){{{},{}}}", rest, needed, more < 0 ? "" : std::to_string(more));
    }
    for (int64_t i = std::min(fixed, max < 0 ? fixed : max) - 1; i >= 0; --i) {
      const std::string comma = i == 0 ? "" : "space \",\" space ";
      tail = comma + first[static_cast<size_t>(i)] + " " + tail;
      if (i >= min) tail = "(" + tail + ")?";
    }
    return tail.empty() ? "\"\"" : tail;
  }

  std::string object(const Json& schema, const std::string& place, int depth) {
    static const Json kNone = Json::object();
    const Json& properties = schema.contains("properties") ? schema["properties"] : kNone;
    if (!properties.is_object())
      fail(place + "/properties", "found {}, expected an object", show(properties));
    std::set<std::string> required;
    if (schema.contains("required")) {
      if (!schema["required"].is_array()) {
        fail(place + "/required", "found {}, expected a list of names", show(schema["required"]));
      }
      for (const Json& name : schema["required"]) {
        if (!name.is_string()) fail(place + "/required", "found {}, expected a name", show(name));
        required.insert(name.get<std::string>());
      }
    }
    std::vector<std::string> names;
    std::string other;  // "key: value" of properties that are not named; empty: there are none
    // Without "properties" an object is any object, as in the specification.
    const bool open = !schema.contains("properties") && !schema.contains("additionalProperties");
    const Json extra = schema.contains("additionalProperties") ? schema["additionalProperties"] : Json(open);
    for (const auto& [name, property] : properties.items()) names.push_back(name);
    if (extra != false) {
      const std::string value = expression(extra, place + "/additionalProperties", depth + 1);
      other = add_rule((names.empty() ? "string" : key_other_than(names)) + " space \":\" space " + value);
    }
    for (const std::string& name : required) {
      if (properties.contains(name)) continue;
      fail(place + "/required", "\"{}\" is not among the properties", name);
    }
    // From the last property to the first: what may follow when nothing, or something, stands before.
    std::string empty = other.empty() ? "" : fmt::format("({} (space \",\" space {})*)?", other, other);
    std::string more = other.empty() ? "" : fmt::format("(space \",\" space {})*", other);
    for (auto it = names.rbegin(); it != names.rend(); ++it) {
      const std::string pair =
          add_rule(literal(*it) + " space \":\" space " +
                   expression(properties[*it], fmt::format("{}/properties/{}", place, *it), depth + 1));
      std::string behind;
      if (!more.empty()) behind.append(" ").append(add_rule(more));
      const bool must = required.contains(*it);
      more = fmt::format("space \",\" space {}{}", pair, behind);
      if (!must) more = "(" + more + ")" + (behind.empty() ? " | \"\"" : " |" + behind);
      const std::string before = pair + behind;
      empty = must ? before : before + " | " + (empty.empty() ? "\"\"" : add_rule(empty));
    }
    const std::string inside = empty.empty() ? "" : add_rule(empty);
    return fmt::format("\"{{\" space {} space \"}}\"", inside);
  }

  /// A string that is none of `names`: a prefix tree of them, left at some point or not ended at a name.
  std::string key_other_than(std::vector<std::string> names) {
    std::sort(names.begin(), names.end());
    return "\"\\\"\" " + other_rest(names, 0) + " \"\\\"\"";
  }

  /// `names`: sorted, equal in their first `depth` bytes.
  std::string other_rest(const std::vector<std::string>& names, size_t depth) {
    bool is_name = false;
    std::map<std::string, std::vector<std::string>> children;  // by the next code point
    for (const std::string& name : names) {
      if (name.size() == depth) {
        is_name = true;
      } else {
        children[std::string(utf8_symbol(std::string_view(name).substr(depth)))].push_back(name);
      }
    }
    std::vector<std::string> all;
    std::string excluded;
    for (const auto& [symbol, below] : children) {
      const Utf8Step step = utf8_step(symbol);
      excluded += fmt::format("\\U{:08X}", step.code_point);
      if (step.code_point < 0x20 || symbol == "\"" || symbol == "\\" || symbol == "\x7f") continue;
      all.push_back(gbnf_literal(symbol) + " " + other_rest(below, depth + symbol.size()));
    }
    all.push_back("[^\"\\\\\\x7F\\x00-\\x1F" + excluded + "] plain*");
    if (!is_name) all.push_back("\"\"");
    if (!has_plain_) {
      rules_.emplace_back("plain", "[^\"\\\\\\x7F\\x00-\\x1F]");
      has_plain_ = true;
    }
    return add_rule(fmt::format("{}", fmt::join(all, " | ")));
  }

  Json root_;
  std::vector<std::pair<std::string, std::string>> rules_;
  std::map<std::string, std::string> references_;
  size_t size_ = 0;
  bool has_plain_ = false;
};

}  // namespace

Result<std::string> json_schema_to_gbnf(std::string_view schema, std::string_view before,
                                        std::string_view after) {
  Json root = Json::parse(schema, nullptr, false);
  if (root.is_discarded()) return bad_usage("JSON schema: the text is not valid JSON");
  return Converter(std::move(root)).convert(before, after);
}

}  // namespace mete
