// Templates known by the names that llama.cpp's --chat-template takes. They write the beginning-of-sequence
// token where the model family expects it (bos_token may be empty or absent).
#include <array>
#include <utility>

#include "text/chat_template.h"

namespace mete {

namespace {

using Builtin = std::pair<std::string_view, std::string_view>;

constexpr std::string_view kChatml = R"({%- for message in messages -%}
{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%})";

// Llama 2: instructions in [INST]; without <<SYS>> a system message is plain text before the first question.
constexpr std::string_view kLlama2 = R"({{- bos_token + '[INST] ' if bos_token else '[INST] ' -}}
{%- set turn = namespace(open=true) -%}
{%- for message in messages -%}
  {%- if not turn.open -%}{{ '[INST] ' }}{%- set turn.open = true -%}{%- endif -%}
  {%- if message.role == 'system' -%}{{ message.content + '\n' }}
  {%- elif message.role == 'user' -%}{{ message.content + ' [/INST]' }}
  {%- else -%}{{ message.content + '</s>' }}{%- set turn.open = false -%}
  {%- endif -%}
{%- endfor -%})";

constexpr std::string_view kLlama2Sys = R"({{- bos_token + '[INST] ' if bos_token else '[INST] ' -}}
{%- set turn = namespace(open=true) -%}
{%- for message in messages -%}
  {%- if not turn.open -%}{{ '[INST] ' }}{%- set turn.open = true -%}{%- endif -%}
  {%- if message.role == 'system' -%}{{ '<<SYS>>\n' + message.content + '\n<</SYS>>\n\n' }}
  {%- elif message.role == 'user' -%}{{ message.content + ' [/INST]' }}
  {%- else -%}{{ message.content + '</s>' }}{%- set turn.open = false -%}
  {%- endif -%}
{%- endfor -%})";

constexpr std::string_view kLlama3 = R"({{- bos_token -}}
{%- for message in messages -%}
{{ '<|start_header_id|>' + message.role + '<|end_header_id|>\n\n' + message.content | trim + '<|eot_id|>' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif -%})";

constexpr std::string_view kLlama4 = R"({{- bos_token -}}
{%- for message in messages -%}
{{ '<|header_start|>' + message.role + '<|header_end|>\n\n' + message.content | trim + '<|eot|>' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|header_start|>assistant<|header_end|>\n\n' }}{%- endif -%})";

// Gemma has no system role: its text goes before the next message.
constexpr std::string_view kGemma = R"({{- bos_token -}}
{%- set pending = namespace(system='') -%}
{%- for message in messages -%}
  {%- if message.role == 'system' -%}{%- set pending.system = message.content | trim -%}
  {%- else -%}
    {{ '<start_of_turn>' + ('model' if message.role == 'assistant' else message.role) + '\n' }}
    {%- if pending.system and message.role != 'assistant' -%}
      {{ pending.system + '\n\n' }}{%- set pending.system = '' -%}
    {%- endif -%}
    {{ message.content | trim + '<end_of_turn>\n' }}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<start_of_turn>model\n' }}{%- endif -%})";

constexpr std::string_view kPhi3 = R"({%- for message in messages -%}
{{ '<|' + message.role + '|>\n' + message.content + '<|end|>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|assistant|>\n' }}{%- endif -%})";

constexpr std::string_view kPhi4 = R"({%- for message in messages -%}
{{ '<|im_start|>' + message.role + '<|im_sep|>' + message.content + '<|im_end|>' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant<|im_sep|>' }}{%- endif -%})";

constexpr std::string_view kFalcon3 = R"({%- for message in messages -%}
{{ '<|' + message.role + '|>\n' + message.content + '\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|assistant|>\n' }}{%- endif -%})";

constexpr std::string_view kZephyr = R"({%- for message in messages -%}
{{ '<|' + message.role + '|>\n' + message.content + '<|endoftext|>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|assistant|>\n' }}{%- endif -%})";

constexpr std::string_view kMistralV1 = R"({{- bos_token -}}
{%- set turn = namespace(open=false) -%}
{%- for message in messages -%}
  {%- if not turn.open -%}{{ ' [INST] ' }}{%- set turn.open = true -%}{%- endif -%}
  {%- if message.role == 'system' -%}{{ message.content + '\n\n' }}
  {%- elif message.role == 'user' -%}{{ message.content + ' [/INST]' }}
  {%- else -%}{{ ' ' + message.content + '</s>' }}{%- set turn.open = false -%}
  {%- endif -%}
{%- endfor -%})";

constexpr std::string_view kMistralV3 = R"({{- bos_token -}}
{%- set turn = namespace(open=false) -%}
{%- for message in messages -%}
  {%- if not turn.open -%}{{ '[INST] ' }}{%- set turn.open = true -%}{%- endif -%}
  {%- if message.role == 'system' -%}{{ message.content + '\n\n' }}
  {%- elif message.role == 'user' -%}{{ message.content + '[/INST]' }}
  {%- else -%}{{ ' ' + message.content | trim + '</s>' }}{%- set turn.open = false -%}
  {%- endif -%}
{%- endfor -%})";

constexpr std::string_view kMistralV3Tekken = R"({{- bos_token -}}
{%- set turn = namespace(open=false) -%}
{%- for message in messages -%}
  {%- if not turn.open -%}{{ '[INST]' }}{%- set turn.open = true -%}{%- endif -%}
  {%- if message.role == 'system' -%}{{ message.content + '\n\n' }}
  {%- elif message.role == 'user' -%}{{ message.content + '[/INST]' }}
  {%- else -%}{{ message.content + '</s>' }}{%- set turn.open = false -%}
  {%- endif -%}
{%- endfor -%})";

constexpr std::string_view kMistralV7 = R"({{- bos_token -}}
{%- for message in messages -%}
  {%- if message.role == 'system' -%}{{ '[SYSTEM_PROMPT] ' + message.content + '[/SYSTEM_PROMPT]' }}
  {%- elif message.role == 'user' -%}{{ '[INST] ' + message.content + '[/INST]' }}
  {%- else -%}{{ ' ' + message.content + '</s>' }}
  {%- endif -%}
{%- endfor -%})";

constexpr std::string_view kMistralV7Tekken = R"({{- bos_token -}}
{%- for message in messages -%}
  {%- if message.role == 'system' -%}{{ '[SYSTEM_PROMPT]' + message.content + '[/SYSTEM_PROMPT]' }}
  {%- elif message.role == 'user' -%}{{ '[INST]' + message.content + '[/INST]' }}
  {%- else -%}{{ message.content + '</s>' }}
  {%- endif -%}
{%- endfor -%})";

constexpr std::array<Builtin, 15> kBuiltins{{{"chatml", kChatml},
                                             {"falcon3", kFalcon3},
                                             {"gemma", kGemma},
                                             {"llama2", kLlama2},
                                             {"llama2-sys", kLlama2Sys},
                                             {"llama3", kLlama3},
                                             {"llama4", kLlama4},
                                             {"mistral-v1", kMistralV1},
                                             {"mistral-v3", kMistralV3},
                                             {"mistral-v3-tekken", kMistralV3Tekken},
                                             {"mistral-v7", kMistralV7},
                                             {"mistral-v7-tekken", kMistralV7Tekken},
                                             {"phi3", kPhi3},
                                             {"phi4", kPhi4},
                                             {"zephyr", kZephyr}}};

}  // namespace

std::optional<std::string_view> builtin_chat_template(std::string_view name) {
  for (const Builtin& builtin : kBuiltins) {
    if (builtin.first == name) return builtin.second;
  }
  return std::nullopt;
}

std::vector<std::string_view> builtin_chat_template_names() {
  std::vector<std::string_view> names;
  for (const Builtin& builtin : kBuiltins) names.push_back(builtin.first);
  return names;
}

}  // namespace mete
