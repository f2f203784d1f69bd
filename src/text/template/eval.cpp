// Expressions: names, operators, attributes, calls.
#include <cmath>

#include <algorithm>

#include "text/template/interpreter.h"

namespace mete::jinja {

struct Interpreter::DepthGuard {
  explicit DepthGuard(Interpreter* in) : interpreter(in) {
    if (++in->depth_ > in->limits_.depth) {
      --in->depth_;
      in->fail("nested deeper than {} evaluations, the limit", in->limits_.depth);
    }
  }
  ~DepthGuard() { --interpreter->depth_; }
  DepthGuard(const DepthGuard&) = delete;
  DepthGuard& operator=(const DepthGuard&) = delete;
  Interpreter* interpreter;
};

void Interpreter::spend(uint64_t steps) {
  steps_ += steps;
  if (steps_ > limits_.steps) fail("needs more than {} steps, the limit", limits_.steps);
}

void Interpreter::fail_undefined(const Value& value) const {
  fail("{}", value.text ? value.view() : std::string_view("an undefined value was used"));
}

Value Interpreter::eval(const Expr& expr, Scope* scope) {
  const DepthGuard guard(this);
  spend(1);
  line_ = expr.line;
  switch (expr.kind) {
    case ExprKind::kConst:
      return expr.constant;
    case ExprKind::kName:
      return eval_name(expr, scope);
    case ExprKind::kTuple:
      return arena.sequence(Kind::kTuple, eval_all(expr.args, 0, scope));
    case ExprKind::kList:
      return list(eval_all(expr.args, 0, scope));
    case ExprKind::kDict:
      return eval_dict(expr, scope);
    case ExprKind::kUnary:
      return eval_unary(expr, scope);
    case ExprKind::kBinary:
      return eval_binary(expr, scope);
    case ExprKind::kConcat: {
      Text out;
      for (const ExprPtr& arg : expr.args) print(eval(*arg, scope), &out);
      spend(out.size() / 64);
      return string(std::move(out));
    }
    case ExprKind::kCompare:
      return eval_compare(expr, scope);
    case ExprKind::kCondition:
      if (truth(eval(*expr.args[0], scope))) return eval(*expr.args[1], scope);
      if (expr.args[2]) return eval(*expr.args[2], scope);
      return undefined("the inline if-expression evaluated to false and no else section was defined");
    case ExprKind::kAttribute: {
      const Value object = eval(*expr.args[0], scope);
      line_ = expr.line;
      return attribute(object, expr.name);
    }
    case ExprKind::kSubscript: {
      const Value object = eval(*expr.args[0], scope);
      if (expr.args[1]->kind == ExprKind::kSlice) return eval_slice(object, *expr.args[1], scope);
      const Value key = eval(*expr.args[1], scope);
      line_ = expr.line;
      return item(object, key);
    }
    case ExprKind::kSlice:
      fail("a slice outside a subscript");
    case ExprKind::kCall:
      return eval_call(expr, scope, nullptr);
    case ExprKind::kFilter:
      return eval_filter(expr, nullptr, scope);
    case ExprKind::kTest: {
      Call call = eval_arguments(expr, scope);
      call.self = eval(*expr.args[0], scope);
      line_ = expr.line;
      return Value::of(test(call));
    }
  }
  return Value();
}

Value Interpreter::eval_name(const Expr& expr, Scope* scope) {
  for (Scope* at = scope; at; at = at->parent) {
    if (const Value* value = at->find_here(expr.name)) return *value;
  }
  if (const Function* function = find_global(expr.name)) {
    Value value = Value::with(Kind::kFunction);
    value.function = function;
    return value;
  }
  return undefined(fmt::format("'{}' is undefined", expr.name));
}

std::vector<Value> Interpreter::eval_all(const std::vector<ExprPtr>& exprs, size_t from, Scope* scope) {
  std::vector<Value> values;
  values.reserve(exprs.size() - std::min(from, exprs.size()));
  for (size_t i = from; i < exprs.size(); ++i) values.push_back(eval(*exprs[i], scope));
  return values;
}

Value Interpreter::eval_dict(const Expr& expr, Scope* scope) {
  Dict* dict = arena.dict();
  for (size_t i = 0; i < expr.args.size(); i += 2) {
    const Value key = eval(*expr.args[i], scope);
    if (!hashable(key)) fail("unhashable type: '{}'", type_name(key));
    spend(key.is(Kind::kString) ? 1 : dict->size());
    arena.set(dict, key, eval(*expr.args[i + 1], scope));
  }
  return Value::of(dict);
}

Value Interpreter::eval_unary(const Expr& expr, Scope* scope) {
  const Value value = eval(*expr.args[0], scope);
  line_ = expr.line;
  if (expr.name == "not") return Value::of(!truth(value));
  if (value.is(Kind::kUndefined)) fail_undefined(value);
  if (!value.is_number()) fail("bad operand type for unary {}: '{}'", expr.name, type_name(value));
  if (value.is(Kind::kFloat)) return Value::of(expr.name == "-" ? -value.number : value.number);
  return expr.name == "-" ? integer_arithmetic("-", 0, value.as_int()) : Value::of(value.as_int());
}

Value Interpreter::eval_binary(const Expr& expr, Scope* scope) {
  const Value left = eval(*expr.args[0], scope);
  if (expr.name == "and") return truth(left) ? eval(*expr.args[1], scope) : left;
  if (expr.name == "or") return truth(left) ? left : eval(*expr.args[1], scope);
  const Value right = eval(*expr.args[1], scope);
  line_ = expr.line;
  return binary(expr.name, left, right);
}

Value Interpreter::binary(std::string_view op, const Value& a, const Value& b) {
  if (op == "%" && a.is(Kind::kString)) return string(format_percent(*this, *a.text, b));
  if (a.is(Kind::kUndefined)) fail_undefined(a);
  if (b.is(Kind::kUndefined)) fail_undefined(b);
  if (a.is_number() && b.is_number()) return arithmetic(op, a, b);
  if (op == "+") return add(a, b);
  if (op == "*") {
    if (b.is_integral() && (a.is(Kind::kString) || a.is_list())) return repeat(a, b.as_int());
    if (a.is_integral() && (b.is(Kind::kString) || b.is_list())) return repeat(b, a.as_int());
  }
  fail("unsupported operand types for {}: '{}' and '{}'", op, type_name(a), type_name(b));
}

Value Interpreter::add(const Value& a, const Value& b) {
  if (a.is(Kind::kString) && b.is(Kind::kString)) {
    spend((a.text->size() + b.text->size()) / 64);
    const bool markup = a.text->markup || b.text->markup;
    Text out;
    out.append(markup ? escape_html(*a.text) : *a.text);
    out.append(markup ? escape_html(*b.text) : *b.text);
    out.markup = markup;
    return string(std::move(out));
  }
  if (a.kind == b.kind && (a.is(Kind::kList) || a.is(Kind::kTuple))) {
    std::vector<Value> items = a.sequence->items;
    items.insert(items.end(), b.sequence->items.begin(), b.sequence->items.end());
    spend(items.size() / 4);
    return arena.sequence(a.kind, std::move(items));
  }
  fail("unsupported operand types for +: '{}' and '{}'", type_name(a), type_name(b));
}

Value Interpreter::repeat(const Value& value, int64_t count) {
  if (value.is(Kind::kRange)) fail("unsupported operand types for *: 'range' and 'int'");
  const uint64_t times = count < 0 ? 0 : static_cast<uint64_t>(count);
  const uint64_t size =
      value.is(Kind::kString) ? value.text->size() : value.sequence->items.size() * sizeof(Value);
  if (size == 0 || times == 0) {
    return value.is(Kind::kString) ? string(Text()) : arena.sequence(value.kind, {});
  }
  if (times > limits_.memory / size)
    fail("a repetition of {} bytes {} times is over the memory limit", size, times);
  spend(times + times * size / 64);
  if (value.is(Kind::kString)) {
    Text out;
    for (uint64_t i = 0; i < times; ++i) out.append(*value.text);
    return string(std::move(out));
  }
  std::vector<Value> items;
  for (uint64_t i = 0; i < times; ++i) {
    items.insert(items.end(), value.sequence->items.begin(), value.sequence->items.end());
  }
  return arena.sequence(value.kind, std::move(items));
}

Value Interpreter::arithmetic(std::string_view op, const Value& a, const Value& b) {
  if (a.is_integral() && b.is_integral() && op != "/" && !(op == "**" && b.as_int() < 0)) {
    return integer_arithmetic(op, a.as_int(), b.as_int());
  }
  const double x = a.as_double();
  const double y = b.as_double();
  if (op == "+") return Value::of(x + y);
  if (op == "-") return Value::of(x - y);
  if (op == "*") return Value::of(x * y);
  if (op == "**") return Value::of(std::pow(x, y));
  if (y == 0.0) fail("division by zero");
  if (op == "/") return Value::of(x / y);
  double rest = std::fmod(x, y);
  if (rest != 0.0 && (rest < 0) != (y < 0)) rest += y;
  if (op == "%") return Value::of(rest);
  return Value::of(std::floor((x - rest) / y + 0.5));
}

Value Interpreter::integer_arithmetic(std::string_view op, int64_t a, int64_t b) {
  int64_t out = 0;
  bool overflow = false;
  if (op == "+") {
    overflow = __builtin_add_overflow(a, b, &out);
  } else if (op == "-") {
    overflow = __builtin_sub_overflow(a, b, &out);
  } else if (op == "*") {
    overflow = __builtin_mul_overflow(a, b, &out);
  } else if (op == "**") {
    out = 1;
    for (int64_t left = b; left > 0 && !overflow && out != 0; --left) {
      if (a == 1) break;
      if (a == -1) {
        out = left % 2 == 0 ? 1 : -1;
        break;
      }
      overflow = __builtin_mul_overflow(out, a, &out);
    }
  } else {
    if (b == 0) fail("division by zero");
    if (b == -1) {  // INT64_MIN / -1 would trap
      if (op == "%") return Value::of(int64_t{0});
      return integer_arithmetic("-", 0, a);
    }
    int64_t quotient = a / b;
    int64_t rest = a % b;
    if (rest != 0 && (rest < 0) != (b < 0)) {
      --quotient;
      rest += b;
    }
    out = op == "%" ? rest : quotient;
  }
  if (overflow) fail("integer overflow in {} {} {}: over 64 bits", a, op, b);
  return Value::of(out);
}

Value Interpreter::eval_compare(const Expr& expr, Scope* scope) {
  Value left = eval(*expr.args[0], scope);
  for (size_t i = 0; i < expr.ops.size(); ++i) {
    const Value right = eval(*expr.args[i + 1], scope);
    line_ = expr.line;
    if (!compare_with(expr.ops[i], left, right)) return Value::of(false);
    left = right;
  }
  return Value::of(true);
}

bool Interpreter::equals(const Value& a, const Value& b) {
  uint64_t cost = 0;
  const bool result = equal(a, b, &cost);
  spend(cost);
  return result;
}

bool Interpreter::compare_with(std::string_view op, const Value& a, const Value& b) {
  if (op == "==") return equals(a, b);
  if (op == "!=") return !equals(a, b);
  if (op == "in") return contains(b, a);
  if (op == "not in") return !contains(b, a);
  if (a.is(Kind::kUndefined)) fail_undefined(a);
  if (b.is(Kind::kUndefined)) fail_undefined(b);
  const int order = compare(a, b);
  if (order == 2) return false;
  if (op == "<") return order < 0;
  if (op == "<=") return order <= 0;
  if (op == ">") return order > 0;
  return order >= 0;
}

bool Interpreter::contains(const Value& container, const Value& value) {
  if (container.is(Kind::kString)) {
    if (!value.is(Kind::kString))
      fail("'in <string>' requires a string on the left, found '{}'", type_name(value));
    spend(container.text->size() / 64);
    return find_bytes(container.view(), value.view(), 0) != std::string_view::npos;
  }
  if (container.is(Kind::kDict)) {
    if (!hashable(value)) fail("unhashable type: '{}'", type_name(value));
    if (!value.is(Kind::kString)) spend(container.dict->size());
    return container.dict->find(value) != nullptr;
  }
  const Sequence* sequence = iterate(container);
  for (size_t i = sequence->next; i < sequence->items.size(); ++i) {
    if (equals(sequence->items[i], value)) return true;
  }
  return false;
}

Value Interpreter::attribute(const Value& object, std::string_view name) {
  if (object.is(Kind::kUndefined)) fail_undefined(object);
  bool unsafe = name.substr(0, 2) == "__";
  if (const Function* function = find_method(object, name, &unsafe)) {
    arena.charge(sizeof(Method));
    Value value = Value::with(Kind::kMethod);
    methods_.push_back({object, function});
    value.method = &methods_.back();
    return value;
  }
  if (unsafe)
    return undefined(
        fmt::format("access to attribute '{}' of '{}' object is unsafe", name, type_name(object)));
  const Value* found = nullptr;
  if (object.is(Kind::kDict)) found = object.dict->find(name);
  if (object.is(Kind::kNamespace)) found = object.space->attributes.find(name);
  if (found) return *found;
  if (object.is(Kind::kLoop)) return loop_attribute(object.loop, name);
  if (object.is(Kind::kMacro) && name == "name") return arena.literal(object.macro->name);
  if (object.is(Kind::kNone)) return undefined(fmt::format("'None' has no attribute '{}'", name));
  return undefined(fmt::format("'{} object' has no attribute '{}'", type_name(object), name));
}

Value Interpreter::string_item(const Value& object, int64_t index) {
  const std::string_view bytes = object.view();
  spend(bytes.size() / 64);
  const std::vector<size_t> offsets = char_offsets(bytes);
  const auto count = static_cast<int64_t>(offsets.size()) - 1;
  if (index < 0) index += count;
  if (index < 0 || index >= count) return undefined("string index out of range");
  const auto at = static_cast<size_t>(index);
  return string(object.text->slice(offsets[at], offsets[at + 1]));
}

Value Interpreter::item(const Value& object, const Value& key) {
  if (object.is(Kind::kUndefined)) fail_undefined(object);
  if (object.is(Kind::kDict)) {
    if (!key.is(Kind::kString)) spend(object.dict->size());
    const Value* found = hashable(key) ? object.dict->find(key) : nullptr;
    if (found) return *found;
  }
  if (key.is_integral()) {
    int64_t index = key.as_int();
    if (object.is(Kind::kString)) return string_item(object, index);
    if (object.is_list()) {
      const auto count = static_cast<int64_t>(object.sequence->items.size());
      if (index < 0) index += count;
      if (index >= 0 && index < count) return object.sequence->items[static_cast<size_t>(index)];
    }
  }
  if (key.is(Kind::kString)) return attribute(object, key.view());
  Text shown;
  repr(key, &shown);
  return undefined(fmt::format("'{} object' has no element {}", type_name(object), shown.view()));
}

Value Interpreter::eval_slice(const Value& object, const Expr& slice, Scope* scope) {
  const auto part = [&](size_t i) -> std::optional<int64_t> {
    if (!slice.args[i]) return std::nullopt;
    const Value value = eval(*slice.args[i], scope);
    if (value.is(Kind::kNone)) return std::nullopt;
    if (!value.is_integral()) fail("slice indices must be integers or None, found '{}'", type_name(value));
    return value.as_int();
  };
  const auto start = part(0);
  const auto stop = part(1);
  const int64_t step = part(2).value_or(1);
  if (object.is(Kind::kUndefined)) fail_undefined(object);
  if (!object.is(Kind::kString) && !object.is_list()) {
    return undefined(fmt::format("'{} object' has no slice", type_name(object)));
  }
  if (step == 0) fail("slice step cannot be zero");
  const bool string_object = object.is(Kind::kString);
  std::vector<size_t> offsets;
  if (string_object) offsets = char_offsets(object.view());
  const auto count = static_cast<int64_t>(string_object ? offsets.size() - 1 : object.sequence->items.size());
  spend(static_cast<uint64_t>(count) / 4);
  const auto clamp = [&](std::optional<int64_t> index, int64_t otherwise) {
    if (!index) return otherwise;
    const int64_t at = *index < 0 ? (*index < -count ? -1 : *index + count) : *index;
    return step > 0 ? std::clamp<int64_t>(at, 0, count) : std::clamp<int64_t>(at, -1, count - 1);
  };
  const int64_t begin = clamp(start, step > 0 ? 0 : count - 1);
  const int64_t end = clamp(stop, step > 0 ? count : -1);
  std::vector<size_t> picks;
  for (int64_t i = begin; step > 0 ? i < end : i > end;) {
    picks.push_back(static_cast<size_t>(i));
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  if (!string_object) {
    std::vector<Value> items;
    for (const size_t i : picks) items.push_back(object.sequence->items[i]);
    return arena.sequence(object.is(Kind::kRange) ? Kind::kList : object.kind, std::move(items));
  }
  if (step == 1) {
    const size_t from = picks.empty() ? 0 : offsets[picks.front()];
    const size_t to = picks.empty() ? 0 : offsets[picks.back() + 1];
    return string(object.text->slice(from, to));
  }
  Text out;
  for (const size_t i : picks) out.append(*object.text, offsets[i], offsets[i + 1]);
  return string(std::move(out));
}

Call Interpreter::eval_arguments(const Expr& expr, Scope* scope) {
  Call call;
  call.name = expr.name;
  call.args = eval_all(expr.args, 1, scope);
  if (expr.star_args) {
    for (const Value& value : elements(eval(*expr.star_args, scope))) call.args.push_back(value);
  }
  for (const auto& [name, value] : expr.named) call.named.emplace_back(name, eval(*value, scope));
  if (expr.star_named) {
    const Value more = eval(*expr.star_named, scope);
    if (!more.is(Kind::kDict)) fail("an argument after ** must be a mapping, found '{}'", type_name(more));
    for (const auto& [key, value] : more.dict->entries()) {
      if (!key.is(Kind::kString)) fail("keywords must be strings");
      call.named.emplace_back(key.view(), value);
    }
  }
  return call;
}

Value Interpreter::eval_filter(const Expr& expr, const Value* input, Scope* scope) {
  Value self;
  if (!expr.args.empty() && expr.args[0]) {
    self = expr.args[0]->kind == ExprKind::kFilter && input ? eval_filter(*expr.args[0], input, scope)
                                                            : eval(*expr.args[0], scope);
  } else if (input) {
    self = *input;
  }
  Call call = eval_arguments(expr, scope);
  call.self = self;
  line_ = expr.line;
  return filter(call);
}

Value Interpreter::filter(const Call& call) {
  const Function* function = find_filter(call.name);
  if (!function) fail("no filter named '{}'", call.name);
  return function->run(*this, call);
}

bool Interpreter::test(const Call& call) {
  const Function* function = find_test(call.name);
  if (!function) fail("no test named '{}'", call.name);
  return truth(function->run(*this, call));
}

Value Interpreter::eval_call(const Expr& expr, Scope* scope, const Value* caller) {
  const Value callee = eval(*expr.args[0], scope);
  Call arguments = eval_arguments(expr, scope);
  if (caller) arguments.named.emplace_back("caller", *caller);
  line_ = expr.line;
  return call(callee, std::move(arguments));
}

Value Interpreter::call(const Value& callee, Call arguments) {
  switch (callee.kind) {
    case Kind::kUndefined:
      fail_undefined(callee);
    case Kind::kMacro:
      return call_macro(*callee.macro, arguments);
    case Kind::kFunction:
      arguments.name = callee.function->name;
      return callee.function->run(*this, arguments);
    case Kind::kMethod:
      arguments.name = callee.method->function->name;
      arguments.self = callee.method->self;
      return callee.method->function->run(*this, arguments);
    default:
      fail("'{}' object is not callable", type_name(callee));
  }
}

Value Interpreter::call_macro(const Macro& macro, const Call& call) {
  const DepthGuard guard(this);
  const Node& node = *macro.node;
  Scope* scope = new_scope(macro.scope);
  const size_t params = node.params.size();
  std::vector<bool> given(params, false);
  const auto put = [&](size_t i, const Value& value) {
    scope->set(node.params[i], value);
    given[i] = true;
  };
  for (size_t i = 0; i < std::min(params, call.args.size()); ++i) put(i, call.args[i]);
  Dict* more = node.uses_kwargs ? arena.dict() : nullptr;
  bool has_caller = false;
  for (const auto& [name, value] : call.named) {
    const auto param = std::find(node.params.begin(), node.params.end(), name);
    if (param != node.params.end()) {
      const auto i = static_cast<size_t>(param - node.params.begin());
      if (given[i]) fail("macro '{}' got several values for argument '{}'", macro.name, name);
      put(i, value);
    } else if (name == "caller" && node.uses_caller) {
      scope->set("caller", value);
      has_caller = true;
    } else if (more) {
      arena.set(more, string(Text(name, Origin::kTemplate)), value);
    } else {
      fail("macro '{}' takes no keyword argument '{}'", macro.name, name);
    }
  }
  if (call.args.size() > params && !node.uses_varargs) {
    fail("macro '{}' takes not more than {} argument(s), found {}", macro.name, params, call.args.size());
  }
  if (more) scope->set("kwargs", Value::of(more));
  if (node.uses_varargs) {
    const size_t from = std::min(params, call.args.size());
    scope->set("varargs", arena.sequence(Kind::kTuple, {call.args.begin() + static_cast<std::ptrdiff_t>(from),
                                                        call.args.end()}));
  }
  if (node.uses_caller && !has_caller) scope->set("caller", undefined("no caller defined"));
  const size_t without_default = params - node.defaults.size();
  for (size_t i = 0; i < params; ++i) {
    if (given[i]) continue;
    put(i, i >= without_default ? eval(*node.defaults[i - without_default], scope)
                                : undefined(fmt::format("parameter '{}' was not provided", node.params[i])));
  }
  Text out;
  exec(node.bodies[0], scope, &out);
  return string(std::move(out));
}

}  // namespace mete::jinja
