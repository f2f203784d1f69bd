// Splits what a model writes into reasoning, text and tool calls, as it comes.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "text/chat_format.h"

namespace mete {

struct OutputPiece {
  std::string text, reasoning;
  std::vector<ToolCall> tool_calls;  ///< complete ones
  bool empty() const { return text.empty() && reasoning.empty() && tool_calls.empty(); }
};

struct OutputOptions {
  ChatFormat format = ChatFormat::kPlain;
  bool split_reasoning = false;      ///< otherwise reasoning is part of the text (but for kHarmony)
  bool starts_in_reasoning = false;  ///< the prompt ends with <think>
  bool tool_calls = false;           ///< otherwise calls are text
  bool json_calls = false;           ///< kTags: calls in function tags are text
};

/// Reasoning is what stands between <think> and </think> at the start, or in the analysis channel; blank
/// space around the marks, and between text and calls, is dropped. What looks like a call and is none is
/// text. The concatenation of all pieces does not depend on how the text is cut.
class OutputParser {
 public:
  explicit OutputParser(const OutputOptions& options);
  OutputPiece put(std::string_view text);
  OutputPiece finish();

 private:
  enum class State {
    kStart,           ///< nothing but blanks yet
    kReasoning,       ///< until </think>
    kAfterReasoning,  ///< blanks behind it
    kText,
    kCall,    ///< between the marks of tool calls
    kHeader,  ///< kHarmony: until <|message|>
    kMessage  ///< kHarmony: until a mark that ends it
  };
  /// Each does what it can with `held_`; true if the state has changed and there may be more to do.
  bool start(bool final);
  bool reasoning(OutputPiece& out, bool final);
  bool text(OutputPiece& out, bool final);
  bool call(OutputPiece& out, bool final);
  bool header();
  bool message(OutputPiece& out, bool final);
  void end_message(OutputPiece& out);
  void add_text(std::string_view text, OutputPiece& out);

  OutputOptions options_;
  State state_;
  std::string held_;              // not decided yet
  std::string blanks_;            // blank space of the text that a call may follow
  bool reasoned_ = false;         // some reasoning has been given out
  bool called_ = false;           // a call was the last thing given out
  std::string open_;              // kCall: the mark that began it
  std::string_view close_;        // kCall
  std::string channel_, callee_;  // kMessage
  std::string arguments_;         // kMessage of a call
};

}  // namespace mete
