// Chat templates: the Jinja subset in which models describe their prompt format, rendered as
// `transformers` renders it (sandboxed, trim_blocks, lstrip_blocks, loop controls, its own tojson).
#pragma once

#include <nlohmann/json.hpp>

#include <ctime>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "format/gguf.h"

namespace mete {

struct ChatMessage {
  std::string role;
  std::string content;
};

/// A stretch of a rendered prompt. Only text with from_input false may be read as control tokens. Stretches
/// are not token boundaries: ordinary text on both sides of a border belongs to the same words.
struct PromptSpan {
  std::string text;
  bool from_input;  ///< from messages, tools or other variables; not from the template
};

/// Bounds of one rendering; more is an error that names the bound.
struct TemplateLimits {
  uint64_t steps = 20'000'000;     ///< evaluated nodes, visited elements, scanned 64-byte blocks
  uint64_t memory = 256ULL << 20;  ///< bytes of all values that the rendering makes
  uint64_t output = 64ULL << 20;   ///< bytes
  uint32_t depth = 1000;           ///< nested evaluations
};

class ChatTemplate {
 public:
  /// Linear in the source. An error names the line.
  static Result<ChatTemplate> parse(std::string_view source);
  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;
  ~ChatTemplate();

  /// `variables` is an object: messages, tools, add_generation_prompt, bos_token, eos_token, ... Strings in
  /// it are input, except top-level strings whose name ends in "_token", which are the model's own. The error
  /// is of code kUsage where the template called raise_exception, else kRuntime with the line. `local_time`
  /// is what strftime_now formats; the clock if absent.
  Result<std::vector<PromptSpan>> render_spans(const nlohmann::ordered_json& variables,
                                               const TemplateLimits& limits = {},
                                               std::optional<std::tm> local_time = {}) const;
  /// The spans as one string.
  Result<std::string> render(const nlohmann::ordered_json& variables) const;
  /// As transformers does, `tools` and `documents` are none.
  Result<std::string> render_chat(std::span<const ChatMessage> messages, bool add_generation_prompt,
                                  std::string_view bos_token, std::string_view eos_token) const;
  Result<std::vector<PromptSpan>> render_chat_spans(std::span<const ChatMessage> messages,
                                                    bool add_generation_prompt, std::string_view bos_token,
                                                    std::string_view eos_token) const;

 private:
  struct Parsed;
  explicit ChatTemplate(std::unique_ptr<const Parsed> parsed);
  std::unique_ptr<const Parsed> parsed_;
};

/// The template to use: of a file, if one is named; else `option`, a built-in name or the source itself, if
/// there is one; else the model's own. Nothing if there is none of them. Throws Error(kRuntime) for a file
/// that cannot be read.
std::optional<std::string> chat_template_source(const GgufMetadata& metadata, const std::string& option,
                                                const std::string& file);

/// Source of a template that is known by name (llama.cpp's --chat-template names), or nothing.
std::optional<std::string_view> builtin_chat_template(std::string_view name);
/// All names of builtin_chat_template, sorted.
std::vector<std::string_view> builtin_chat_template_names();

}  // namespace mete
