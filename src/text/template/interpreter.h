// Evaluates a parsed template. Nothing outside the given variables and the builtins listed here is reachable.
#pragma once

#include <ctime>
#include <initializer_list>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "text/template/ast.h"
#include "text/template/value.h"

namespace mete::jinja {

class Interpreter;

/// Arguments of a call of a filter, test, method or function.
struct Call {
  std::string_view name;  ///< of what is called, for messages
  Value self;             ///< input of a filter or test, object of a method
  std::vector<Value> args;
  std::vector<std::pair<std::string_view, Value>> named;
};

using Builtin = Value (*)(Interpreter&, const Call&);
struct Function {
  const char* name;
  Builtin run;
};
struct Method {
  Value self;
  const Function* function;
};

struct Scope {
  Scope* parent = nullptr;
  std::vector<std::pair<std::string_view, Value>> names;

  Value* find_here(std::string_view name);
  void set(std::string_view name, const Value& value);
};

/// A macro, or the body of a call block, with the scope it was defined in.
struct Macro {
  const Node* node = nullptr;
  Scope* scope = nullptr;
  std::string_view name;
};

/// State of a running for loop; the template sees it as `loop`.
struct Loop {
  const Node* node = nullptr;
  Scope* scope = nullptr;
  Sequence* source = nullptr;
  std::deque<Value> ahead;  ///< elements pulled before their turn (loop.last, loop.length, loop.nextitem)
  int64_t index = 0;        ///< of the current element, from 0
  std::optional<Value> previous, current;
  std::vector<Value> changed;
  bool has_changed = false;
};

enum class Flow : uint8_t { kNormal, kBreak, kContinue };

class Interpreter {
 public:
  /// `now` is the local time that strftime_now formats.
  Interpreter(const Limits& limits, const std::tm& now) : arena(limits.memory), limits_(limits), now_(now) {}

  /// Renders; throws Error with the line.
  Text run(const Body& body, const Dict& variables);

  // For builtins.
  Arena arena;
  const std::tm& now() const { return now_; }
  void spend(uint64_t steps);
  /// Throws Error; run() adds the line.
  template <typename... Args>
  [[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) const {
    throw run_failure("{}", fmt::format(format, std::forward<Args>(args)...));
  }
  [[noreturn]] void fail_undefined(const Value& value) const;
  /// What a for loop visits; reads an iterator to its end.
  std::vector<Value> elements(const Value& value);
  Sequence* iterate(const Value& value);
  Value undefined(std::string message) { return undefined_with(arena.text(message, Origin::kTemplate)); }
  Value attribute(const Value& object, std::string_view name);
  Value item(const Value& object, const Value& key);
  Value call(const Value& callee, Call call);
  Value filter(const Call& call);
  bool test(const Call& call);
  Value iterator(std::vector<Value> items) { return arena.sequence(Kind::kIterator, std::move(items)); }
  Value list(std::vector<Value> items) { return arena.sequence(Kind::kList, std::move(items)); }
  Value string(Text text) { return arena.string(std::move(text)); }
  Value binary(std::string_view op, const Value& a, const Value& b);
  bool contains(const Value& container, const Value& value);
  bool equals(const Value& a, const Value& b);

 private:
  struct DepthGuard;

  static Value undefined_with(const Text* message) {
    Value value;
    value.text = message;
    return value;
  }
  Value eval(const Expr& expr, Scope* scope);
  Value eval_name(const Expr& expr, Scope* scope);
  Value eval_binary(const Expr& expr, Scope* scope);
  Value eval_unary(const Expr& expr, Scope* scope);
  Value eval_compare(const Expr& expr, Scope* scope);
  bool compare_with(std::string_view op, const Value& a, const Value& b);
  Value eval_dict(const Expr& expr, Scope* scope);
  Value eval_slice(const Value& object, const Expr& slice, Scope* scope);
  std::vector<Value> eval_all(const std::vector<ExprPtr>& exprs, size_t from, Scope* scope);
  Call eval_arguments(const Expr& expr, Scope* scope);
  Value eval_filter(const Expr& expr, const Value* input, Scope* scope);
  Value eval_call(const Expr& expr, Scope* scope, const Value* caller);
  Value call_macro(const Macro& macro, const Call& call);

  Value arithmetic(std::string_view op, const Value& a, const Value& b);
  Value integer_arithmetic(std::string_view op, int64_t a, int64_t b);
  Value add(const Value& a, const Value& b);
  Value repeat(const Value& value, int64_t count);

  Value string_item(const Value& object, int64_t index);
  Value loop_attribute(Loop* loop, std::string_view name);
  bool pull(Loop* loop, Value* out);
  bool look_ahead(Loop* loop);

  Flow exec(const Body& body, Scope* scope, Text* out);
  Flow exec_node(const Node& node, Scope* scope, Text* out);
  Flow exec_if(const Node& node, Scope* scope, Text* out);
  Flow exec_for(const Node& node, Scope* scope, Text* out);
  void exec_set(const Node& node, Scope* scope);
  void assign(const Expr& target, const Value& value, Scope* scope);
  void print(const Value& value, Text* out);
  Scope* new_scope(Scope* parent);

  Limits limits_;
  std::tm now_;
  uint64_t steps_ = 0;
  uint32_t depth_ = 0;
  int line_ = 1;
  std::deque<Scope> scopes_;
  std::deque<Macro> macros_;
  std::deque<Loop> loops_;
  std::deque<Method> methods_;
};

/// Arguments of `call` in the order of `names`, null where not given. Throws Error for too many, unknown or
/// doubled arguments, and for fewer than `required`.
std::vector<const Value*> bind(const Call& call, std::initializer_list<std::string_view> names,
                               size_t required);
/// The integer of an argument, `otherwise` if null; throws Error for another type.
int64_t int_argument(const Call& call, const Value* value, int64_t otherwise);
/// The string of an argument; throws Error for another type.
const Text& text_argument(const Call& call, const Value& value);

const Function* find_filter(std::string_view name);
const Function* find_test(std::string_view name);
const Function* find_global(std::string_view name);
/// A method of the value's type, or null. Sets `unsafe` for those that the sandbox refuses.
const Function* find_method(const Value& self, std::string_view name, bool* unsafe);
/// str.format and the % operator on strings.
Text format_braces(Interpreter& in, const Call& call);
Text format_percent(Interpreter& in, const Text& format, const Value& arguments);

}  // namespace mete::jinja
