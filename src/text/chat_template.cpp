#include "text/chat_template.h"

#include "base/text_file.h"
#include "text/template/interpreter.h"

namespace mete {

struct ChatTemplate::Parsed {
  jinja::Syntax syntax;
};

ChatTemplate::ChatTemplate(std::unique_ptr<const Parsed> parsed) : parsed_(std::move(parsed)) {}
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;
ChatTemplate::~ChatTemplate() = default;

Result<ChatTemplate> ChatTemplate::parse(std::string_view source) {
  try {
    return ChatTemplate(std::make_unique<const Parsed>(Parsed{jinja::parse(source)}));
  } catch (const Error& error) {
    return error;
  }
}

namespace {

bool is_token_name(std::string_view name) {
  constexpr std::string_view kSuffix = "_token";
  return name.size() >= kSuffix.size() && name.substr(name.size() - kSuffix.size()) == kSuffix;
}

std::tm clock_time() {
  const std::time_t seconds = std::time(nullptr);
  std::tm out{};
  localtime_r(&seconds, &out);
  return out;
}

}  // namespace

Result<std::vector<PromptSpan>> ChatTemplate::render_spans(const nlohmann::ordered_json& variables,
                                                           const TemplateLimits& limits,
                                                           std::optional<std::tm> local_time) const {
  if (!variables.is_object()) {
    return bad_usage("chat template: the variables are {}, expected an object", variables.type_name());
  }
  try {
    jinja::Interpreter interpreter({limits.steps, limits.memory, limits.output, limits.depth},
                                   local_time ? *local_time : clock_time());
    jinja::Dict* globals = interpreter.arena.dict();
    for (const auto& item : variables.items()) {
      const bool trusted = item.value().is_string() && is_token_name(item.key());
      const jinja::Origin origin = trusted ? jinja::Origin::kTemplate : jinja::Origin::kInput;
      interpreter.arena.set(globals, interpreter.arena.literal(item.key()),
                            interpreter.arena.from_json(item.value(), origin));
    }
    const jinja::Text text = interpreter.run(parsed_->syntax.body, *globals);
    std::vector<PromptSpan> spans;
    size_t begin = 0;
    for (const jinja::Text::Run& run : text.runs()) {
      spans.push_back(
          {std::string(text.view().substr(begin, run.end - begin)), run.origin == jinja::Origin::kInput});
      begin = run.end;
    }
    return spans;
  } catch (const Error& error) {
    return error;
  }
}

namespace {

Result<std::string> joined(Result<std::vector<PromptSpan>> spans) {
  if (!spans) return spans.error();
  std::string text;
  for (const PromptSpan& span : *spans) text += span.text;
  return text;
}

}  // namespace

Result<std::string> ChatTemplate::render(const nlohmann::ordered_json& variables) const {
  return joined(render_spans(variables));
}

Result<std::vector<PromptSpan>> ChatTemplate::render_chat_spans(std::span<const ChatMessage> messages,
                                                                bool add_generation_prompt,
                                                                std::string_view bos_token,
                                                                std::string_view eos_token) const {
  nlohmann::ordered_json variables = {
      {"messages", nlohmann::ordered_json::array()},    {"tools", nullptr},       {"documents", nullptr},
      {"add_generation_prompt", add_generation_prompt}, {"bos_token", bos_token}, {"eos_token", eos_token}};
  for (const ChatMessage& message : messages) {
    variables["messages"].push_back({{"role", message.role}, {"content", message.content}});
  }
  return render_spans(variables);
}

Result<std::string> ChatTemplate::render_chat(std::span<const ChatMessage> messages,
                                              bool add_generation_prompt, std::string_view bos_token,
                                              std::string_view eos_token) const {
  return joined(render_chat_spans(messages, add_generation_prompt, bos_token, eos_token));
}

std::optional<std::string> chat_template_source(const GgufMetadata& metadata, const std::string& option,
                                                const std::string& file) {
  if (!file.empty()) return read_text_file(file);
  if (!option.empty()) return std::string(builtin_chat_template(option).value_or(option));
  const std::string_view own = metadata.string_or("tokenizer.chat_template", "").value();
  return own.empty() ? std::nullopt : std::optional<std::string>(own);
}

}  // namespace mete
