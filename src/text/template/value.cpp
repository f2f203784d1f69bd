#include "text/template/value.h"

#include <cmath>

#include <algorithm>
#include <limits>

namespace mete::jinja {

namespace {

constexpr size_t kIndexFrom = 8;

}  // namespace

const Value* Dict::find(std::string_view key) const {
  if (!index_.empty()) {
    const auto hit = index_.find(key);
    return hit == index_.end() ? nullptr : &entries_[hit->second].second;
  }
  for (const Entry& entry : entries_) {
    if (entry.first.is(Kind::kString) && entry.first.view() == key) return &entry.second;
  }
  return nullptr;
}

const Value* Dict::find(const Value& key) const {
  if (key.is(Kind::kString)) return find(key.view());
  for (const Entry& entry : entries_) {
    if (!entry.first.is(Kind::kString) && equal(entry.first, key)) return &entry.second;
  }
  return nullptr;
}

void Dict::set(const Value& key, const Value& value) {
  if (const Value* old = find(key)) {
    *const_cast<Value*>(old) = value;
    return;
  }
  entries_.emplace_back(key, value);
  if (entries_.size() <= kIndexFrom) return;
  if (entries_.size() == kIndexFrom + 1) {
    for (size_t i = 0; i < entries_.size(); ++i) {
      if (entries_[i].first.is(Kind::kString)) index_.emplace(entries_[i].first.view(), i);
    }
  } else if (key.is(Kind::kString)) {
    index_.emplace(key.view(), entries_.size() - 1);
  }
}

void Arena::charge(uint64_t bytes) {
  used_ += bytes;
  if (used_ > limit_)
    throw run_failure("chat template: needs more than {} bytes of values, the limit", limit_);
}

const Text* Arena::text(Text value) {
  charge(sizeof(Text) + value.size() + value.runs().size() * sizeof(Text::Run));
  texts_.push_back(std::move(value));
  return &texts_.back();
}

Value Arena::sequence(Kind kind, std::vector<Value> items) {
  charge(sizeof(Sequence) + items.size() * sizeof(Value));
  Sequence& sequence = sequences_.emplace_back();
  sequence.items = std::move(items);
  return Value::of(kind, &sequence);
}

void Arena::set(Dict* dict, const Value& key, const Value& value) {
  charge(sizeof(Dict::Entry) + 64);
  dict->set(key, value);
}

Value Arena::from_json(const nlohmann::ordered_json& json, Origin origin, int depth) {
  using Type = nlohmann::ordered_json::value_t;
  if (depth > kMaxNesting) throw bad_usage("chat template: variables nested deeper than {}", kMaxNesting);
  switch (json.type()) {
    case Type::null:
      return Value::none();
    case Type::boolean:
      return Value::of(json.get<bool>());
    case Type::number_integer:
      return Value::of(json.get<int64_t>());
    case Type::number_unsigned:
      if (json.get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
        throw bad_usage("chat template: integer {} in a variable is over 2^63 - 1", json.get<uint64_t>());
      }
      return Value::of(static_cast<int64_t>(json.get<uint64_t>()));
    case Type::number_float:
      return Value::of(json.get<double>());
    case Type::string:
      return string(Text(json.get_ref<const std::string&>(), origin));
    case Type::array: {
      std::vector<Value> items;
      items.reserve(json.size());
      for (const auto& item : json) items.push_back(from_json(item, origin, depth + 1));
      return sequence(Kind::kList, std::move(items));
    }
    case Type::object: {
      Dict* out = dict();
      for (const auto& item : json.items()) {
        set(out, string(Text(item.key(), origin)), from_json(item.value(), origin, depth + 1));
      }
      return Value::of(out);
    }
    case Type::binary:
    case Type::discarded:
      break;
  }
  throw bad_usage("chat template: a variable holds {}, expected plain JSON", json.type_name());
}

const char* type_name(const Value& value) {
  switch (value.kind) {
    case Kind::kUndefined:
      return "Undefined";
    case Kind::kNone:
      return "NoneType";
    case Kind::kBool:
      return "bool";
    case Kind::kInt:
      return "int";
    case Kind::kFloat:
      return "float";
    case Kind::kString:
      return value.text->markup ? "Markup" : "str";
    case Kind::kList:
      return "list";
    case Kind::kTuple:
      return "tuple";
    case Kind::kRange:
      return "range";
    case Kind::kView:
      return "dict_view";
    case Kind::kIterator:
      return "generator";
    case Kind::kDict:
      return "dict";
    case Kind::kNamespace:
      return "Namespace";
    case Kind::kLoop:
      return "LoopContext";
    case Kind::kMacro:
      return "Macro";
    case Kind::kMethod:
      return "method";
    case Kind::kFunction:
      return "function";
  }
  return "?";
}

bool truth(const Value& value) {
  switch (value.kind) {
    case Kind::kUndefined:
    case Kind::kNone:
      return false;
    case Kind::kBool:
      return value.boolean;
    case Kind::kInt:
      return value.integer != 0;
    case Kind::kFloat:
      return value.number != 0.0;
    case Kind::kString:
      return !value.text->empty();
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kRange:
    case Kind::kView:
      return !value.sequence->items.empty();
    case Kind::kDict:
      return value.dict->size() != 0;
    default:
      return true;
  }
}

bool hashable(const Value& value, int depth) {
  if (value.is(Kind::kTuple)) {
    if (depth > kMaxNesting) return false;
    for (const Value& item : value.sequence->items) {
      if (!hashable(item, depth + 1)) return false;
    }
    return true;
  }
  return !value.is(Kind::kList) && !value.is(Kind::kDict) && !value.is(Kind::kView);
}

namespace {

int compare_numbers(const Value& a, const Value& b) {
  if (a.is_integral() && b.is_integral()) {
    return a.as_int() < b.as_int() ? -1 : a.as_int() > b.as_int() ? 1 : 0;
  }
  const double x = a.as_double();
  const double y = b.as_double();
  return x < y ? -1 : x > y ? 1 : x == y ? 0 : 2;  // 2: a NaN, neither less nor greater nor equal
}

bool equal_items(const std::vector<Value>& a, const std::vector<Value>& b, uint64_t* cost, int depth) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!equal(a[i], b[i], cost, depth + 1)) return false;
  }
  return true;
}

}  // namespace

bool equal(const Value& a, const Value& b, uint64_t* cost, int depth) {
  if (depth > kMaxNesting) throw run_failure("chat template: values nested deeper than {}", kMaxNesting);
  if (cost) ++*cost;
  if (a.is_number() && b.is_number()) return compare_numbers(a, b) == 0;
  if (a.kind != b.kind) return false;
  switch (a.kind) {
    case Kind::kUndefined:
    case Kind::kNone:
      return true;
    case Kind::kString:
      if (cost) *cost += std::min(a.text->size(), b.text->size()) / 64;
      return a.view() == b.view();
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kRange:
      return equal_items(a.sequence->items, b.sequence->items, cost, depth);
    case Kind::kDict: {
      if (a.dict->size() != b.dict->size()) return false;
      for (const auto& [key, value] : a.dict->entries()) {
        const Value* other = b.dict->find(key);
        if (!other || !equal(value, *other, cost, depth + 1)) return false;
      }
      return true;
    }
    case Kind::kNamespace:
      return a.space == b.space;
    case Kind::kLoop:
      return a.loop == b.loop;
    case Kind::kMacro:
      return a.macro == b.macro;
    case Kind::kMethod:
      return a.method == b.method;
    case Kind::kFunction:
      return a.function == b.function;
    default:
      return a.sequence == b.sequence;
  }
}

int compare(const Value& a, const Value& b, int depth) {
  if (depth > kMaxNesting) throw run_failure("chat template: values nested deeper than {}", kMaxNesting);
  if (a.is_number() && b.is_number()) return compare_numbers(a, b);
  if (a.is(Kind::kString) && b.is(Kind::kString)) {
    const int order = a.view().compare(b.view());
    return order < 0 ? -1 : order > 0 ? 1 : 0;
  }
  if (a.kind == b.kind && (a.is(Kind::kList) || a.is(Kind::kTuple))) {
    const auto& x = a.sequence->items;
    const auto& y = b.sequence->items;
    for (size_t i = 0; i < std::min(x.size(), y.size()); ++i) {
      if (!equal(x[i], y[i], nullptr, depth + 1)) return compare(x[i], y[i], depth + 1);
    }
    return x.size() < y.size() ? -1 : x.size() > y.size() ? 1 : 0;
  }
  throw run_failure("cannot order '{}' and '{}'", type_name(a), type_name(b));
}

}  // namespace mete::jinja
