#include "text/chat_format.h"

#include <array>
#include <nlohmann/json.hpp>

namespace mete {
namespace {

using Json = nlohmann::ordered_json;
using Calls = std::vector<ToolCall>;

// DeepSeek's marks: fullwidth vertical lines and lower one eighth blocks.
#define METE_BAR "\xef\xbd\x9c"
#define METE_LOW "\xe2\x96\x81"
constexpr std::string_view kCallsBegin = "<" METE_BAR "tool" METE_LOW "calls" METE_LOW "begin" METE_BAR ">";
constexpr std::string_view kCallsEnd = "<" METE_BAR "tool" METE_LOW "calls" METE_LOW "end" METE_BAR ">";
constexpr std::string_view kCallBegin = "<" METE_BAR "tool" METE_LOW "call" METE_LOW "begin" METE_BAR ">";
constexpr std::string_view kCallEnd = "<" METE_BAR "tool" METE_LOW "call" METE_LOW "end" METE_BAR ">";
constexpr std::string_view kCallSeparator = "<" METE_BAR "tool" METE_LOW "sep" METE_BAR ">";
#undef METE_BAR
#undef METE_LOW

constexpr ToolMarks kTagMarks[] = {{"<tool_call>", "</tool_call>"}};
constexpr ToolMarks kLlama3Marks[] = {{"<|python_tag|>", ""}};
constexpr ToolMarks kMistralMarks[] = {{"[TOOL_CALLS]", ""}};
constexpr ToolMarks kDeepSeekMarks[] = {{kCallsBegin, kCallsEnd}};
constexpr ToolMarks kPhiMarks[] = {{"<|tool_call|>", "<|/tool_call|>"}};

constexpr std::string_view kTagTokens[] = {"<tool_call>", "</tool_call>", "<think>", "</think>"};
constexpr std::string_view kLlama3Tokens[] = {"<|python_tag|>"};
constexpr std::string_view kMistralTokens[] = {"[TOOL_CALLS]", "[ARGS]", "[THINK]", "[/THINK]"};
constexpr std::string_view kDeepSeekTokens[] = {kCallsBegin,    kCallsEnd, kCallBegin, kCallEnd,
                                                kCallSeparator, "<think>", "</think>"};
constexpr std::string_view kHarmonyTokens[] = {"<|channel|>",   "<|message|>", "<|start|>", "<|end|>",
                                               "<|constrain|>", "<|call|>",    "<|return|>"};
constexpr std::string_view kPhiTokens[] = {"<|tool_call|>", "<|/tool_call|>"};
constexpr std::string_view kPlainTokens[] = {"<think>", "</think>"};

std::string_view trimmed(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t\r\n");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\r\n") - first + 1);
}

bool is_name(std::string_view name) {
  return !name.empty() && name.size() <= 256 &&
         name.find_first_of(" \t\r\n<>{}[]\"") == std::string_view::npos;
}

/// {"name": ..., "arguments" or "parameters": object or its JSON text}.
bool add_json_call(const Json& value, Calls& out) {
  if (!value.is_object() || !value.contains("name") || !value["name"].is_string()) return false;
  Json arguments = Json::object();
  for (const char* key : {"arguments", "parameters"}) {
    if (value.contains(key)) arguments = value[key];
  }
  if (arguments.is_string()) arguments = Json::parse(arguments.get<std::string>(), nullptr, false);
  const auto name = value["name"].get<std::string>();
  if (!arguments.is_object() || !is_name(name)) return false;
  out.push_back({name, arguments.dump()});
  return true;
}

/// One object, an array of them, or several after each other with ';' or blanks between.
bool add_json_calls(std::string_view text, Calls& out) {
  text = trimmed(text);
  const Json value = Json::parse(text, nullptr, false);
  if (value.is_discarded()) {
    size_t from = 0;
    for (size_t i = 1; i <= text.size(); ++i) {
      const bool border = i == text.size() || text[i] == ';' || text[i] == '\n';
      if (!border || trimmed(text.substr(from, i - from)).empty()) continue;
      const Json one = Json::parse(text.substr(from, i - from), nullptr, false);
      if (one.is_discarded()) continue;  // the border lies inside a call
      if (!add_json_call(one, out)) return false;
      from = i + 1;
    }
    return from > text.size() && !out.empty();
  }
  if (!value.is_array()) return add_json_call(value, out);
  for (const Json& one : value) {
    if (!add_json_call(one, out)) return false;
  }
  return !value.empty();
}

/// Text between `open` and `close`, which is removed from the front of `text` with all before it.
std::optional<std::string_view> take_between(std::string_view& text, std::string_view open,
                                             std::string_view close) {
  const size_t begin = text.find(open);
  if (begin == std::string_view::npos) return std::nullopt;
  const size_t end = text.find(close, begin + open.size());
  if (end == std::string_view::npos) return std::nullopt;
  const std::string_view inside = text.substr(begin + open.size(), end - begin - open.size());
  text.remove_prefix(end + close.size());
  return inside;
}

/// <function=NAME> <parameter=KEY> VALUE </parameter> ... </function>. A value that is JSON but not a string
/// is taken as that, anything else as text.
bool add_function_tags(std::string_view text, Calls& out) {
  while (const auto function = take_between(text, "<function=", "</function>")) {
    const size_t end = function->find('>');
    if (end == std::string_view::npos) return false;
    const std::string_view name = trimmed(function->substr(0, end));
    if (!is_name(name)) return false;
    std::string_view rest = function->substr(end + 1);
    Json arguments = Json::object();
    while (const auto parameter = take_between(rest, "<parameter=", "</parameter>")) {
      const size_t close = parameter->find('>');
      if (close == std::string_view::npos) return false;
      const std::string_view raw = parameter->substr(close + 1);
      const Json value = Json::parse(trimmed(raw), nullptr, false);
      std::string_view plain = raw;
      if (!plain.empty() && plain.front() == '\n') plain.remove_prefix(1);
      if (!plain.empty() && plain.back() == '\n') plain.remove_suffix(1);
      arguments[std::string(trimmed(parameter->substr(0, close)))] =
          value.is_discarded() || value.is_string() ? Json(std::string(plain)) : value;
    }
    out.push_back({std::string(name), arguments.dump(-1, ' ', false, Json::error_handler_t::replace)});
  }
  return !out.empty() && trimmed(text).empty();
}

bool add_mistral(std::string_view text, Calls& out) {
  if (trimmed(text).substr(0, 1) == "[") return add_json_calls(text, out);
  constexpr std::string_view kOpen = "[TOOL_CALLS]", kArguments = "[ARGS]";
  while (!trimmed(text).empty()) {
    const size_t next = text.find(kOpen);
    std::string_view one = trimmed(text.substr(0, next));
    const size_t brace = one.find('{');
    if (brace == std::string_view::npos) return false;
    std::string_view name = one.substr(0, brace);
    if (const size_t mark = name.find(kArguments); mark != std::string_view::npos)
      name = name.substr(0, mark);
    const Json arguments = Json::parse(one.substr(brace), nullptr, false);
    if (!arguments.is_object() || !is_name(trimmed(name))) return false;
    out.push_back({std::string(trimmed(name)), arguments.dump()});
    text = next == std::string_view::npos ? std::string_view() : text.substr(next + kOpen.size());
  }
  return !out.empty();
}

/// "function" SEP NAME ```json {...} ``` (V3), or NAME SEP {...} (V3.1).
bool add_deepseek(std::string_view text, Calls& out) {
  while (const auto call = take_between(text, kCallBegin, kCallEnd)) {
    const size_t separator = call->find(kCallSeparator);
    if (separator == std::string_view::npos) return false;
    std::string_view name = trimmed(call->substr(0, separator));
    std::string_view rest = call->substr(separator + kCallSeparator.size());
    const size_t first = rest.find('{'), last = rest.rfind('}');
    if (first == std::string_view::npos || last == std::string_view::npos || last < first) return false;
    if (name == "function" && rest.find("```json") < first)
      name = trimmed(rest.substr(0, rest.find("```json")));
    const Json arguments = Json::parse(rest.substr(first, last - first + 1), nullptr, false);
    if (!arguments.is_object() || !is_name(name)) return false;
    out.push_back({std::string(name), arguments.dump()});
  }
  return !out.empty();
}

}  // namespace

ChatFormat detect_chat_format(std::string_view source) {
  const auto has = [&](std::string_view mark) { return source.find(mark) != std::string_view::npos; };
  if (has("<|channel|>")) return ChatFormat::kHarmony;
  if (has(kCallsBegin)) return ChatFormat::kDeepSeek;
  if (has("[TOOL_CALLS]")) return ChatFormat::kMistral;
  if (has("<|tool_call|>")) return ChatFormat::kPhi;
  if (has("<tool_call>")) return ChatFormat::kTags;
  if (has("<|python_tag|>") || (has("<|start_header_id|>") && has("parameters"))) return ChatFormat::kLlama3;
  return ChatFormat::kPlain;
}

std::span<const std::string_view> structural_tokens(ChatFormat format) {
  switch (format) {
    case ChatFormat::kPlain:
      return kPlainTokens;
    case ChatFormat::kTags:
      return kTagTokens;
    case ChatFormat::kLlama3:
      return kLlama3Tokens;
    case ChatFormat::kMistral:
      return kMistralTokens;
    case ChatFormat::kDeepSeek:
      return kDeepSeekTokens;
    case ChatFormat::kHarmony:
      return kHarmonyTokens;
    case ChatFormat::kPhi:
      return kPhiTokens;
  }
  return {};
}

std::span<const ToolMarks> tool_marks(ChatFormat format) {
  switch (format) {
    case ChatFormat::kTags:
      return kTagMarks;
    case ChatFormat::kLlama3:
      return kLlama3Marks;
    case ChatFormat::kMistral:
      return kMistralMarks;
    case ChatFormat::kDeepSeek:
      return kDeepSeekMarks;
    case ChatFormat::kPhi:
      return kPhiMarks;
    case ChatFormat::kPlain:
    case ChatFormat::kHarmony:
      return {};
  }
  return {};
}

std::optional<std::vector<ToolCall>> parse_tool_calls(ChatFormat format, std::string_view body) {
  Calls out;
  bool good = false;
  switch (format) {
    case ChatFormat::kTags:
      good = trimmed(body).substr(0, 1) == "<" ? add_function_tags(body, out) : add_json_calls(body, out);
      break;
    case ChatFormat::kLlama3:
    case ChatFormat::kPhi:
      good = add_json_calls(body, out);
      break;
    case ChatFormat::kMistral:
      good = add_mistral(body, out);
      break;
    case ChatFormat::kDeepSeek:
      good = add_deepseek(body, out);
      break;
    case ChatFormat::kPlain:
    case ChatFormat::kHarmony:
      break;
  }
  if (!good) return std::nullopt;
  return out;
}

}  // namespace mete
