// Methods of strings, mappings, lists and `loop` that the sandbox lets a template call.
#include <algorithm>

#include "text/template/interpreter.h"

namespace mete::jinja {

namespace {

const Text& self_text(Interpreter& in, const Call& call) {
  in.spend(call.self.text->size() / 16);
  return *call.self.text;
}

template <Text (*Map)(const Text&)>
Value map_text(Interpreter& in, const Call& call) {
  bind(call, {}, 0);
  return in.string(Map(self_text(in, call)));
}

template <Side kSide>
Value strip_method(Interpreter& in, const Call& call) {
  const auto args = bind(call, {"chars"}, 0);
  const bool given = args[0] && !args[0]->is(Kind::kNone);
  return in.string(strip(self_text(in, call), kSide, given ? &text_argument(call, *args[0]) : nullptr));
}

/// Pieces between runs of white space; after `limit` splits the rest is one piece.
std::vector<Text> split_space(const Text& text, int64_t limit) {
  std::vector<Text> pieces;
  const std::string_view bytes = text.view();
  size_t begin = std::string_view::npos;
  for (size_t i = 0, size = 0; i < bytes.size(); i += size) {
    const bool space = is_space(decode_char(bytes, i, &size));
    if (!space && begin == std::string_view::npos) {
      begin = i;
      if (static_cast<int64_t>(pieces.size()) == limit) {
        pieces.push_back(text.slice(begin, bytes.size()));
        return pieces;
      }
    } else if (space && begin != std::string_view::npos) {
      pieces.push_back(text.slice(begin, i));
      begin = std::string_view::npos;
    }
  }
  if (begin != std::string_view::npos) pieces.push_back(text.slice(begin, bytes.size()));
  return pieces;
}

Value list_of(Interpreter& in, std::vector<Text> pieces) {
  std::vector<Value> values;
  for (Text& piece : pieces) values.push_back(in.string(std::move(piece)));
  in.spend(values.size());
  return in.list(std::move(values));
}

const Text& separator(const Call& call, const Value& value) {
  const Text& text = text_argument(call, value);
  if (text.empty()) throw run_failure("{}: empty separator", call.name);
  return text;
}

Value split(Interpreter& in, const Call& call) {
  const auto args = bind(call, {"sep", "maxsplit"}, 0);
  const Text& text = self_text(in, call);
  const int64_t limit = int_argument(call, args[1], -1);
  if (!args[0] || args[0]->is(Kind::kNone)) return list_of(in, split_space(text, limit));
  const Text& sep = separator(call, *args[0]);
  std::vector<Text> pieces;
  size_t begin = 0;
  while (limit < 0 || static_cast<int64_t>(pieces.size()) < limit) {
    const size_t hit = find_bytes(text.view(), sep.view(), begin);
    if (hit == std::string_view::npos) break;
    pieces.push_back(text.slice(begin, hit));
    begin = hit + sep.size();
  }
  pieces.push_back(text.slice(begin, text.size()));
  return list_of(in, std::move(pieces));
}

Value rsplit(Interpreter& in, const Call& call) {
  const auto args = bind(call, {"sep", "maxsplit"}, 0);
  const Text& text = self_text(in, call);
  const int64_t limit = int_argument(call, args[1], -1);
  std::vector<Text> pieces;
  if (!args[0] || args[0]->is(Kind::kNone)) {
    if (limit >= 0) in.fail("rsplit: maxsplit without a separator is not supported");
    return list_of(in, split_space(text, -1));
  }
  const Text& sep = separator(call, *args[0]);
  size_t end = text.size();
  while ((limit < 0 || static_cast<int64_t>(pieces.size()) < limit) && end >= sep.size()) {
    const size_t hit = text.view().rfind(sep.view(), end - sep.size());
    if (hit == std::string_view::npos) break;
    pieces.push_back(text.slice(hit + sep.size(), end));
    end = hit;
    in.spend(1);
  }
  pieces.push_back(text.slice(0, end));
  std::reverse(pieces.begin(), pieces.end());
  return list_of(in, std::move(pieces));
}

Value partition(Interpreter& in, const Call& call, bool last) {
  const auto args = bind(call, {"sep"}, 1);
  const Text& text = self_text(in, call);
  const Text& sep = separator(call, *args[0]);
  const size_t hit = last ? text.view().rfind(sep.view()) : find_bytes(text.view(), sep.view(), 0);
  const bool found = hit != std::string_view::npos;
  const size_t at = found ? hit : last ? 0 : text.size();
  const size_t after = found ? hit + sep.size() : at;
  return in.arena.sequence(Kind::kTuple, {in.string(text.slice(0, at)), in.string(found ? sep : Text()),
                                          in.string(text.slice(after, text.size()))});
}
Value partition_first(Interpreter& in, const Call& call) { return partition(in, call, false); }
Value partition_last(Interpreter& in, const Call& call) { return partition(in, call, true); }

Value split_lines_method(Interpreter& in, const Call& call) {
  const auto args = bind(call, {"keepends"}, 0);
  return list_of(in, split_lines(self_text(in, call), args[0] && truth(*args[0])));
}

Value replace_method(Interpreter& in, const Call& call) {
  const auto args = bind(call, {"old", "new", "count"}, 2);
  Text out = replace(self_text(in, call), text_argument(call, *args[0]), text_argument(call, *args[1]),
                     int_argument(call, args[2], -1));
  in.spend(out.size() / 16);
  return in.string(std::move(out));
}

/// The part of the string that start and end name, as byte offsets; false if start is past the end.
bool window(Interpreter& in, const Call& call, const Value* start, const Value* end, size_t* from,
            size_t* to) {
  const Text& text = self_text(in, call);
  *from = 0;
  *to = text.size();
  const bool has_start = start && !start->is(Kind::kNone);
  const bool has_end = end && !end->is(Kind::kNone);
  if (!has_start && !has_end) return true;
  const std::vector<size_t> offsets = char_offsets(text.view());
  const auto count = static_cast<int64_t>(offsets.size()) - 1;
  const auto place = [&](const Value* value) {
    const int64_t at = int_argument(call, value, 0);
    return at < 0 ? std::max<int64_t>(at + count, 0) : at;
  };
  const int64_t first = has_start ? place(start) : 0;
  if (first > count) return false;
  *from = offsets[static_cast<size_t>(first)];
  if (has_end) *to = offsets[static_cast<size_t>(std::min(place(end), count))];
  return *from <= *to;
}

/// startswith and endswith, with one string or a tuple of them.
Value affix(Interpreter& in, const Call& call, bool at_end) {
  const auto args = bind(call, {"prefix", "start", "end"}, 1);
  size_t from = 0;
  size_t to = 0;
  if (!window(in, call, args[1], args[2], &from, &to)) return Value::of(false);
  const std::string_view text = call.self.view().substr(from, to - from);
  const auto matches = [&](const Value& value) {
    const std::string_view part = text_argument(call, value).view();
    if (part.size() > text.size()) return false;
    return text.substr(at_end ? text.size() - part.size() : 0, part.size()) == part;
  };
  if (!args[0]->is(Kind::kTuple)) return Value::of(matches(*args[0]));
  for (const Value& value : args[0]->sequence->items) {
    if (matches(value)) return Value::of(true);
  }
  return Value::of(false);
}
Value starts_with(Interpreter& in, const Call& call) { return affix(in, call, false); }
Value ends_with(Interpreter& in, const Call& call) { return affix(in, call, true); }

/// Character index of a substring, or -1.
int64_t find_index(Interpreter& in, const Call& call, bool last) {
  const auto args = bind(call, {"sub", "start", "end"}, 1);
  size_t from = 0;
  size_t to = 0;
  const std::string_view part = text_argument(call, *args[0]).view();
  if (!window(in, call, args[1], args[2], &from, &to)) return -1;
  const std::string_view text = call.self.view().substr(from, to - from);
  const size_t hit = last ? text.rfind(part) : find_bytes(text, part, 0);
  if (hit == std::string_view::npos) return -1;
  return static_cast<int64_t>(count_chars(call.self.view().substr(0, from + hit)));
}
Value find(Interpreter& in, const Call& call) { return Value::of(find_index(in, call, false)); }
Value rfind(Interpreter& in, const Call& call) { return Value::of(find_index(in, call, true)); }
Value index_of(Interpreter& in, const Call& call) {
  const int64_t at = find_index(in, call, false);
  if (at < 0) in.fail("index: substring not found");
  return Value::of(at);
}

Value count(Interpreter& in, const Call& call) {
  const auto args = bind(call, {"sub"}, 1);
  const Text& text = self_text(in, call);
  const std::string_view part = text_argument(call, *args[0]).view();
  if (part.empty()) return Value::of(static_cast<int64_t>(count_chars(text.view())) + 1);
  int64_t hits = 0;
  for (size_t at = 0; (at = find_bytes(text.view(), part, at)) != std::string_view::npos; at += part.size())
    ++hits;
  return Value::of(hits);
}

Value join(Interpreter& in, const Call& call) {
  const auto args = bind(call, {"iterable"}, 1);
  Text out;
  bool any = false;
  for (const Value& value : in.elements(*args[0])) {
    if (any) out.append(*call.self.text);
    any = true;
    out.append(text_argument(call, value));
  }
  in.spend(out.size() / 16);
  return in.string(std::move(out));
}

Value format(Interpreter& in, const Call& call) { return in.string(format_braces(in, call)); }

template <bool kSuffix>
Value remove_affix(Interpreter& in, const Call& call) {
  const auto args = bind(call, {"affix"}, 1);
  const Text& text = self_text(in, call);
  const std::string_view part = text_argument(call, *args[0]).view();
  const std::string_view bytes = text.view();
  if (part.empty() || part.size() > bytes.size()) return call.self;
  if (kSuffix && bytes.substr(bytes.size() - part.size()) == part) {
    return in.string(text.slice(0, bytes.size() - part.size()));
  }
  if (!kSuffix && bytes.substr(0, part.size()) == part)
    return in.string(text.slice(part.size(), bytes.size()));
  return call.self;
}

/// ljust, rjust: `kLeft` keeps the text at the left.
template <bool kLeft>
Value justify(Interpreter& in, const Call& call) {
  const auto args = bind(call, {"width", "fillchar"}, 1);
  const Text& text = self_text(in, call);
  const int64_t width = int_argument(call, args[0], 0);
  if (width > 100000) in.fail("{}: width {}, expected at most 100000", call.name, width);
  const Text fill = args[1] ? text_argument(call, *args[1]) : Text(" ", Origin::kTemplate);
  if (count_chars(fill.view()) != 1) in.fail("{}: the fill must be one character", call.name);
  Text pad;
  for (int64_t i = static_cast<int64_t>(count_chars(text.view())); i < width; ++i) pad.append(fill);
  Text out = kLeft ? text : pad;
  out.append(kLeft ? pad : text);
  return in.string(std::move(out));
}

Value zfill(Interpreter& in, const Call& call) {
  const auto args = bind(call, {"width"}, 1);
  const Text& text = self_text(in, call);
  const int64_t width = int_argument(call, args[0], 0);
  if (width > 100000) in.fail("zfill: width {}, expected at most 100000", width);
  const int64_t missing = width - static_cast<int64_t>(count_chars(text.view()));
  const size_t sign = !text.empty() && (text.view()[0] == '-' || text.view()[0] == '+') ? 1 : 0;
  Text out = text.slice(0, sign);
  out.append(std::string(static_cast<size_t>(std::max<int64_t>(missing, 0)), '0'), Origin::kTemplate);
  out.append(text, sign, text.size());
  return in.string(std::move(out));
}

Text swap_case(const Text& text) {
  Text out;
  for (size_t i = 0, size = 0; i < text.size(); i += size) {
    const uint32_t c = decode_char(text.view(), i, &size);
    const Text piece = text.slice(i, i + size);
    out.append(to_lower(c) != c ? lower(piece) : upper(piece));
  }
  return out;
}

/// True for a non-empty string whose characters all satisfy the predicate.
template <bool (*Holds)(uint32_t)>
Value all_chars(Interpreter& in, const Call& call) {
  bind(call, {}, 0);
  const Text& text = self_text(in, call);
  for (size_t i = 0, size = 0; i < text.size(); i += size) {
    if (!Holds(decode_char(text.view(), i, &size))) return Value::of(false);
  }
  return Value::of(!text.empty());
}
bool is_alnum(uint32_t c) { return is_alpha(c) || is_digit(c); }

Value is_lower(Interpreter& in, const Call& call) {
  return Value::of(in.test({.name = "lower", .self = call.self, .args = {}, .named = {}}));
}
Value is_upper(Interpreter& in, const Call& call) {
  return Value::of(in.test({.name = "upper", .self = call.self, .args = {}, .named = {}}));
}

constexpr Function kStringMethods[] = {
    {"capitalize", map_text<capitalize>},
    {"casefold", map_text<lower>},
    {"count", count},
    {"endswith", ends_with},
    {"find", find},
    {"format", format},
    {"index", index_of},
    {"isalnum", all_chars<is_alnum>},
    {"isalpha", all_chars<is_alpha>},
    {"isdecimal", all_chars<is_digit>},
    {"isdigit", all_chars<is_digit>},
    {"islower", is_lower},
    {"isnumeric", all_chars<is_digit>},
    {"isspace", all_chars<is_space>},
    {"isupper", is_upper},
    {"join", join},
    {"ljust", justify<true>},
    {"lower", map_text<lower>},
    {"lstrip", strip_method<Side::kLeft>},
    {"partition", partition_first},
    {"removeprefix", remove_affix<false>},
    {"removesuffix", remove_affix<true>},
    {"replace", replace_method},
    {"rfind", rfind},
    {"rjust", justify<false>},
    {"rpartition", partition_last},
    {"rsplit", rsplit},
    {"rstrip", strip_method<Side::kRight>},
    {"split", split},
    {"splitlines", split_lines_method},
    {"startswith", starts_with},
    {"strip", strip_method<Side::kBoth>},
    {"swapcase", map_text<swap_case>},
    {"title", map_text<title>},
    {"upper", map_text<upper>},
    {"zfill", zfill},
};

Value dict_get(Interpreter& in, const Call& call) {
  const auto args = bind(call, {"key", "default"}, 1);
  if (!hashable(*args[0])) in.fail("get: unhashable type '{}'", type_name(*args[0]));
  if (!args[0]->is(Kind::kString)) in.spend(call.self.dict->size());
  const Value* found = call.self.dict->find(*args[0]);
  return found ? *found : args[1] ? *args[1] : Value::none();
}

template <int kPart>  // 0 keys, 1 values, 2 pairs
Value dict_view(Interpreter& in, const Call& call) {
  bind(call, {}, 0);
  std::vector<Value> values;
  in.spend(call.self.dict->size());
  for (const auto& [key, value] : call.self.dict->entries()) {
    values.push_back(kPart == 0 ? key : kPart == 1 ? value : in.arena.sequence(Kind::kTuple, {key, value}));
  }
  Value view = in.arena.sequence(Kind::kView, std::move(values));
  view.sequence->label = kPart == 0 ? "dict_keys" : kPart == 1 ? "dict_values" : "dict_items";
  return view;
}

Value dict_copy(Interpreter& in, const Call& call) {
  bind(call, {}, 0);
  Dict* copy = in.arena.dict();
  for (const auto& [key, value] : call.self.dict->entries()) in.arena.set(copy, key, value);
  return Value::of(copy);
}

constexpr Function kDictMethods[] = {{"copy", dict_copy},
                                     {"get", dict_get},
                                     {"items", dict_view<2>},
                                     {"keys", dict_view<0>},
                                     {"values", dict_view<1>}};

Value list_count(Interpreter& in, const Call& call) {
  const auto args = bind(call, {"value"}, 1);
  int64_t hits = 0;
  for (const Value& value : call.self.sequence->items) hits += in.equals(value, *args[0]) ? 1 : 0;
  return Value::of(hits);
}

Value list_index(Interpreter& in, const Call& call) {
  const auto args = bind(call, {"value"}, 1);
  const auto& items = call.self.sequence->items;
  for (size_t i = 0; i < items.size(); ++i) {
    if (in.equals(items[i], *args[0])) return Value::of(static_cast<int64_t>(i));
  }
  in.fail("index: the value is not in the list");
}

Value list_copy(Interpreter& in, const Call& call) {
  bind(call, {}, 0);
  return in.list(call.self.sequence->items);
}

constexpr Function kListMethods[] = {{"copy", list_copy}, {"count", list_count}, {"index", list_index}};

Value loop_cycle(Interpreter& in, const Call& call) {
  if (call.args.empty()) in.fail("loop.cycle: no items for cycling given");
  return call.args[static_cast<size_t>(call.self.loop->index) % call.args.size()];
}

Value loop_changed(Interpreter& in, const Call& call) {
  Loop& loop = *call.self.loop;
  bool same = loop.has_changed && loop.changed.size() == call.args.size();
  for (size_t i = 0; same && i < call.args.size(); ++i) same = in.equals(loop.changed[i], call.args[i]);
  loop.has_changed = true;
  loop.changed = call.args;
  return Value::of(!same);
}

constexpr Function kLoopMethods[] = {{"changed", loop_changed}, {"cycle", loop_cycle}};

template <size_t kCount>
const Function* find_in(const Function (&table)[kCount], std::string_view name) {
  for (const Function& function : table) {
    if (name == function.name) return &function;
  }
  return nullptr;
}

// Real Python methods that are not offered here: refused by the sandbox, or without a use in chat templates.
// They must not fall through to a key of the same name.
constexpr const char* kDictRefused[] = {"clear", "fromkeys", "pop", "popitem", "setdefault", "update"};
constexpr const char* kListRefused[] = {"append", "clear",  "extend",  "insert",
                                        "pop",    "remove", "reverse", "sort"};
constexpr const char* kStringRefused[] = {"center",    "encode",       "expandtabs",  "format_map",
                                          "isascii",   "isidentifier", "isprintable", "istitle",
                                          "maketrans", "rindex",       "translate"};

template <size_t kCount>
bool refused(const char* const (&names)[kCount], std::string_view name) {
  return std::any_of(std::begin(names), std::end(names), [&](const char* known) { return name == known; });
}

}  // namespace

const Function* find_method(const Value& self, std::string_view name, bool* unsafe) {
  switch (self.kind) {
    case Kind::kString:
      *unsafe = *unsafe || refused(kStringRefused, name);
      return find_in(kStringMethods, name);
    case Kind::kDict:
      *unsafe = *unsafe || refused(kDictRefused, name);
      return find_in(kDictMethods, name);
    case Kind::kList:
      *unsafe = *unsafe || refused(kListRefused, name);
      return find_in(kListMethods, name);
    case Kind::kTuple:
    case Kind::kRange:
      return name == "copy" ? nullptr : find_in(kListMethods, name);
    case Kind::kLoop:
      return find_in(kLoopMethods, name);
    default:
      return nullptr;
  }
}

}  // namespace mete::jinja
