// How the models of a family write reasoning and tool calls into their text.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace mete {

enum class ChatFormat {
  kPlain,     ///< no tool calls that could be told from text
  kTags,      ///< <tool_call>...</tool_call>: Hermes, Qwen, SmolLM2; JSON or Qwen3-Coder's function tags
  kLlama3,    ///< the whole answer is JSON {"name", "parameters"}, or follows <|python_tag|>
  kMistral,   ///< [TOOL_CALLS] and a JSON array, or name[ARGS]{...}
  kDeepSeek,  ///< <|tool_calls_begin|>... in DeepSeek's own spelling
  kHarmony,   ///< gpt-oss: channels; a commentary addressed to functions.NAME is a call
  kPhi        ///< <|tool_call|>[...]<|/tool_call|>
};

/// From the marks that a chat template uses.
ChatFormat detect_chat_format(std::string_view template_source);

/// Spellings of special tokens that structure the text and must not be hidden from whoever parses it.
std::span<const std::string_view> structural_tokens(ChatFormat format);

/// Begin and end of a stretch of tool calls; an empty end means the end of the text.
struct ToolMarks {
  std::string_view open, close;
};
std::span<const ToolMarks> tool_marks(ChatFormat format);

struct ToolCall {
  std::string name;
  std::string arguments;  ///< JSON text of an object
  std::string id{};       ///< set by whoever hands the call on
};

/// The calls in the text between the marks. None if it is anything else: it is then text.
std::optional<std::vector<ToolCall>> parse_tool_calls(ChatFormat format, std::string_view body);

}  // namespace mete
