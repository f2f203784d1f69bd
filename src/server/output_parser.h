// Splits what a model writes into reasoning, text and tool calls, as it comes.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace mete {

struct ToolCall {
  std::string id, name, arguments;  ///< arguments: JSON text
};

struct OutputPiece {
  std::string text, reasoning;
  std::vector<ToolCall> tool_calls;  ///< complete ones
  bool empty() const { return text.empty() && reasoning.empty() && tool_calls.empty(); }
};

/// Reasoning is what stands between <think> and </think> at the start; blank space around the marks is
/// dropped. The concatenation of all pieces does not depend on how the text is cut.
class OutputParser {
 public:
  /// Without `split_reasoning` everything is text.
  OutputParser(bool split_reasoning, bool starts_in_reasoning);
  OutputPiece put(std::string_view text);
  OutputPiece finish();

 private:
  enum class State { kStart, kReasoning, kAfterReasoning, kText };
  void advance(OutputPiece& out, bool final);

  State state_;
  bool reasoned_ = false;  // some reasoning has been given out
  std::string held_;       // not decided yet
};

}  // namespace mete
