#include "text/template/sequence_filters.h"

#include <algorithm>
#include <charconv>

namespace mete::jinja {

namespace {

bool flag(const Value* value) { return value && truth(*value); }

/// The value, or its attribute "a.b.0" where one is given; `otherwise` replaces an undefined one.
Value attribute_of(Interpreter& in, Value value, const Value* path, const Value* otherwise = nullptr) {
  if (!path || path->is(Kind::kNone)) return value;
  if (path->is_integral()) return in.item(value, *path);
  if (!path->is(Kind::kString))
    in.fail("an attribute must be a string or integer, found '{}'", type_name(*path));
  std::string_view rest = path->view();
  while (true) {
    const size_t dot = rest.find('.');
    const std::string_view part = rest.substr(0, dot);
    int64_t index = 0;
    const auto parsed = std::from_chars(part.data(), part.data() + part.size(), index);
    const bool number = !part.empty() && parsed.ec == std::errc() && parsed.ptr == part.data() + part.size();
    value = in.item(value, number ? Value::of(index) : in.arena.literal(part));
    if (value.is(Kind::kUndefined) && otherwise) value = *otherwise;
    if (dot == std::string_view::npos) return value;
    rest.remove_prefix(dot + 1);
  }
}

Value fold_case(Interpreter& in, const Value& value, bool case_sensitive) {
  if (case_sensitive || !value.is(Kind::kString)) return value;
  in.spend(value.text->size() / 16);
  return in.string(lower(*value.text));
}

Value length(Interpreter& in, const Call& call) {
  bind(call, {}, 0);
  const Value& self = call.self;
  if (self.is(Kind::kString)) {
    in.spend(self.text->size() / 64);
    return Value::of(static_cast<int64_t>(count_chars(self.view())));
  }
  if (self.is(Kind::kDict)) return Value::of(static_cast<int64_t>(self.dict->size()));
  if (self.is(Kind::kUndefined)) return Value::of(int64_t{0});
  if (self.is_list() || self.is(Kind::kView))
    return Value::of(static_cast<int64_t>(self.sequence->items.size()));
  in.fail("object of type '{}' has no length", type_name(self));
}

Value first(Interpreter& in, const Call& call) {
  bind(call, {}, 0);
  Sequence* sequence = in.iterate(call.self);
  if (sequence->next >= sequence->items.size()) return in.undefined("No first item, sequence was empty.");
  const Value value = sequence->items[sequence->next];
  if (call.self.is(Kind::kIterator)) ++sequence->next;
  return value;
}

Value last(Interpreter& in, const Call& call) {
  bind(call, {}, 0);
  if (call.self.is(Kind::kIterator)) in.fail("last: a 'generator' object is not reversible");
  const Sequence* sequence = in.iterate(call.self);
  return sequence->items.empty() ? in.undefined("No last item, sequence was empty.") : sequence->items.back();
}

Value list_filter(Interpreter& in, const Call& call) {
  bind(call, {}, 0);
  return in.list(in.elements(call.self));
}

Value join(Interpreter& in, const Call& call) {
  const auto args = bind(call, {"d", "attribute"}, 0);
  const Text glue = args[0] ? to_text(*args[0]) : Text();
  Text out;
  bool any = false;
  for (const Value& value : in.elements(call.self)) {
    if (any) out.append(glue);
    any = true;
    out.append(to_text(attribute_of(in, value, args[1])));
  }
  in.spend(out.size() / 16);
  return in.string(std::move(out));
}

Value items(Interpreter& in, const Call& call) {
  bind(call, {}, 0);
  if (call.self.is(Kind::kUndefined)) return in.iterator({});
  if (!call.self.is(Kind::kDict)) in.fail("items: expected a mapping, found '{}'", type_name(call.self));
  std::vector<Value> pairs;
  in.spend(call.self.dict->size());
  for (const auto& [key, value] : call.self.dict->entries()) {
    pairs.push_back(in.arena.sequence(Kind::kTuple, {key, value}));
  }
  return in.iterator(std::move(pairs));
}

/// Stable sort by keys; keys that cannot be ordered are an error.
std::vector<Value> sorted(Interpreter& in, const std::vector<Value>& values, const std::vector<Value>& keys,
                          bool reverse) {
  std::vector<size_t> order(values.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  in.spend(values.size() * 16);
  for (size_t i = 1; i < keys.size(); ++i) compare(keys[i - 1], keys[i]);
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    const int relation = compare(keys[a], keys[b]);
    return reverse ? relation == 1 : relation == -1;
  });
  std::vector<Value> out;
  for (const size_t i : order) out.push_back(values[i]);
  return out;
}

Value dictsort(Interpreter& in, const Call& call) {
  const auto args = bind(call, {"case_sensitive", "by", "reverse"}, 0);
  const std::string_view by = args[1] ? text_argument(call, *args[1]).view() : std::string_view("key");
  if (by != "key" && by != "value") in.fail("dictsort: by '{}', expected 'key' or 'value'", by);
  if (call.self.is(Kind::kUndefined)) in.fail_undefined(call.self);
  if (!call.self.is(Kind::kDict)) in.fail("dictsort: expected a mapping, found '{}'", type_name(call.self));
  std::vector<Value> pairs;
  std::vector<Value> keys;
  for (const auto& [key, value] : call.self.dict->entries()) {
    pairs.push_back(in.arena.sequence(Kind::kTuple, {key, value}));
    keys.push_back(fold_case(in, by == "key" ? key : value, flag(args[0])));
  }
  return in.list(sorted(in, pairs, keys, flag(args[2])));
}

Value sort(Interpreter& in, const Call& call) {
  const auto args = bind(call, {"reverse", "case_sensitive", "attribute"}, 0);
  const std::vector<Value> values = in.elements(call.self);
  std::vector<Value> keys;
  for (const Value& value : values) {
    std::vector<Value> parts;
    const bool several = args[2] && args[2]->is(Kind::kString);
    std::string_view rest = several ? args[2]->view() : std::string_view();
    while (several) {
      const size_t comma = rest.find(',');
      const Value path = in.arena.literal(rest.substr(0, comma));
      parts.push_back(fold_case(in, attribute_of(in, value, &path), flag(args[1])));
      if (comma == std::string_view::npos) break;
      rest.remove_prefix(comma + 1);
    }
    if (!several) parts.push_back(fold_case(in, attribute_of(in, value, args[2]), flag(args[1])));
    keys.push_back(parts.size() == 1 ? parts[0] : in.arena.sequence(Kind::kTuple, parts));
  }
  return in.list(sorted(in, values, keys, flag(args[0])));
}

Value unique(Interpreter& in, const Call& call) {
  const auto args = bind(call, {"case_sensitive", "attribute"}, 0);
  Dict* seen = in.arena.dict();
  std::vector<Value> out;
  for (const Value& value : in.elements(call.self)) {
    const Value key = fold_case(in, attribute_of(in, value, args[1]), flag(args[0]));
    if (!hashable(key)) in.fail("unique: unhashable type '{}'", type_name(key));
    if (!key.is(Kind::kString)) in.spend(seen->size());
    if (seen->find(key)) continue;
    in.arena.set(seen, key, Value::none());
    out.push_back(value);
  }
  return in.iterator(std::move(out));
}

template <int kSign>
Value extreme(Interpreter& in, const Call& call) {
  const auto args = bind(call, {"case_sensitive", "attribute"}, 0);
  const std::vector<Value> values = in.elements(call.self);
  if (values.empty()) return in.undefined("No aggregated item, sequence was empty.");
  size_t best = 0;
  Value best_key = fold_case(in, attribute_of(in, values[0], args[1]), flag(args[0]));
  for (size_t i = 1; i < values.size(); ++i) {
    const Value key = fold_case(in, attribute_of(in, values[i], args[1]), flag(args[0]));
    if (compare(key, best_key) != kSign) continue;
    best = i;
    best_key = key;
  }
  return values[best];
}

Value reverse(Interpreter& in, const Call& call) {
  bind(call, {}, 0);
  if (call.self.is(Kind::kString)) {
    Text out;
    const std::vector<size_t> offsets = char_offsets(call.self.view());
    in.spend(offsets.size() / 4);
    for (size_t i = offsets.size() - 1; i > 0; --i) out.append(*call.self.text, offsets[i - 1], offsets[i]);
    return in.string(std::move(out));
  }
  std::vector<Value> values = in.elements(call.self);
  std::reverse(values.begin(), values.end());
  return in.iterator(std::move(values));
}

Value sum(Interpreter& in, const Call& call) {
  const auto args = bind(call, {"attribute", "start"}, 0);
  Value total = args[1] ? *args[1] : Value::of(int64_t{0});
  for (const Value& value : in.elements(call.self))
    total = in.binary("+", total, attribute_of(in, value, args[0]));
  return total;
}

Value map(Interpreter& in, const Call& call) {
  std::vector<Value> out;
  const Value input = truth(call.self) ? call.self : Value();  // nothing falsy is looked into
  if (call.args.empty()) {
    const auto args = bind(call, {"attribute", "default"}, 1);
    for (const Value& value : in.elements(input)) out.push_back(attribute_of(in, value, args[0], args[1]));
    return in.iterator(std::move(out));
  }
  Call inner;
  inner.name = text_argument(call, call.args[0]).view();
  inner.args.assign(call.args.begin() + 1, call.args.end());
  inner.named = call.named;
  for (const Value& value : in.elements(input)) {
    inner.self = value;
    out.push_back(in.filter(inner));
  }
  return in.iterator(std::move(out));
}

/// select, reject, selectattr, rejectattr: elements (or their attribute) that pass a test.
template <bool kAttribute, bool kKeep>
Value select(Interpreter& in, const Call& call) {
  const size_t skip = kAttribute ? 1 : 0;
  if (call.args.size() < skip) in.fail("{}: missing argument 'attribute'", call.name);
  Call inner;
  const bool tested = call.args.size() > skip;
  if (tested) {
    inner.name = text_argument(call, call.args[skip]).view();
    inner.args.assign(call.args.begin() + static_cast<std::ptrdiff_t>(skip) + 1, call.args.end());
    inner.named = call.named;
  }
  std::vector<Value> out;
  for (const Value& value : in.elements(truth(call.self) ? call.self : Value())) {
    inner.self = kAttribute ? attribute_of(in, value, &call.args[0]) : value;
    const bool passes = tested ? in.test(inner) : truth(inner.self);
    if (passes == kKeep) out.push_back(value);
  }
  return in.iterator(std::move(out));
}

Value groupby(Interpreter& in, const Call& call) {
  const auto args = bind(call, {"attribute", "default", "case_sensitive"}, 1);
  const std::vector<Value> values = in.elements(call.self);
  std::vector<Value> keys;
  for (const Value& value : values) {
    keys.push_back(fold_case(in, attribute_of(in, value, args[0], args[1]), flag(args[2])));
  }
  std::vector<Value> groups;
  std::vector<Value> members;
  const std::vector<Value> order = sorted(in, values, keys, false);
  const auto key_of = [&](const Value& value) { return attribute_of(in, value, args[0], args[1]); };
  for (size_t i = 0; i < order.size(); ++i) {
    members.push_back(order[i]);
    const Value key = key_of(order[i]);
    const bool ends = i + 1 == order.size() || !in.equals(fold_case(in, key, flag(args[2])),
                                                          fold_case(in, key_of(order[i + 1]), flag(args[2])));
    if (!ends) continue;
    const Value grouper = key_of(members.front());
    groups.push_back(in.arena.sequence(Kind::kTuple, {grouper, in.list(members)}));
    members.clear();
  }
  return in.list(std::move(groups));
}

Value batch(Interpreter& in, const Call& call) {
  const auto args = bind(call, {"linecount", "fill_with"}, 1);
  const int64_t count = int_argument(call, args[0], 1);
  if (count < 1 || count > 100000) in.fail("batch: {} per row, expected 1 to 100000", count);
  std::vector<Value> rows;
  std::vector<Value> row;
  for (const Value& value : in.elements(call.self)) {
    if (static_cast<int64_t>(row.size()) == count) {
      rows.push_back(in.list(row));
      row.clear();
    }
    row.push_back(value);
  }
  if (!row.empty()) {
    while (args[1] && !args[1]->is(Kind::kNone) && static_cast<int64_t>(row.size()) < count)
      row.push_back(*args[1]);
    rows.push_back(in.list(row));
  }
  return in.iterator(std::move(rows));
}

constexpr Function kFilters[] = {
    {"batch", batch},
    {"count", length},
    {"dictsort", dictsort},
    {"first", first},
    {"groupby", groupby},
    {"items", items},
    {"join", join},
    {"last", last},
    {"length", length},
    {"list", list_filter},
    {"map", map},
    {"max", extreme<1>},
    {"min", extreme<-1>},
    {"reject", select<false, false>},
    {"rejectattr", select<true, false>},
    {"reverse", reverse},
    {"select", select<false, true>},
    {"selectattr", select<true, true>},
    {"sort", sort},
    {"sum", sum},
    {"unique", unique},
};

}  // namespace

const Function* find_sequence_filter(std::string_view name) {
  for (const Function& function : kFilters) {
    if (name == function.name) return &function;
  }
  return nullptr;
}

}  // namespace mete::jinja
