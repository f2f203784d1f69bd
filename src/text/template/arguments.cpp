// Binding of call arguments, and the global functions.
#include <cctype>

#include <algorithm>

#include "text/template/interpreter.h"

namespace mete::jinja {

std::vector<const Value*> bind(const Call& call, std::initializer_list<std::string_view> names,
                               size_t required) {
  if (call.args.size() > names.size()) {
    throw run_failure("{}: {} arguments, expected at most {}", call.name, call.args.size(), names.size());
  }
  std::vector<const Value*> bound(names.size(), nullptr);
  for (size_t i = 0; i < call.args.size(); ++i) bound[i] = &call.args[i];
  for (const auto& [name, value] : call.named) {
    const auto at = std::find(names.begin(), names.end(), name);
    if (at == names.end()) throw run_failure("{}: unexpected argument '{}'", call.name, name);
    const Value*& slot = bound[static_cast<size_t>(at - names.begin())];
    if (slot) throw run_failure("{}: several values for argument '{}'", call.name, name);
    slot = &value;
  }
  for (size_t i = 0; i < required; ++i) {
    if (!bound[i]) throw run_failure("{}: missing argument '{}'", call.name, names.begin()[i]);
  }
  return bound;
}

int64_t int_argument(const Call& call, const Value* value, int64_t otherwise) {
  if (!value) return otherwise;
  if (!value->is_integral())
    throw run_failure("{}: expected an integer, found '{}'", call.name, type_name(*value));
  return value->as_int();
}

const Text& text_argument(const Call& call, const Value& value) {
  if (!value.is(Kind::kString))
    throw run_failure("{}: expected a string, found '{}'", call.name, type_name(value));
  return *value.text;
}

namespace {

Value raise_exception(Interpreter&, const Call& call) {
  const auto args = bind(call, {"message"}, 1);
  throw bad_usage("chat template: {}", to_text(*args[0]).view());
}

Value strftime_now(Interpreter& in, const Call& call) {
  const auto args = bind(call, {"format"}, 1);
  const std::string format(text_argument(call, *args[0]).view());
  if (format.size() > 256) in.fail("strftime_now: a format of {} bytes, expected at most 256", format.size());
  // A sentinel keeps an empty result apart from a buffer that is too small.
  char buffer[8192];
  const size_t size = std::strftime(buffer, sizeof buffer, (format + "x").c_str(), &in.now());
  if (size == 0) in.fail("strftime_now: the result is too long");
  return in.arena.literal(std::string_view(buffer, size - 1));
}

Value range(Interpreter& in, const Call& call) {
  constexpr int64_t kMaxRange = 100000;  // jinja2.sandbox.MAX_RANGE
  const auto args = bind(call, {"start", "stop", "step"}, 1);
  const int64_t start = args[1] ? int_argument(call, args[0], 0) : 0;
  const int64_t stop = args[1] ? int_argument(call, args[1], 0) : int_argument(call, args[0], 0);
  const int64_t step = int_argument(call, args[2], 1);
  if (step == 0) in.fail("range: step must not be zero");
  std::vector<Value> items;
  for (int64_t i = start; step > 0 ? i < stop : i > stop;) {
    if (static_cast<int64_t>(items.size()) == kMaxRange)
      in.fail("range: more than {} items, the limit", kMaxRange);
    items.push_back(Value::of(i));
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  in.spend(items.size());
  Value value = in.arena.sequence(Kind::kRange, std::move(items));
  value.sequence->label = step == 1 ? fmt::format("range({}, {})", start, stop)
                                    : fmt::format("range({}, {}, {})", start, stop, step);
  return value;
}

/// dict(mapping or pairs, **named), into `out`.
void fill(Interpreter& in, const Call& call, const char* what, Dict* out, bool allow_underscore) {
  const auto put = [&](const Value& key, const Value& value) {
    if (!hashable(key)) in.fail("{}: unhashable key of type '{}'", what, type_name(key));
    if (!allow_underscore && key.is(Kind::kString) && !key.text->empty() && key.view()[0] == '_') {
      in.fail("cannot store underscore-prefixed attribute '{}' on a namespace", key.view());
    }
    in.spend(key.is(Kind::kString) ? 1 : out->size() + 1);
    in.arena.set(out, key, value);
  };
  if (call.args.size() > 1)
    in.fail("{}: {} positional arguments, expected at most 1", what, call.args.size());
  if (!call.args.empty()) {
    const Value& first = call.args[0];
    if (first.is(Kind::kUndefined)) in.fail_undefined(first);
    if (first.is(Kind::kDict)) {
      for (const auto& [key, value] : first.dict->entries()) put(key, value);
    } else {
      for (const Value& pair : in.elements(first)) {
        const std::vector<Value> both = in.elements(pair);
        if (both.size() != 2) in.fail("{}: an element of length {}, expected 2", what, both.size());
        put(both[0], both[1]);
      }
    }
  }
  for (const auto& [name, value] : call.named) put(in.arena.literal(name), value);
}

Value make_dict(Interpreter& in, const Call& call) {
  Dict* dict = in.arena.dict();
  fill(in, call, "dict", dict, true);
  return Value::of(dict);
}

Value make_namespace(Interpreter& in, const Call& call) {
  Value value = Value::with(Kind::kNamespace);
  value.space = in.arena.space();
  fill(in, call, "namespace", &value.space->attributes, false);
  return value;
}

constexpr Function kGlobals[] = {{"raise_exception", raise_exception},
                                 {"strftime_now", strftime_now},
                                 {"range", range},
                                 {"dict", make_dict},
                                 {"namespace", make_namespace}};

}  // namespace

const Function* find_global(std::string_view name) {
  for (const Function& function : kGlobals) {
    if (name == function.name) return &function;
  }
  return nullptr;
}

}  // namespace mete::jinja
