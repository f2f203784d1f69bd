// Template source to tokens, with the white-space rules that transformers sets: trim_blocks, lstrip_blocks,
// one trailing newline dropped, \r\n and \r read as \n.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace mete::jinja {

enum class TokenType : uint8_t {
  kData,
  kVariableBegin,
  kVariableEnd,
  kBlockBegin,
  kBlockEnd,
  kName,
  kString,   ///< value holds the decoded string
  kInteger,  ///< digits, underscores removed, with 0x/0o/0b prefix
  kFloat,
  kOperator,
  kEnd
};

struct Token {
  TokenType type;
  int line;
  std::string value;

  bool is(TokenType t) const { return type == t; }
  bool is_name(std::string_view name) const { return type == TokenType::kName && value == name; }
  bool is_operator(std::string_view op) const { return type == TokenType::kOperator && value == op; }
};

/// Linear in the size of the source; throws Error naming the line.
std::vector<Token> tokenize(std::string_view source);

}  // namespace mete::jinja
