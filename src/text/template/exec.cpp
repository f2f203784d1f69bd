// Statements: output, conditions, loops, assignments, macros.
#include "text/template/interpreter.h"

namespace mete::jinja {

Value* Scope::find_here(std::string_view name) {
  for (auto& [known, value] : names) {
    if (known == name) return &value;
  }
  return nullptr;
}

void Scope::set(std::string_view name, const Value& value) {
  if (Value* old = find_here(name)) {
    *old = value;
  } else {
    names.emplace_back(name, value);
  }
}

Scope* Interpreter::new_scope(Scope* parent) {
  arena.charge(sizeof(Scope) + 64);
  Scope& scope = scopes_.emplace_back();
  scope.parent = parent;
  return &scope;
}

Text Interpreter::run(const Body& body, const Dict& variables) {
  try {
    Scope* globals = new_scope(nullptr);
    for (const auto& [name, value] : variables.entries()) globals->set(name.view(), value);
    Text out;
    exec(body, new_scope(globals), &out);
    return out;
  } catch (const Error& error) {
    if (error.message().substr(0, 14) == "chat template:") throw;
    throw Error(error.code(), fmt::format("chat template line {}: {}", line_, error.message()));
  }
}

void Interpreter::print(const Value& value, Text* out) {
  if (value.is(Kind::kString)) {
    out->append(*value.text);
  } else {
    out->append(to_text(value));
  }
}

Flow Interpreter::exec(const Body& body, Scope* scope, Text* out) {
  if (depth_ >= limits_.depth) fail("nested deeper than {} evaluations, the limit", limits_.depth);
  ++depth_;
  Flow flow = Flow::kNormal;
  for (const auto& node : body) {
    spend(1);
    line_ = node->line;
    flow = exec_node(*node, scope, out);
    if (out->size() > limits_.output) fail("renders more than {} bytes, the limit", limits_.output);
    if (flow != Flow::kNormal) break;
  }
  --depth_;
  return flow;
}

Flow Interpreter::exec_node(const Node& node, Scope* scope, Text* out) {
  switch (node.kind) {
    case NodeKind::kData:
      out->append(*node.data);
      return Flow::kNormal;
    case NodeKind::kPrint:
      print(eval(*node.expr, scope), out);
      return Flow::kNormal;
    case NodeKind::kIf:
      return exec_if(node, scope, out);
    case NodeKind::kFor:
      return exec_for(node, scope, out);
    case NodeKind::kBreak:
      return Flow::kBreak;
    case NodeKind::kContinue:
      return Flow::kContinue;
    case NodeKind::kScope:
      return exec(node.bodies[0], new_scope(scope), out);
    case NodeKind::kSet:
    case NodeKind::kSetBlock:
      exec_set(node, scope);
      return Flow::kNormal;
    case NodeKind::kFilter: {
      Text inner;
      const Flow flow = exec(node.bodies[0], new_scope(scope), &inner);
      const Value value = string(std::move(inner));
      print(eval_filter(*node.filter, &value, scope), out);
      return flow;
    }
    case NodeKind::kWith: {
      Scope* inner = new_scope(scope);
      std::vector<Value> values = eval_all(node.exprs, 0, scope);
      for (size_t i = 0; i < values.size(); ++i) assign(*node.targets[i], values[i], inner);
      return exec(node.bodies[0], inner, out);
    }
    case NodeKind::kMacro:
    case NodeKind::kCall: {
      arena.charge(sizeof(Macro));
      const bool macro = node.kind == NodeKind::kMacro;
      macros_.push_back({&node, scope, macro ? std::string_view(node.name) : "caller"});
      Value value = Value::with(Kind::kMacro);
      value.macro = &macros_.back();
      if (macro) {
        scope->set(node.name, value);
      } else {
        print(eval_call(*node.expr, scope, &value), out);
      }
      return Flow::kNormal;
    }
  }
  return Flow::kNormal;
}

Flow Interpreter::exec_if(const Node& node, Scope* scope, Text* out) {
  for (size_t i = 0; i < node.exprs.size(); ++i) {
    if (truth(eval(*node.exprs[i], scope))) return exec(node.bodies[i], scope, out);
  }
  return node.bodies.size() > node.exprs.size() ? exec(node.bodies.back(), scope, out) : Flow::kNormal;
}

void Interpreter::exec_set(const Node& node, Scope* scope) {
  if (node.kind == NodeKind::kSet) {
    const Value value = eval(*node.expr, scope);
    line_ = node.line;
    return assign(*node.target, value, scope);
  }
  Text inner;
  exec(node.bodies[0], new_scope(scope), &inner);
  Value value = string(std::move(inner));
  if (node.filter) value = eval_filter(*node.filter, &value, scope);
  assign(*node.target, value, scope);
}

void Interpreter::assign(const Expr& target, const Value& value, Scope* scope) {
  arena.charge(48);
  if (target.kind == ExprKind::kName) return scope->set(target.name, value);
  if (target.kind == ExprKind::kAttribute) {
    const Value object = eval(*target.args[0], scope);
    if (!object.is(Kind::kNamespace)) fail("cannot assign attribute on non-namespace object");
    if (target.name[0] == '_')
      fail("cannot store underscore-prefixed attribute '{}' on a namespace", target.name);
    object.space->attributes.set(arena.literal(target.name), value);
    return;
  }
  const std::vector<Value> values = elements(value);
  if (values.size() != target.args.size()) {
    fail("cannot unpack {} values into {} names", values.size(), target.args.size());
  }
  for (size_t i = 0; i < values.size(); ++i) assign(*target.args[i], values[i], scope);
}

Sequence* Interpreter::iterate(const Value& value) {
  switch (value.kind) {
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kRange:
    case Kind::kView:
    case Kind::kIterator:
      return value.sequence;
    case Kind::kUndefined:
      return list({}).sequence;
    case Kind::kDict: {
      std::vector<Value> keys;
      for (const auto& entry : value.dict->entries()) keys.push_back(entry.first);
      spend(keys.size());
      return list(std::move(keys)).sequence;
    }
    case Kind::kString: {
      std::vector<Value> chars;
      const std::string_view bytes = value.view();
      spend(bytes.size());
      for (size_t i = 0; i < bytes.size();) {
        const size_t size = char_size(bytes, i);
        chars.push_back(string(value.text->slice(i, i + size)));
        i += size;
      }
      return list(std::move(chars)).sequence;
    }
    default:
      fail("'{}' object is not iterable", type_name(value));
  }
}

std::vector<Value> Interpreter::elements(const Value& value) {
  Sequence* sequence = iterate(value);
  spend(sequence->items.size() - sequence->next);
  std::vector<Value> items(sequence->items.begin() + static_cast<std::ptrdiff_t>(sequence->next),
                           sequence->items.end());
  if (value.is(Kind::kIterator)) sequence->next = sequence->items.size();
  return items;
}

/// The next element that passes the loop's condition.
bool Interpreter::pull(Loop* loop, Value* out) {
  while (loop->source->next < loop->source->items.size()) {
    spend(1);
    *out = loop->source->items[loop->source->next++];
    if (!loop->node->condition) return true;
    Scope* scope = new_scope(loop->scope);
    assign(*loop->node->target, *out, scope);
    if (truth(eval(*loop->node->condition, scope))) return true;
  }
  return false;
}

bool Interpreter::look_ahead(Loop* loop) {
  if (!loop->ahead.empty()) return true;
  Value value;
  if (!pull(loop, &value)) return false;
  loop->ahead.push_back(value);
  return true;
}

Flow Interpreter::exec_for(const Node& node, Scope* scope, Text* out) {
  const Value source = eval(*node.expr, scope);
  line_ = node.line;
  arena.charge(sizeof(Loop) + sizeof(Sequence));
  Loop& loop = loops_.emplace_back();
  loop.node = &node;
  loop.scope = scope;
  loop.source = iterate(source);
  // A list that several loops visit at once needs a position of its own.
  if (!source.is(Kind::kIterator)) loop.source = list(loop.source->items).sequence;
  Value self = Value::with(Kind::kLoop);
  self.loop = &loop;
  bool any = false;
  Value value;
  while (!loop.ahead.empty() || look_ahead(&loop)) {
    value = loop.ahead.front();
    loop.ahead.pop_front();
    loop.previous = loop.current;
    loop.current = value;
    if (any) ++loop.index;
    any = true;
    Scope* inner = new_scope(scope);
    inner->set("loop", self);
    assign(*node.target, value, inner);
    if (exec(node.bodies[0], inner, out) == Flow::kBreak) break;
  }
  if (!any && node.bodies.size() > 1) return exec(node.bodies[1], new_scope(scope), out);
  return Flow::kNormal;
}

Value Interpreter::loop_attribute(Loop* loop, std::string_view name) {
  const auto length = [&] {
    Value value;
    while (pull(loop, &value)) loop->ahead.push_back(value);
    return loop->index + 1 + static_cast<int64_t>(loop->ahead.size());
  };
  if (name == "index") return Value::of(loop->index + 1);
  if (name == "index0") return Value::of(loop->index);
  if (name == "first") return Value::of(loop->index == 0);
  if (name == "last") return Value::of(!look_ahead(loop));
  if (name == "length") return Value::of(length());
  if (name == "revindex") return Value::of(length() - loop->index);
  if (name == "revindex0") return Value::of(length() - loop->index - 1);
  if (name == "depth") return Value::of(int64_t{1});
  if (name == "depth0") return Value::of(int64_t{0});
  if (name == "previtem") return loop->previous ? *loop->previous : undefined("there is no previous item");
  if (name == "nextitem") return look_ahead(loop) ? loop->ahead.front() : undefined("there is no next item");
  return undefined(fmt::format("'loop' has no attribute '{}'", name));
}

}  // namespace mete::jinja
