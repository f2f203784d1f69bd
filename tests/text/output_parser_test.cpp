// Reasoning, text and tool calls of the model families' formats, whole and cut at every byte.
#include "text/output_parser.h"

#include <gtest/gtest.h>

namespace mete {
namespace {

std::string join(const OutputPiece& piece) {
  std::string out = "R[" + piece.reasoning + "] T[" + piece.text + "]";
  for (const ToolCall& c : piece.tool_calls) out += " " + c.name + c.arguments;
  return out;
}

/// The parse of `text` given in pieces of `step` bytes.
std::string parse(const OutputOptions& options, std::string_view text, size_t step) {
  OutputParser parser(options);
  OutputPiece all;
  const auto add = [&](OutputPiece piece) {
    all.text += piece.text;
    all.reasoning += piece.reasoning;
    for (ToolCall& c : piece.tool_calls) all.tool_calls.push_back(std::move(c));
  };
  for (size_t i = 0; i < text.size(); i += step) add(parser.put(text.substr(i, step)));
  add(parser.finish());
  return join(all);
}

void expect(const OutputOptions& options, std::string_view text, std::string_view expected) {
  for (size_t step = 1; step <= text.size() + 1; ++step)
    ASSERT_EQ(parse(options, text, step), expected) << step;
}

OutputOptions with(ChatFormat format, bool tools = true, bool reasoning = true) {
  OutputOptions o;
  o.format = format;
  o.tool_calls = tools;
  o.split_reasoning = reasoning;
  return o;
}

TEST(OutputParser, Tags) {
  const OutputOptions o = with(ChatFormat::kTags);
  expect(o, "plain <text> here \n", "R[] T[plain <text> here \n]");
  expect(o, "<think>\nhm\n\nso\n</think>\n\nIt is.", "R[hm\n\nso] T[It is.]");
  expect(o, "Let me see.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": [1, \"x\"]}}\n</tool_call>\n",
         "R[] T[Let me see.] f{\"a\":[1,\"x\"]}");
  expect(o,
         "<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>\n<tool_call>\n{\"name\": \"g\", "
         "\"arguments\": \"{\\\"b\\\": 2}\"}\n</tool_call>",
         "R[] T[] f{} g{\"b\":2}");
  expect(
      o,
      "<tool_call>[{\"name\": \"f\", \"arguments\": {}}, {\"name\": \"g\", \"arguments\": {}}]</tool_call>",
      "R[] T[] f{} g{}");
  expect(o,
         "<tool_call>\n<function=get>\n<parameter=city>\nNew "
         "York\n</parameter>\n<parameter=days>\n3\n</parameter>\n"
         "</function>\n</tool_call>",
         "R[] T[] get{\"city\":\"New York\",\"days\":3}");
}

TEST(OutputParser, FunctionTagsAreNoCallsWhereOnlyJsonIs) {
  OutputOptions o = with(ChatFormat::kTags);
  const std::string quoting =
      "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": \"<function=g></function>\"}}</tool_call>";
  const std::string tags = "<tool_call>\n<function=g>\n</function>\n</tool_call>";
  expect(o, quoting, "R[] T[] f{\"a\":\"<function=g></function>\"}");
  expect(o, tags, "R[] T[] g{}");
  o.json_calls = true;
  expect(o, quoting, "R[] T[] f{\"a\":\"<function=g></function>\"}");
  expect(o, tags, "R[] T[" + tags + "]");
}

TEST(OutputParser, WhatIsNoCallStaysText) {
  const OutputOptions o = with(ChatFormat::kTags);
  for (const char* text : {"<tool_call>\nnot json\n</tool_call> x", "<tool_call>{\"name\": 3}</tool_call>",
                           "<tool_call>\n{\"name\": \"f\", \"arg", "a <tool_cal", "<tool_call>", "<thin"}) {
    expect(o, text, "R[] T[" + std::string(text) + "]");
  }
  const char* call = "<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>";
  expect(with(ChatFormat::kTags, false), call, "R[] T[" + std::string(call) + "]");
  expect(with(ChatFormat::kTags, false, false), "<think>a</think>b", "R[] T[<think>a</think>b]");
}

TEST(OutputParser, ReasoningOpenedByThePrompt) {
  OutputOptions o = with(ChatFormat::kPlain);
  o.starts_in_reasoning = true;
  expect(o, "\nhm\n</think>\n\nyes", "R[hm] T[yes]");
  expect(o, "never closed", "R[never closed] T[]");
}

TEST(OutputParser, Llama3) {
  const OutputOptions o = with(ChatFormat::kLlama3);
  expect(o, "{\"name\": \"f\", \"parameters\": {\"a\": 1}}", "R[] T[] f{\"a\":1}");
  expect(o, "<|python_tag|>{\"name\": \"f\", \"parameters\": {}}; {\"name\": \"g\", \"parameters\": {}}",
         "R[] T[] f{} g{}");
  expect(o, "{\"answer\": 42}", "R[] T[{\"answer\": 42}]");
  expect(o, "So: {1, 2}", "R[] T[So: {1, 2}]");
}

TEST(OutputParser, Mistral) {
  const OutputOptions o = with(ChatFormat::kMistral);
  expect(o, "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {\"a\": 1}}]", "R[] T[] f{\"a\":1}");
  expect(o, "ok [TOOL_CALLS]f[ARGS]{\"a\": 1}[TOOL_CALLS]g{}", "R[] T[ok] f{\"a\":1} g{}");
}

TEST(OutputParser, DeepSeek) {
  const std::string bar = "\xef\xbd\x9c", low = "\xe2\x96\x81";
  const auto mark = [&](const std::string& a, const std::string& b, const std::string& c) {
    return "<" + bar + a + (b.empty() ? "" : low + b) + (c.empty() ? "" : low + c) + bar + ">";
  };
  const std::string begin = mark("tool", "calls", "begin"), end = mark("tool", "calls", "end");
  const std::string one = mark("tool", "call", "begin"), done = mark("tool", "call", "end"),
                    sep = mark("tool", "sep", "");
  const OutputOptions o = with(ChatFormat::kDeepSeek);
  expect(o, "hm " + begin + one + "f" + sep + "{\"a\": 1}" + done + one + "g" + sep + "{}" + done + end,
         "R[] T[hm] f{\"a\":1} g{}");
  expect(o, begin + one + "function" + sep + "f\n```json\n{\"a\": 1}\n```" + done + end,
         "R[] T[] f{\"a\":1}");
}

TEST(OutputParser, Harmony) {
  const OutputOptions o = with(ChatFormat::kHarmony);
  expect(
      o,
      "<|channel|>analysis<|message|>think<|end|><|start|>assistant<|channel|>final<|message|>Yes<|return|>",
      "R[think] T[Yes]");
  expect(o, "<|channel|>commentary to=functions.get <|constrain|>json<|message|>{\"city\": \"Rome\"}<|call|>",
         "R[] T[] get{\"city\":\"Rome\"}");
  expect(o, "<|channel|>final<|message|>a < b and <|en", "R[] T[a < b and <|en]");
}

TEST(OutputParser, Phi) {
  expect(with(ChatFormat::kPhi), "<|tool_call|>[{\"name\": \"f\", \"arguments\": {}}]<|/tool_call|>",
         "R[] T[] f{}");
}

TEST(ChatFormat, IsFoundInTheTemplate) {
  EXPECT_EQ(detect_chat_format("... <tool_call> ..."), ChatFormat::kTags);
  EXPECT_EQ(detect_chat_format("<|channel|>"), ChatFormat::kHarmony);
  EXPECT_EQ(detect_chat_format("[TOOL_CALLS]"), ChatFormat::kMistral);
  EXPECT_EQ(detect_chat_format("<|im_start|>"), ChatFormat::kPlain);
}

}  // namespace
}  // namespace mete
