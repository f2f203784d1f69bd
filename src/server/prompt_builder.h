// Conversations and prompts to token ids.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "server/generation.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace mete {

struct BuiltPrompt {
  std::vector<int32_t> tokens;
  std::string text;                  ///< of the prompt, where it was text
  bool starts_in_reasoning = false;  ///< the prompt ends inside a <think> block
};

/// The prompts of a request: one for a conversation, else one per prompt. Template text may become special
/// tokens, message text never does; a prompt of the completion APIs is the client's whole text, so special
/// tokens in it are read. `chat_template`: null if the model has none. Errors: a template that refuses the
/// messages, no template.
ApiResult<std::vector<BuiltPrompt>> build_prompts(const Generation& request, const Tokenizer& tokenizer,
                                                  const ChatTemplate* chat_template);

/// Token ids of a prompt given in parts, with the BOS and EOS that the model asks for around text.
BuiltPrompt build_prompt(const Prompt& prompt, const Tokenizer& tokenizer);

}  // namespace mete
