// A generation request in one form for all the APIs, and the functions that make it from a body. They are
// pure: bytes in, a request or an error out.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "request/sampling.h"
#include "server/api_error.h"
#include "server/fields.h"

namespace mete {

class Tokenizer;

enum class Api {
  kChat,        ///< /v1/chat/completions
  kCompletion,  ///< /v1/completions
  kLlama,       ///< /completion of llama-server
  kResponses,   ///< /v1/responses
  kMessages     ///< /v1/messages
};

/// Text, or token ids, of a prompt that is not a conversation.
struct PromptPart {
  std::string text;
  std::vector<int32_t> tokens;
};
using Prompt = std::vector<PromptPart>;

enum class OutputKind { kText, kJsonObject, kJsonSchema, kGrammar };
struct OutputFormat {
  OutputKind kind = OutputKind::kText;
  std::string source;  ///< the schema's JSON, or the grammar's GBNF
  std::string field;   ///< where it came from, for errors
};

enum class ToolChoice { kAuto, kNone, kRequired, kNamed };

/// A tool with `strict` true: every call of it has arguments that fit its schema.
struct StrictTool {
  size_t index;       ///< of the tool
  std::string field;  ///< where that was asked, for errors
};

struct Generation {
  Api api = Api::kChat;
  std::string model;  ///< as asked; "" if the client named none

  // A conversation, in the form that chat templates expect,
  Json messages = Json::array();
  Json tools = Json::array();  ///< {"type": "function", "function": {name, description, parameters}}
  std::vector<StrictTool> strict_tools;
  ToolChoice tool_choice = ToolChoice::kAuto;
  std::string tool_name;  ///< with kNamed
  bool parallel_tool_calls = true;
  Json template_variables = Json::object();  ///< chat_template_kwargs and what other fields set
  bool add_generation_prompt = true;
  bool continue_last = false;  ///< the last message is the assistant's and goes on
  // or prompts.
  std::vector<Prompt> prompts;

  SamplingParams sampling;
  bool random_seed = false;  ///< the client asked for a seed to be drawn
  int64_t max_tokens = -1;
  bool ignore_eos = false;
  std::vector<int32_t> banned_ends;  ///< with ignore_eos: what it bans, to be shown
  int32_t n = 1;
  std::vector<std::string> stops;
  OutputFormat format;
  int32_t top_logprobs = -1;         ///< -1: none wanted
  bool post_sampling_probs = false;  ///< probabilities that tokens were drawn by, in their place
  int32_t priority = 0;
  int64_t deadline_ms = 0;  ///< > 0: from arrival
  std::string cache_salt;
  bool cache_prompt = true;

  bool stream = false;
  bool include_usage = false;
  bool return_tokens = false;
  bool return_progress = false;              ///< a stream says how far the prompt is
  bool timings_per_token = false;            ///< pieces of a stream have timings
  std::vector<std::string> response_fields;  ///< kLlama: what the response is cut down to; none: everything
  Json echo = Json::object();                ///< kResponses: fields that the response repeats
  std::vector<std::string> ignored_fields;
};

/// What the parsers need to know of the server.
struct ApiDefaults {
  SamplingParams sampling;
  bool random_seed = false;
  int64_t max_tokens = -1;
  int64_t vocab = 0;                     ///< number of token ids
  const Tokenizer* tokenizer = nullptr;  ///< of biases on text; null: none
  std::vector<int32_t> end_tokens;       ///< that ignore_eos bans
};

// Bounds on what one request may hold; more is an error that names the bound.
inline constexpr int64_t kMaxMessages = 16384;
inline constexpr int64_t kMaxPrompts = 256;
inline constexpr int64_t kMaxChoices = 64;  ///< n, and prompts x n
inline constexpr int64_t kMaxStops = 64;
inline constexpr int64_t kMaxTools = 512;
inline constexpr int64_t kMaxLogitBias = 1024;
inline constexpr int64_t kMaxTopLogprobs = 100;
inline constexpr int64_t kMaxTokensField = int64_t{1} << 31;

ApiResult<Generation> parse_chat(std::string_view body, const ApiDefaults& defaults);
ApiResult<Generation> parse_completion(std::string_view body, const ApiDefaults& defaults);
ApiResult<Generation> parse_llama_completion(std::string_view body, const ApiDefaults& defaults);
ApiResult<Generation> parse_responses(std::string_view body, const ApiDefaults& defaults);
/// `counting`: for count_tokens, where max_tokens is not needed.
ApiResult<Generation> parse_messages(std::string_view body, const ApiDefaults& defaults,
                                     bool counting = false);
/// /apply-template: messages and tools only.
ApiResult<Generation> parse_apply_template(std::string_view body, const ApiDefaults& defaults);

struct EmbeddingRequest {
  std::string model;
  std::vector<Prompt> inputs;
  bool base64 = false;
  bool llama_form = false;  ///< the response is llama-server's array
  std::vector<std::string> ignored_fields;
};
/// `llama_form`: of llama-server's own endpoint. A body with `content` in place of `input` is answered so
/// too.
ApiResult<EmbeddingRequest> parse_embeddings(std::string_view body, const ApiDefaults& defaults,
                                             bool llama_form = false);

struct TokenizeRequest {
  std::string content;
  bool add_special = false, parse_special = true, with_pieces = false;
};
ApiResult<TokenizeRequest> parse_tokenize(std::string_view body);
/// The token ids of /detokenize.
ApiResult<std::vector<int32_t>> parse_detokenize(std::string_view body, const ApiDefaults& defaults);

// Shared by the parsers.

/// A request with the server's defaults.
Generation begin_generation(Api api, const ApiDefaults& defaults);

/// Sampling, stop strings, seeds, priority and the rest that several APIs spell the same.
void read_sampling(Fields& fields, const ApiDefaults& defaults, Generation& out);
void read_stops(Fields& fields, const char* name, Generation& out);
/// A prompt as completions take it: text, ids, or an array of texts and arrays of ids. `single` arrays of
/// mixed text and ids are one prompt.
void read_prompts(Fields& fields, const char* name, const ApiDefaults& defaults, std::vector<Prompt>& out);
/// Messages in OpenAI's form, checked and brought to the form that templates expect.
void read_openai_messages(Fields& fields, Generation& out);
/// `strict` of tool `index`, whose description `holder` is.
void read_strict(Fields& fields, const Json& holder, const std::string& path, size_t index, Generation& out);
/// tools and tool_choice in OpenAI's form.
void read_openai_tools(Fields& fields, Generation& out);
/// response_format, json_schema and grammar.
void read_output_format(Fields& fields, Generation& out);
/// A conversation needs a message; the last one may be the assistant's and is then gone on with.
void check_messages(Fields& fields, const char* name, Generation& out);
/// Arguments of a tool call: JSON text becomes an object where it is one, as templates expect.
Json tool_arguments(const Json& arguments);

}  // namespace mete
