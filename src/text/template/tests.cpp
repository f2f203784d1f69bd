// The tests of Jinja 3.1: what follows `is`.
#include <algorithm>

#include "text/template/interpreter.h"

namespace mete::jinja {

namespace {

template <bool (*Holds)(const Value&)>
Value unary(Interpreter&, const Call& call) {
  bind(call, {}, 0);
  return Value::of(Holds(call.self));
}

bool is_defined(const Value& v) { return !v.is(Kind::kUndefined); }
bool is_undefined(const Value& v) { return v.is(Kind::kUndefined); }
bool is_none(const Value& v) { return v.is(Kind::kNone); }
bool is_boolean(const Value& v) { return v.is(Kind::kBool); }
bool is_true(const Value& v) { return v.is(Kind::kBool) && v.boolean; }
bool is_false(const Value& v) { return v.is(Kind::kBool) && !v.boolean; }
bool is_integer(const Value& v) { return v.is(Kind::kInt); }
bool is_float(const Value& v) { return v.is(Kind::kFloat); }
bool is_number(const Value& v) { return v.is_number(); }
bool is_string(const Value& v) { return v.is(Kind::kString); }
bool is_mapping(const Value& v) { return v.is(Kind::kDict); }
bool is_iterable(const Value& v) {
  return v.is(Kind::kUndefined) || v.is(Kind::kString) || v.is_list() || v.is(Kind::kView) ||
         v.is(Kind::kIterator) || v.is(Kind::kDict) || v.is(Kind::kLoop);
}
// Whatever has a length and can be indexed; Undefined has neither __getitem__ refused nor an error here.
bool is_sequence(const Value& v) {
  return v.is(Kind::kString) || v.is_list() || v.is(Kind::kDict) || v.is(Kind::kUndefined);
}
bool is_callable(const Value& v) {
  return v.is(Kind::kMacro) || v.is(Kind::kMethod) || v.is(Kind::kFunction) || v.is(Kind::kUndefined);
}
bool is_escaped(const Value& v) { return v.is(Kind::kString) && v.text->markup; }

bool has_case(const Value& v, bool want_upper) {
  const Text text = to_text(v);
  bool cased = false;
  for (size_t i = 0, size = 0; i < text.size(); i += size) {
    const uint32_t c = decode_char(text.view(), i, &size);
    const bool is_upper = to_lower(c) != c;
    const bool is_lower = to_upper(c) != c;
    if (want_upper ? is_lower : is_upper) return false;
    cased = cased || is_upper || is_lower;
  }
  return cased;
}
bool is_lower(const Value& v) { return has_case(v, false); }
bool is_upper(const Value& v) { return has_case(v, true); }

Value divisible(Interpreter& in, const Call& call) {
  const auto args = bind(call, {"num"}, 1);
  return Value::of(in.equals(in.binary("%", call.self, *args[0]), Value::of(int64_t{0})));
}
Value even(Interpreter& in, const Call& call) {
  return Value::of(in.equals(in.binary("%", call.self, Value::of(int64_t{2})), Value::of(int64_t{0})));
}
Value odd(Interpreter& in, const Call& call) {
  return Value::of(in.equals(in.binary("%", call.self, Value::of(int64_t{2})), Value::of(int64_t{1})));
}
Value same_as(Interpreter&, const Call& call) {
  const Value& other = *bind(call, {"other"}, 1)[0];
  if (call.self.kind != other.kind) return Value::of(false);
  if (call.self.is_number() || call.self.is(Kind::kNone)) return Value::of(equal(call.self, other));
  return Value::of(call.self.text == other.text);
}
Value is_in(Interpreter& in, const Call& call) {
  return Value::of(in.contains(*bind(call, {"seq"}, 1)[0], call.self));
}
Value known_filter(Interpreter&, const Call& call) {
  return Value::of(call.self.is(Kind::kString) && find_filter(call.self.view()) != nullptr);
}
Value known_test(Interpreter&, const Call& call) {
  return Value::of(call.self.is(Kind::kString) && find_test(call.self.view()) != nullptr);
}

Value eq(Interpreter& in, const Call& call) {
  return Value::of(in.equals(call.self, *bind(call, {"other"}, 1)[0]));
}
Value ne(Interpreter& in, const Call& call) {
  return Value::of(!in.equals(call.self, *bind(call, {"other"}, 1)[0]));
}
int order(Interpreter& in, const Call& call) {
  const Value& other = *bind(call, {"other"}, 1)[0];
  if (call.self.is(Kind::kUndefined)) in.fail_undefined(call.self);
  if (other.is(Kind::kUndefined)) in.fail_undefined(other);
  return compare(call.self, other);
}
Value lt(Interpreter& in, const Call& call) { return Value::of(order(in, call) == -1); }
Value gt(Interpreter& in, const Call& call) { return Value::of(order(in, call) == 1); }
Value le(Interpreter& in, const Call& call) { return Value::of(order(in, call) <= 0); }
Value ge(Interpreter& in, const Call& call) {
  const int result = order(in, call);
  return Value::of(result == 0 || result == 1);
}

constexpr Function kTests[] = {{"defined", unary<is_defined>},
                               {"undefined", unary<is_undefined>},
                               {"none", unary<is_none>},
                               {"boolean", unary<is_boolean>},
                               {"true", unary<is_true>},
                               {"false", unary<is_false>},
                               {"integer", unary<is_integer>},
                               {"float", unary<is_float>},
                               {"number", unary<is_number>},
                               {"string", unary<is_string>},
                               {"mapping", unary<is_mapping>},
                               {"iterable", unary<is_iterable>},
                               {"sequence", unary<is_sequence>},
                               {"callable", unary<is_callable>},
                               {"escaped", unary<is_escaped>},
                               {"lower", unary<is_lower>},
                               {"upper", unary<is_upper>},
                               {"divisibleby", divisible},
                               {"even", even},
                               {"odd", odd},
                               {"sameas", same_as},
                               {"in", is_in},
                               {"filter", known_filter},
                               {"test", known_test},
                               {"eq", eq},
                               {"==", eq},
                               {"equalto", eq},
                               {"ne", ne},
                               {"!=", ne},
                               {"lt", lt},
                               {"<", lt},
                               {"lessthan", lt},
                               {"gt", gt},
                               {">", gt},
                               {"greaterthan", gt},
                               {"le", le},
                               {"<=", le},
                               {"ge", ge},
                               {">=", ge}};

}  // namespace

const Function* find_test(std::string_view name) {
  for (const Function& function : kTests) {
    if (name == function.name) return &function;
  }
  return nullptr;
}

}  // namespace mete::jinja
