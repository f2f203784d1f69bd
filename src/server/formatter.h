// How each API writes an answer, whole or as a stream of server-sent events.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "server/engine_loop.h"
#include "server/generation.h"
#include "server/prompt_builder.h"
#include "text/output_parser.h"

namespace mete {

/// What is fixed once the model is loaded.
struct ModelInfo {
  std::string name;         ///< as responses and /v1/models have it
  std::string fingerprint;  ///< OpenAI's system_fingerprint
  const Runtime* runtime = nullptr;
  /// Tokens per second at which one sequence would read weights as fast as memory allows, by the machine's
  /// kept profile (mete bench --machine); 0: there is none.
  double decode_limit = 0;
  const Tokenizer& tokenizer() const { return runtime->tokenizer(); }
};

/// A request with what the answer needs to know of it.
struct AnswerInfo {
  Generation request;
  std::vector<BuiltPrompt> prompts;
  std::string id;  ///< "chatcmpl-...", "msg_...": of the answer
  std::string request_id;
  int64_t created = 0;  ///< Unix time
  const ModelInfo* model = nullptr;
};

/// One of the answer's texts. Choice i belongs to prompt i / n.
struct Choice {
  uint64_t seed = 0;
  std::string text, reasoning;
  std::vector<ToolCall> tool_calls;
  std::vector<JobToken> tokens;
  std::unique_ptr<JobEnd> end;  ///< null while it runs
};

/// A piece of a choice, with the tokens behind it.
struct Piece {
  OutputPiece output;
  std::vector<JobToken> tokens;
  std::unique_ptr<JobTimes> times;  ///< until now (timings_per_token), or null
};

/// The stream functions return event text to be sent, "" for nothing.
class Formatter {
 public:
  virtual ~Formatter() = default;
  virtual std::string begin(const std::vector<Choice>& choices) = 0;
  /// Of the prompt of choice `index`. `times`: until now (timings_per_token), or null.
  virtual std::string progress(size_t index, const PromptProgress& progress, const JobTimes* times) = 0;
  virtual std::string piece(size_t index, const Choice& choice, const Piece& piece) = 0;
  /// `last`: all choices have ended now.
  virtual std::string finish(size_t index, const std::vector<Choice>& choices, bool last) = 0;
  virtual std::string end(const std::vector<Choice>& choices) = 0;
  virtual std::string error(const ApiError& error) = 0;
  virtual Json whole(const std::vector<Choice>& choices) = 0;
};

/// `info` must live longer.
std::unique_ptr<Formatter> make_formatter(const AnswerInfo& info);
std::unique_ptr<Formatter> make_chat_formatter(const AnswerInfo& info);
std::unique_ptr<Formatter> make_completion_formatter(const AnswerInfo& info);
std::unique_ptr<Formatter> make_llama_formatter(const AnswerInfo& info);
std::unique_ptr<Formatter> make_messages_formatter(const AnswerInfo& info);
std::unique_ptr<Formatter> make_responses_formatter(const AnswerInfo& info);

// Parts that several APIs share.

/// "data: JSON\n\n", with a line "event: NAME" before it if there is a name.
std::string sse(const std::string& json, const char* event = nullptr);
struct TokenCounts {
  int64_t prompt = 0, cached = 0, generated = 0;
};
TokenCounts count_tokens(const AnswerInfo& info, const std::vector<Choice>& choices);
/// OpenAI's usage object.
Json usage_json(const TokenCounts& counts);
/// llama-server's timings object, of one choice.
Json timings_json(const SequenceLedger& ledger, int64_t generated);
/// llama-server's prompt_progress object.
Json progress_json(const PromptProgress& progress);
/// The receipt: what the answer cost, what it can be reproduced with, what was ignored.
Json receipt_json(const AnswerInfo& info, const std::vector<Choice>& choices);
/// "stop", "length" or "tool_calls".
const char* openai_finish_reason(const Choice& choice);
/// llama-server's generation_settings; `request` adds what only a request has.
Json generation_settings_json(const SamplingParams& sampling, int64_t max_tokens, const Generation* request);
/// OpenAI's logprobs.content with llama-server's ids. `probs`: they are probabilities after sampling, "prob"
/// and "top_probs".
Json token_logprobs_json(const Tokenizer& tokenizer, const std::vector<JobToken>& tokens, bool probs);

}  // namespace mete
