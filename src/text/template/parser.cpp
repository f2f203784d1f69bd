// Recursive descent with the grammar and precedences of Jinja 3.1.
#include <charconv>

#include "base/error.h"
#include "text/template/ast.h"
#include "text/template/lexer.h"

namespace mete::jinja {

namespace {

constexpr int kMaxHeight = 250;  // of an expression, and of nested statements
constexpr size_t kMaxSource = size_t{4} << 20;

class Parser {
 public:
  Parser(std::vector<Token> tokens, Arena* constants) : tokens_(std::move(tokens)), constants_(constants) {}

  Body parse_template() { return parse_body({}); }

 private:
  // Tokens.
  const Token& now() const { return tokens_[at_]; }
  const Token& peek() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  const Token& take() { return tokens_[at_ + 1 < tokens_.size() ? at_++ : at_]; }
  bool skip_operator(std::string_view op);
  bool skip_name(std::string_view name);
  void expect_operator(std::string_view op);
  std::string expect_name();
  [[noreturn]] void fail(std::string_view what) const {
    throw bad_model("chat template line {}: {}", now().line, what);
  }
  [[noreturn]] void unexpected(std::string_view expected) const;

  // Nodes.
  ExprPtr make(ExprKind kind, int line) const;
  template <typename... Parts>
  ExprPtr join(ExprKind kind, int line, Parts... parts) const;
  void adopt(Expr* parent, ExprPtr child) const;
  void measure(Expr* expr, const ExprPtr& child) const;

  // Expressions, loosest first.
  ExprPtr parse_expression(bool with_condition = true);
  ExprPtr parse_or();
  ExprPtr parse_and();
  ExprPtr parse_not();
  ExprPtr parse_compare();
  ExprPtr parse_sum();
  ExprPtr parse_concat();
  ExprPtr parse_product();
  ExprPtr parse_power();
  ExprPtr parse_unary(bool with_filter);
  ExprPtr parse_primary();
  ExprPtr parse_postfix(ExprPtr node);
  ExprPtr parse_filters(ExprPtr node);
  ExprPtr parse_subscript(ExprPtr node);
  ExprPtr parse_subscribed();
  ExprPtr parse_call(ExprPtr node);
  void parse_arguments(Expr* call);
  ExprPtr parse_filter(ExprPtr node);
  ExprPtr parse_test(ExprPtr node);
  ExprPtr parse_tuple(bool with_condition, bool parenthesised);
  ExprPtr parse_list();
  ExprPtr parse_dict();
  ExprPtr parse_number();
  ExprPtr parse_target(bool with_attribute);

  // Statements.
  Body parse_body(const std::vector<std::string_view>& ends);
  std::unique_ptr<Node> parse_statement();
  void parse_if(Node* node);
  void parse_for(Node* node);
  void parse_set(Node* node);
  void parse_macro(Node* node);
  void parse_params(Node* node);
  void parse_call_block(Node* node);
  void parse_with(Node* node);
  void end_block() {
    if (!now().is(TokenType::kBlockEnd)) unexpected("'%}'");
    take();
  }
  void block_body(Node* node, std::string_view end);

  struct Depth {
    explicit Depth(Parser* p) : parser(p) {
      if (++parser->depth_ > kMaxHeight) parser->fail(fmt::format("nested deeper than {}", kMaxHeight));
    }
    ~Depth() { --parser->depth_; }
    Depth(const Depth&) = delete;
    Depth& operator=(const Depth&) = delete;
    Parser* parser;
  };

  std::vector<Token> tokens_;
  Arena* constants_;
  size_t at_ = 0;
  int depth_ = 0;
  int loops_ = 0;
  Node* macro_ = nullptr;  // the innermost macro or call block
};

bool Parser::skip_operator(std::string_view op) {
  if (!now().is_operator(op)) return false;
  take();
  return true;
}

bool Parser::skip_name(std::string_view name) {
  if (!now().is_name(name)) return false;
  take();
  return true;
}

void Parser::expect_operator(std::string_view op) {
  if (!skip_operator(op)) unexpected(fmt::format("'{}'", op));
}

std::string Parser::expect_name() {
  if (!now().is(TokenType::kName)) unexpected("a name");
  return take().value;
}

void Parser::unexpected(std::string_view expected) const {
  const Token& token = now();
  std::string found = fmt::format("'{}'", token.value);
  if (token.is(TokenType::kData)) found = "text";
  if (token.is(TokenType::kBlockBegin)) found = "'{%'";
  if (token.is(TokenType::kBlockEnd)) found = "'%}'";
  if (token.is(TokenType::kVariableBegin)) found = "'{{'";
  if (token.is(TokenType::kVariableEnd)) found = "'}}'";
  if (token.is(TokenType::kEnd)) found = "the end of the template";
  fail(fmt::format("found {}, expected {}", found, expected));
}

ExprPtr Parser::make(ExprKind kind, int line) const {
  auto expr = std::make_unique<Expr>();
  expr->kind = kind;
  expr->line = line;
  return expr;
}

void Parser::measure(Expr* expr, const ExprPtr& child) const {
  if (!child) return;
  expr->height = std::max(expr->height, child->height + 1);
  if (expr->height > kMaxHeight) fail(fmt::format("an expression nested deeper than {}", kMaxHeight));
}

void Parser::adopt(Expr* parent, ExprPtr child) const {
  measure(parent, child);
  parent->args.push_back(std::move(child));
}

template <typename... Parts>
ExprPtr Parser::join(ExprKind kind, int line, Parts... parts) const {
  ExprPtr expr = make(kind, line);
  (adopt(expr.get(), std::move(parts)), ...);
  return expr;
}

ExprPtr Parser::parse_expression(bool with_condition) {
  const Depth depth(this);
  if (!with_condition) return parse_or();
  ExprPtr value = parse_or();
  while (now().is_name("if")) {
    const int line = take().line;
    ExprPtr condition = parse_or();
    ExprPtr otherwise = skip_name("else") ? parse_expression() : nullptr;
    value = join(ExprKind::kCondition, line, std::move(condition), std::move(value), std::move(otherwise));
  }
  return value;
}

ExprPtr Parser::parse_or() {
  ExprPtr left = parse_and();
  while (now().is_name("or")) {
    const int line = take().line;
    left = join(ExprKind::kBinary, line, std::move(left), parse_and());
    left->name = "or";
  }
  return left;
}

ExprPtr Parser::parse_and() {
  ExprPtr left = parse_not();
  while (now().is_name("and")) {
    const int line = take().line;
    left = join(ExprKind::kBinary, line, std::move(left), parse_not());
    left->name = "and";
  }
  return left;
}

ExprPtr Parser::parse_not() {
  if (!now().is_name("not")) return parse_compare();
  const Depth depth(this);
  const int line = take().line;
  ExprPtr expr = join(ExprKind::kUnary, line, parse_not());
  expr->name = "not";
  return expr;
}

ExprPtr Parser::parse_compare() {
  const int line = now().line;
  ExprPtr first = parse_sum();
  ExprPtr chain;
  while (true) {
    std::string op;
    if (now().is(TokenType::kOperator)) {
      for (const char* known : {"==", "!=", ">", ">=", "<", "<="}) {
        if (now().value == known) op = known;
      }
    }
    if (now().is_name("in")) op = "in";
    if (now().is_name("not") && peek().is_name("in")) {
      op = "not in";
      take();
    }
    if (op.empty()) break;
    take();
    if (!chain) chain = join(ExprKind::kCompare, line, std::move(first));
    chain->ops.push_back(op);
    adopt(chain.get(), parse_sum());
  }
  return chain ? std::move(chain) : std::move(first);
}

ExprPtr Parser::parse_sum() {
  ExprPtr left = parse_concat();
  while (now().is_operator("+") || now().is_operator("-")) {
    const Token& op = take();
    left = join(ExprKind::kBinary, op.line, std::move(left), parse_concat());
    left->name = op.value;
  }
  return left;
}

ExprPtr Parser::parse_concat() {
  const int line = now().line;
  ExprPtr first = parse_product();
  if (!now().is_operator("~")) return first;
  ExprPtr concat = join(ExprKind::kConcat, line, std::move(first));
  while (skip_operator("~")) adopt(concat.get(), parse_product());
  return concat;
}

ExprPtr Parser::parse_product() {
  ExprPtr left = parse_power();
  while (now().is_operator("*") || now().is_operator("/") || now().is_operator("//") ||
         now().is_operator("%")) {
    const Token& op = take();
    left = join(ExprKind::kBinary, op.line, std::move(left), parse_power());
    left->name = op.value;
  }
  return left;
}

ExprPtr Parser::parse_power() {
  ExprPtr left = parse_unary(true);
  while (now().is_operator("**")) {
    const int line = take().line;
    left = join(ExprKind::kBinary, line, std::move(left), parse_unary(true));
    left->name = "**";
  }
  return left;
}

ExprPtr Parser::parse_unary(bool with_filter) {
  const Depth depth(this);
  ExprPtr node;
  if (now().is_operator("-") || now().is_operator("+")) {
    const Token& op = take();
    node = join(ExprKind::kUnary, op.line, parse_unary(false));
    node->name = op.value;
  } else {
    node = parse_primary();
  }
  node = parse_postfix(std::move(node));
  return with_filter ? parse_filters(std::move(node)) : std::move(node);
}

ExprPtr Parser::parse_number() {
  const Token& token = take();
  ExprPtr expr = make(ExprKind::kConst, token.line);
  const char* begin = token.value.data();
  const char* end = begin + token.value.size();
  std::from_chars_result result{};
  if (token.is(TokenType::kFloat)) {
    double value = 0;
    result = std::from_chars(begin, end, value);
    expr->constant = Value::of(value);
  } else {
    int base = 10;
    if (token.value.size() > 2 && token.value[0] == '0') {
      const char prefix = static_cast<char>(token.value[1] | 32);
      base = prefix == 'x' ? 16 : prefix == 'o' ? 8 : prefix == 'b' ? 2 : 10;
      if (base != 10) begin += 2;
    }
    int64_t value = 0;
    result = std::from_chars(begin, end, value, base);
    expr->constant = Value::of(value);
  }
  if (result.ec != std::errc() || result.ptr != end) {
    fail(fmt::format("number '{}' is malformed or over 64 bits", token.value));
  }
  return expr;
}

ExprPtr Parser::parse_primary() {
  const Token& token = now();
  if (token.is(TokenType::kInteger) || token.is(TokenType::kFloat)) return parse_number();
  if (token.is(TokenType::kString)) {
    ExprPtr expr = make(ExprKind::kConst, token.line);
    std::string value;
    while (now().is(TokenType::kString)) value += take().value;
    expr->constant = constants_->literal(value);
    return expr;
  }
  if (token.is(TokenType::kName)) {
    take();
    const std::string& name = token.value;
    ExprPtr expr = make(ExprKind::kConst, token.line);
    if (name == "true" || name == "True") {
      expr->constant = Value::of(true);
    } else if (name == "false" || name == "False") {
      expr->constant = Value::of(false);
    } else if (name == "none" || name == "None") {
      expr->constant = Value::none();
    } else {
      expr->kind = ExprKind::kName;
      expr->name = name;
      if (macro_) {
        macro_->uses_caller |= name == "caller";
        macro_->uses_varargs |= name == "varargs";
        macro_->uses_kwargs |= name == "kwargs";
      }
    }
    return expr;
  }
  if (token.is_operator("(")) {
    take();
    ExprPtr expr = parse_tuple(true, true);
    expect_operator(")");
    return expr;
  }
  if (token.is_operator("[")) return parse_list();
  if (token.is_operator("{")) return parse_dict();
  unexpected("an expression");
}

/// One expression, or several with commas as a tuple.
ExprPtr Parser::parse_tuple(bool with_condition, bool parenthesised) {
  const int line = now().line;
  const auto at_end = [&] {
    return now().is(TokenType::kVariableEnd) || now().is(TokenType::kBlockEnd) || now().is_operator(")");
  };
  ExprPtr tuple;
  if (at_end()) {
    if (!parenthesised) unexpected("an expression");
    return make(ExprKind::kTuple, line);
  }
  ExprPtr first = parse_expression(with_condition);
  while (skip_operator(",")) {
    if (!tuple) tuple = join(ExprKind::kTuple, line, std::move(first));
    if (at_end()) break;
    adopt(tuple.get(), parse_expression(with_condition));
  }
  return tuple ? std::move(tuple) : std::move(first);
}

ExprPtr Parser::parse_list() {
  ExprPtr list = make(ExprKind::kList, take().line);
  while (!now().is_operator("]")) {
    if (!list->args.empty()) expect_operator(",");
    if (now().is_operator("]")) break;
    adopt(list.get(), parse_expression());
  }
  expect_operator("]");
  return list;
}

ExprPtr Parser::parse_dict() {
  ExprPtr dict = make(ExprKind::kDict, take().line);
  while (!now().is_operator("}")) {
    if (!dict->args.empty()) expect_operator(",");
    if (now().is_operator("}")) break;
    adopt(dict.get(), parse_expression());
    expect_operator(":");
    adopt(dict.get(), parse_expression());
  }
  expect_operator("}");
  return dict;
}

ExprPtr Parser::parse_postfix(ExprPtr node) {
  while (true) {
    if (now().is_operator(".") || now().is_operator("[")) {
      node = parse_subscript(std::move(node));
    } else if (now().is_operator("(")) {
      node = parse_call(std::move(node));
    } else {
      return node;
    }
  }
}

ExprPtr Parser::parse_filters(ExprPtr node) {
  while (true) {
    if (now().is_operator("|")) {
      take();
      node = parse_filter(std::move(node));
    } else if (now().is_name("is")) {
      node = parse_test(std::move(node));
    } else if (now().is_operator("(")) {
      node = parse_call(std::move(node));
    } else {
      return node;
    }
  }
}

ExprPtr Parser::parse_subscript(ExprPtr node) {
  const int line = now().line;
  if (skip_operator(".")) {
    if (now().is(TokenType::kInteger))
      return join(ExprKind::kSubscript, line, std::move(node), parse_number());
    std::string name = expect_name();
    ExprPtr expr = join(ExprKind::kAttribute, line, std::move(node));
    expr->name = std::move(name);
    return expr;
  }
  expect_operator("[");
  ExprPtr index = parse_subscribed();
  if (now().is_operator(",")) {
    index = join(ExprKind::kTuple, line, std::move(index));
    while (skip_operator(",")) adopt(index.get(), parse_subscribed());
  }
  expect_operator("]");
  return join(ExprKind::kSubscript, line, std::move(node), std::move(index));
}

ExprPtr Parser::parse_subscribed() {
  const int line = now().line;
  const auto part = [&]() -> ExprPtr {
    if (now().is_operator(":") || now().is_operator("]") || now().is_operator(",")) return nullptr;
    return parse_expression();
  };
  ExprPtr start = part();
  if (!now().is_operator(":")) {
    if (!start) unexpected("a subscript");
    return start;
  }
  take();
  ExprPtr stop = part();
  ExprPtr step = skip_operator(":") ? part() : nullptr;
  return join(ExprKind::kSlice, line, std::move(start), std::move(stop), std::move(step));
}

void Parser::parse_arguments(Expr* call) {
  expect_operator("(");
  bool any = false;
  while (!now().is_operator(")")) {
    if (any) {
      expect_operator(",");
      if (now().is_operator(")")) break;
    }
    any = true;
    if (now().is_operator("*") || now().is_operator("**")) {
      const bool named = take().value == "**";
      ExprPtr& slot = named ? call->star_named : call->star_args;
      if (slot) unexpected("one * and one ** argument");
      slot = parse_expression();
      measure(call, slot);
    } else if (now().is(TokenType::kName) && peek().is_operator("=")) {
      std::string name = take().value;
      take();
      ExprPtr value = parse_expression();
      measure(call, value);
      call->named.emplace_back(std::move(name), std::move(value));
    } else {
      if (!call->named.empty() || call->star_named) unexpected("named arguments last");
      adopt(call, parse_expression());
    }
  }
  expect_operator(")");
}

ExprPtr Parser::parse_call(ExprPtr node) {
  ExprPtr call = join(ExprKind::kCall, now().line, std::move(node));
  parse_arguments(call.get());
  return call;
}

/// After the '|'; `node` is null at the start of a filter block.
ExprPtr Parser::parse_filter(ExprPtr node) {
  ExprPtr filter = join(ExprKind::kFilter, now().line, std::move(node));
  filter->name = expect_name();
  while (skip_operator(".")) filter->name.append(".").append(expect_name());
  if (now().is_operator("(")) parse_arguments(filter.get());
  return filter;
}

ExprPtr Parser::parse_test(ExprPtr node) {
  const int line = take().line;
  const bool negated = skip_name("not");
  ExprPtr test = join(ExprKind::kTest, line, std::move(node));
  test->name = expect_name();
  while (skip_operator(".")) test->name.append(".").append(expect_name());
  const Token& next = now();
  if (next.is_operator("(")) {
    parse_arguments(test.get());
  } else if ((next.is(TokenType::kName) && !next.is_name("else") && !next.is_name("or") &&
              !next.is_name("and")) ||
             next.is(TokenType::kString) || next.is(TokenType::kInteger) || next.is(TokenType::kFloat) ||
             next.is_operator("[") || next.is_operator("{")) {
    if (next.is_name("is")) fail("tests cannot be chained with 'is'");
    adopt(test.get(), parse_postfix(parse_primary()));
  }
  if (!negated) return test;
  ExprPtr expr = join(ExprKind::kUnary, line, std::move(test));
  expr->name = "not";
  return expr;
}

/// name, name.attribute (for set), or a tuple of names, nested.
ExprPtr Parser::parse_target(bool with_attribute) {
  const Depth depth(this);
  const int line = now().line;
  const auto one = [&]() -> ExprPtr {
    if (skip_operator("(")) {
      ExprPtr inner = parse_target(false);
      expect_operator(")");
      return inner;
    }
    ExprPtr name = make(ExprKind::kName, now().line);
    name->name = expect_name();
    for (const char* reserved : {"true", "false", "none", "True", "False", "None"}) {
      if (name->name == reserved) fail(fmt::format("cannot assign to '{}'", reserved));
    }
    if (with_attribute && skip_operator(".")) {
      std::string attribute = expect_name();
      name = join(ExprKind::kAttribute, line, std::move(name));
      name->name = std::move(attribute);
    }
    return name;
  };
  ExprPtr first = one();
  if (!now().is_operator(",")) return first;
  ExprPtr tuple = join(ExprKind::kTuple, line, std::move(first));
  while (skip_operator(",")) {
    if (!now().is(TokenType::kName) && !now().is_operator("(")) break;
    if (now().is_name("in")) break;
    adopt(tuple.get(), one());
  }
  return tuple;
}

Body Parser::parse_body(const std::vector<std::string_view>& ends) {
  const Depth depth(this);
  Body body;
  while (true) {
    const Token& token = now();
    if (token.is(TokenType::kEnd)) {
      if (!ends.empty()) unexpected(fmt::format("'{{% {} %}}'", ends.back()));
      return body;
    }
    auto node = std::make_unique<Node>();
    node->line = token.line;
    if (token.is(TokenType::kData)) {
      node->kind = NodeKind::kData;
      node->data = constants_->text(take().value, Origin::kTemplate);
    } else if (token.is(TokenType::kVariableBegin)) {
      take();
      node->kind = NodeKind::kPrint;
      node->expr = parse_tuple(true, false);
      if (!now().is(TokenType::kVariableEnd)) unexpected("'}}'");
      take();
    } else {
      take();
      for (const std::string_view end : ends) {
        if (now().is_name(end)) return body;
      }
      node = parse_statement();
    }
    body.push_back(std::move(node));
  }
}

/// The body up to and including {% end %}.
void Parser::block_body(Node* node, std::string_view end) {
  end_block();
  node->bodies.push_back(parse_body({end}));
  take();
  end_block();
}

std::unique_ptr<Node> Parser::parse_statement() {
  auto node = std::make_unique<Node>();
  node->line = now().line;
  const std::string tag = expect_name();
  if (tag == "if") {
    parse_if(node.get());
  } else if (tag == "for") {
    parse_for(node.get());
  } else if (tag == "set") {
    parse_set(node.get());
  } else if (tag == "macro") {
    parse_macro(node.get());
  } else if (tag == "call") {
    parse_call_block(node.get());
  } else if (tag == "with") {
    parse_with(node.get());
  } else if (tag == "filter") {
    node->kind = NodeKind::kFilter;
    node->filter = parse_filters(parse_filter(nullptr));
    block_body(node.get(), "endfilter");
  } else if (tag == "generation") {
    node->kind = NodeKind::kScope;
    block_body(node.get(), "endgeneration");
  } else if (tag == "break" || tag == "continue") {
    if (loops_ == 0) fail(fmt::format("'{}' outside a loop", tag));
    node->kind = tag == "break" ? NodeKind::kBreak : NodeKind::kContinue;
    end_block();
  } else {
    fail(fmt::format("unknown or unsupported tag '{}'", tag));
  }
  return node;
}

void Parser::parse_if(Node* node) {
  node->kind = NodeKind::kIf;
  while (true) {
    node->exprs.push_back(parse_tuple(false, false));
    end_block();
    node->bodies.push_back(parse_body({"elif", "else", "endif"}));
    if (!skip_name("elif")) break;
  }
  if (skip_name("else")) {
    end_block();
    node->bodies.push_back(parse_body({"endif"}));
  }
  take();
  end_block();
}

void Parser::parse_for(Node* node) {
  node->kind = NodeKind::kFor;
  node->target = parse_target(false);
  if (!skip_name("in")) unexpected("'in'");
  node->expr = parse_tuple(false, false);
  if (skip_name("if")) node->condition = parse_expression();
  if (now().is_name("recursive")) fail("recursive loops are not supported");
  end_block();
  ++loops_;
  node->bodies.push_back(parse_body({"else", "endfor"}));
  --loops_;
  if (skip_name("else")) {
    end_block();
    node->bodies.push_back(parse_body({"endfor"}));
  }
  take();
  end_block();
}

void Parser::parse_set(Node* node) {
  node->target = parse_target(true);
  if (skip_operator("=")) {
    node->kind = NodeKind::kSet;
    node->expr = parse_tuple(true, false);
    return end_block();
  }
  node->kind = NodeKind::kSetBlock;
  if (skip_operator("|")) node->filter = parse_filters(parse_filter(nullptr));
  block_body(node, "endset");
}

void Parser::parse_params(Node* node) {
  expect_operator("(");
  while (!now().is_operator(")")) {
    if (!node->params.empty()) expect_operator(",");
    if (now().is_operator(")")) break;
    node->params.push_back(expect_name());
    if (skip_operator("=")) {
      node->defaults.push_back(parse_expression());
    } else if (!node->defaults.empty()) {
      fail("a parameter without default after one with a default");
    }
  }
  expect_operator(")");
}

void Parser::parse_macro(Node* node) {
  node->kind = NodeKind::kMacro;
  node->name = expect_name();
  Node* outer = macro_;
  const int loops = loops_;
  macro_ = node;
  loops_ = 0;
  parse_params(node);
  block_body(node, "endmacro");
  macro_ = outer;
  loops_ = loops;
}

void Parser::parse_call_block(Node* node) {
  node->kind = NodeKind::kCall;
  if (now().is_operator("(")) parse_params(node);
  node->expr = parse_expression();
  if (node->expr->kind != ExprKind::kCall) fail("a call block needs a call");
  const int loops = loops_;
  loops_ = 0;
  block_body(node, "endcall");
  loops_ = loops;
}

void Parser::parse_with(Node* node) {
  node->kind = NodeKind::kWith;
  while (!now().is(TokenType::kBlockEnd)) {
    if (!node->targets.empty()) expect_operator(",");
    node->targets.push_back(parse_target(false));
    expect_operator("=");
    node->exprs.push_back(parse_expression());
  }
  block_body(node, "endwith");
}

}  // namespace

Syntax parse(std::string_view source) {
  if (source.size() > kMaxSource) {
    throw bad_model("chat template: {} bytes, expected at most {}", source.size(), kMaxSource);
  }
  Syntax syntax{Arena(256ULL << 20), {}};
  syntax.body = Parser(tokenize(source), &syntax.constants).parse_template();
  return syntax;
}

}  // namespace mete::jinja
