// A conversation with a model: messages to prompt tokens through the chat template, with history.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "format/gguf.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace mete {

/// The chat template that the options and the file name: --chat-template-file, then --chat-template (a
/// built-in name or a template's text), then tokenizer.chat_template. None if there is none. Throws Error for
/// a template that does not parse.
std::optional<ChatTemplate> find_chat_template(const GgufMetadata& metadata, const std::string& option,
                                               const std::string& file);

/// Token ids of a raw text, with the BOS and EOS that the model asks for.
std::vector<int32_t> encode_raw(const Tokenizer& tokenizer, std::string_view text);

/// Token ids of a conversation: template text may name special tokens, message text never does.
std::vector<int32_t> encode_chat(const Tokenizer& tokenizer, const ChatTemplate& chat_template,
                                 const std::vector<ChatMessage>& messages);

}  // namespace mete
