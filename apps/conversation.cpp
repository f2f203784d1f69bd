#include "apps/conversation.h"

namespace mete {

std::optional<ChatTemplate> find_chat_template(const GgufMetadata& metadata, const std::string& option,
                                               const std::string& file) {
  const std::optional<std::string> source = chat_template_source(metadata, option, file);
  if (!source) return std::nullopt;
  return ChatTemplate::parse(*source).value();
}

std::vector<int32_t> encode_raw(const Tokenizer& tokenizer, std::string_view text) {
  std::vector<int32_t> ids;
  if (tokenizer.add_bos()) ids.push_back(tokenizer.bos());
  tokenizer.encode(text, false, ids);
  if (tokenizer.add_eos()) ids.push_back(tokenizer.eos());
  return ids;
}

std::vector<int32_t> encode_chat(const Tokenizer& tokenizer, const ChatTemplate& chat_template,
                                 const std::vector<ChatMessage>& messages) {
  const auto spelling = [&](int32_t id) { return id >= 0 ? tokenizer.text(id) : std::string_view(); };
  const std::vector<PromptSpan> spans =
      chat_template.render_chat_spans(messages, true, spelling(tokenizer.bos()), spelling(tokenizer.eos()))
          .value();
  std::vector<TextRun> runs;
  for (const PromptSpan& span : spans) runs.push_back({span.text, !span.from_input});
  std::vector<int32_t> ids;
  tokenizer.encode(runs, ids);
  // Templates write the beginning-of-sequence token themselves, or leave it to the tokenizer's setting.
  if (tokenizer.add_bos() && (ids.empty() || ids[0] != tokenizer.bos()))
    ids.insert(ids.begin(), tokenizer.bos());
  return ids;
}

}  // namespace mete
