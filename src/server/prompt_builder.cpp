#include "server/prompt_builder.h"

namespace mete {
namespace {

bool has_open_think(const std::string& text) {
  const size_t open = text.rfind("<think>");
  return open != std::string::npos && text.find("</think>", open) == std::string::npos;
}

/// The template itself opens a <think> block for the answer; what messages say does not count.
bool opens_reasoning(const std::vector<PromptSpan>& spans) {
  if (spans.empty() || spans.back().from_input) return false;
  const std::string& text = spans.back().text;
  const size_t last = text.find_last_not_of(" \t\r\n");
  constexpr std::string_view kOpen = "<think>";
  return last != std::string::npos && last + 1 >= kOpen.size() &&
         text.compare(last + 1 - kOpen.size(), kOpen.size(), kOpen) == 0;
}

ApiResult<BuiltPrompt> build_chat(const Generation& request, const Tokenizer& tokenizer,
                                  const ChatTemplate* chat_template) {
  if (chat_template == nullptr) {
    return api_error(400, "invalid_request_error", "no_chat_template",
                     "this model has no chat template: start the server with --chat-template, or use "
                     "/v1/completions");
  }
  Json messages = request.messages;
  std::string last;
  if (request.continue_last) {
    last = messages.back()["content"].get<std::string>();
    messages.erase(messages.size() - 1);
  }
  const auto spelling = [&](int32_t id) { return id >= 0 ? std::string(tokenizer.text(id)) : std::string(); };
  Json variables = request.template_variables;
  variables["messages"] = std::move(messages);
  const bool tools = !request.tools.empty() && request.tool_choice != ToolChoice::kNone;
  variables["tools"] = tools ? request.tools : Json(nullptr);
  if (!variables.contains("documents")) variables["documents"] = nullptr;
  variables["add_generation_prompt"] = request.add_generation_prompt || request.continue_last;
  variables["bos_token"] = spelling(tokenizer.bos());
  variables["eos_token"] = spelling(tokenizer.eos());
  Result<std::vector<PromptSpan>> spans = chat_template->render_spans(variables);
  if (!spans) {
    return api_error(400, "invalid_request_error", "chat_template_error",
                     fmt::format("the chat template: {}", spans.error().message()));
  }
  BuiltPrompt out;
  out.starts_in_reasoning = last.empty() ? opens_reasoning(*spans) : has_open_think(last);
  if (!last.empty()) spans->push_back({last, true});
  std::vector<TextRun> runs;
  for (const PromptSpan& span : *spans) {
    runs.push_back({span.text, !span.from_input});
    out.text += span.text;
  }
  tokenizer.encode(runs, out.tokens);
  // Templates write the beginning-of-sequence token themselves, or leave it to the tokenizer's setting.
  if (tokenizer.add_bos() && (out.tokens.empty() || out.tokens[0] != tokenizer.bos())) {
    out.tokens.insert(out.tokens.begin(), tokenizer.bos());
  }
  return out;
}

}  // namespace

BuiltPrompt build_prompt(const Prompt& prompt, const Tokenizer& tokenizer) {
  BuiltPrompt out;
  const bool text_first = !prompt.empty() && prompt.front().tokens.empty();
  if (text_first && tokenizer.add_bos()) out.tokens.push_back(tokenizer.bos());
  for (const PromptPart& part : prompt) {
    out.tokens.insert(out.tokens.end(), part.tokens.begin(), part.tokens.end());
    if (part.text.empty()) continue;
    tokenizer.encode(part.text, true, out.tokens);
    out.text += part.text;
  }
  if (text_first && tokenizer.add_eos()) out.tokens.push_back(tokenizer.eos());
  return out;
}

ApiResult<std::vector<BuiltPrompt>> build_prompts(const Generation& request, const Tokenizer& tokenizer,
                                                  const ChatTemplate* chat_template) {
  std::vector<BuiltPrompt> out;
  if (request.api == Api::kCompletion || request.api == Api::kLlama) {
    for (const Prompt& prompt : request.prompts) {
      out.push_back(build_prompt(prompt, tokenizer));
      if (out.back().tokens.empty()) return bad_field("prompt", "", "a prompt of at least one token");
    }
    return out;
  }
  ApiResult<BuiltPrompt> chat = build_chat(request, tokenizer, chat_template);
  if (!chat) return chat.error();
  out.push_back(std::move(*chat));
  return out;
}

}  // namespace mete
