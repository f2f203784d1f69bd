// Syntax tree of a template. Nodes are built by the parser and never change afterwards.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "text/template/value.h"

namespace mete::jinja {

struct Expr;
struct Node;
using ExprPtr = std::unique_ptr<Expr>;
using Body = std::vector<std::unique_ptr<Node>>;

enum class ExprKind : uint8_t {
  kConst,      ///< constant
  kName,       ///< name
  kTuple,      ///< args
  kList,       ///< args
  kDict,       ///< args: key, value, key, value, ...
  kUnary,      ///< op ("-", "+", "not"), args[0]
  kBinary,     ///< op, args[0], args[1]; "and" and "or" are lazy
  kConcat,     ///< args joined by ~
  kCompare,    ///< args[0] ops[0] args[1] ops[1] args[2] ...
  kCondition,  ///< args: condition, then, else (may be null)
  kAttribute,  ///< args[0].name
  kSubscript,  ///< args[0][args[1]]
  kSlice,      ///< args: start, stop, step, each may be null
  kCall,       ///< args[0] called with the rest
  kFilter,     ///< name; args[0] (null in a filter block) is the input
  kTest        ///< name; args[0] is the value
};

struct Expr {
  ExprKind kind;
  int line = 0;
  int height = 1;  ///< of the tree under this node
  std::string name;
  std::vector<std::string> ops;
  Value constant;
  std::vector<ExprPtr> args;
  std::vector<std::pair<std::string, ExprPtr>> named;
  ExprPtr star_args, star_named;  ///< *args and **kwargs of a call
};

enum class NodeKind : uint8_t {
  kData,      ///< data
  kPrint,     ///< expr
  kIf,        ///< exprs[i] guards bodies[i]; one more body is the else
  kFor,       ///< target, expr, condition (may be null), bodies[0], bodies[1] is the else (may be absent)
  kSet,       ///< target, expr
  kSetBlock,  ///< target, bodies[0], filter (may be null)
  kMacro,     ///< name, params, defaults, bodies[0]
  kCall,      ///< expr is the call, params, defaults, bodies[0] is the caller's body
  kFilter,    ///< filter, bodies[0]
  kWith,      ///< targets, exprs, bodies[0]
  kScope,     ///< bodies[0] in a scope of its own (generation)
  kBreak,
  kContinue
};

struct Node {
  NodeKind kind;
  int line = 0;
  std::string name;
  const Text* data = nullptr;
  ExprPtr expr, condition, target, filter;
  std::vector<ExprPtr> exprs, targets;
  std::vector<Body> bodies;
  std::vector<std::string> params;
  std::vector<ExprPtr> defaults;  ///< of the last params
  bool uses_caller = false;       ///< a macro's body mentions `caller`, `varargs`, `kwargs`
  bool uses_varargs = false;
  bool uses_kwargs = false;
};

/// A parsed template and the constants that its nodes point to.
struct Syntax {
  Arena constants;
  Body body;
};

/// Parses; linear in the source. Throws Error naming the line.
Syntax parse(std::string_view source);

}  // namespace mete::jinja
