// The template interpreter on arbitrary source, with tight limits and a conversation with tools.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "text/chat_template.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace mete;
  const auto chat = ChatTemplate::parse({reinterpret_cast<const char*>(data), size});
  if (!chat) return 0;
  static const auto variables = nlohmann::ordered_json::parse(R"({
    "messages": [{"role": "system", "content": "s <|x|>"}, {"role": "user", "content": [{"type": "text", "text": "\u00e9\u6771"}]},
                 {"role": "assistant", "content": null, "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1.5}}}]}],
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"properties": {"a": {"type": "number"}}}}}],
    "l": [3, 1, 2], "s": "a b,c", "n": 7, "add_generation_prompt": true, "bos_token": "<s>"})");
  const TemplateLimits limits{.steps = 100'000, .memory = 4 << 20, .output = 1 << 20, .depth = 200};
  const std::tm time{};
  const auto spans = chat->render_spans(variables, limits, time);
  if (!spans) {
    METE_CHECK(!spans.error().message().empty());
    return 0;
  }
  size_t total = 0;
  bool last = false;
  for (const PromptSpan& span : *spans) {
    METE_CHECK(!span.text.empty());
    METE_CHECK(total == 0 || span.from_input != last);
    total += span.text.size();
    last = span.from_input;
  }
  METE_CHECK(total <= limits.output + (size_t{1} << 22));
  return 0;
}
