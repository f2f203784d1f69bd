#include <algorithm>

#include "server/generation.h"

namespace mete {
namespace {

void check_choices(Fields& fields, const Generation& out) {
  const auto choices = static_cast<int64_t>(out.prompts.size()) * out.n;
  if (choices > kMaxPrompts) {
    fields.fail("n", out.n, fmt::format("at most {} choices over all prompts", kMaxPrompts));
  }
}

/// {"content": [{"type": "text", "text": ...}, ...]} becomes its text; anything else stays.
std::optional<ApiError> flatten_content(Json& input, const std::string& path) {
  if (!input.is_object() || !input.contains("content")) return std::nullopt;
  const std::string where = path + ".content";
  const Json& content = input["content"];
  if (!content.is_array()) return bad_field(where, content, "an array of parts");
  std::string text;
  for (size_t i = 0; i < content.size(); ++i) {
    const std::string part = fmt::format("{}[{}]", where, i);
    if (!content[i].is_object()) return bad_field(part, content[i], "an object with type and text");
    const Json type = content[i].value("type", Json(nullptr));
    if (type != "text") return unsupported_field(part + ".type", type, "text");
    const Json piece = content[i].value("text", Json(nullptr));
    if (!piece.is_string()) return bad_field(part + ".text", piece, "a string");
    text += piece.get<std::string>();
  }
  input = std::move(text);
  return std::nullopt;
}

std::optional<ApiError> flatten_inputs(Json& inputs, const std::string& path) {
  if (auto error = flatten_content(inputs, path)) return error;
  for (size_t i = 0; inputs.is_array() && i < inputs.size(); ++i) {
    if (auto error = flatten_content(inputs[i], fmt::format("{}[{}]", path, i))) return error;
  }
  return std::nullopt;
}

}  // namespace

ApiResult<Generation> parse_completion(std::string_view body, const ApiDefaults& defaults) {
  ApiResult<Json> json = parse_body(body);
  if (!json) return json.error();
  Generation out = begin_generation(Api::kCompletion, defaults);
  Fields fields(*json);
  fields.read("model", out.model);
  read_prompts(fields, "prompt", defaults, out.prompts);
  fields.read_integer("max_tokens", -1, kMaxTokensField, out.max_tokens);
  fields.read_integer("n_predict", -1, kMaxTokensField, out.max_tokens);
  fields.read_integer("max_completion_tokens", -1, kMaxTokensField, out.max_tokens);
  read_stops(fields, "stop", out);
  fields.read_integer("logprobs", 0, kMaxTopLogprobs, out.top_logprobs);
  int32_t probabilities = 0;  // of llama-server, where 0 is none
  fields.read_integer("n_probs", 0, kMaxTopLogprobs, probabilities);
  if (probabilities > 0) out.top_logprobs = probabilities;
  read_sampling(fields, defaults, out);
  read_output_format(fields, out);
  int32_t best_of = out.n;
  fields.read_integer("best_of", 1, kMaxChoices, best_of);
  if (best_of != out.n) fields.fail(unsupported_field("best_of", best_of, "the value of n"));
  fields.only("echo", false, "false: the prompt is not repeated");
  fields.only("suffix", "", "null: insertion is not supported");
  check_choices(fields, out);
  if (fields.error()) return *fields.error();
  for (std::string& name : fields.unread()) out.ignored_fields.push_back(std::move(name));
  return out;
}

ApiResult<Generation> parse_llama_completion(std::string_view body, const ApiDefaults& defaults) {
  ApiResult<Json> json = parse_body(body);
  if (!json) return json.error();
  Generation out = begin_generation(Api::kLlama, defaults);
  Fields fields(*json);
  fields.read("model", out.model);
  read_prompts(fields, "prompt", defaults, out.prompts);
  fields.read_integer("n_predict", -1, kMaxTokensField, out.max_tokens);
  fields.read_integer("max_tokens", -1, kMaxTokensField, out.max_tokens);
  read_stops(fields, "stop", out);
  int32_t probabilities = 0;
  fields.read_integer("n_probs", 0, kMaxTopLogprobs, probabilities);
  fields.read_integer("logprobs", 0, kMaxTopLogprobs, probabilities);
  if (probabilities > 0) out.top_logprobs = probabilities;
  read_sampling(fields, defaults, out);
  read_output_format(fields, out);
  fields.read_strings("response_fields", 64, out.response_fields);
  check_choices(fields, out);
  if (fields.error()) return *fields.error();
  for (std::string& name : fields.unread()) out.ignored_fields.push_back(std::move(name));
  return out;
}

ApiResult<EmbeddingRequest> parse_embeddings(std::string_view body, const ApiDefaults& defaults,
                                             bool llama_form) {
  ApiResult<Json> json = parse_body(body);
  if (!json) return json.error();
  EmbeddingRequest out;
  const char* name = !json->contains("input") && json->contains("content") ? "content" : "input";
  if (json->contains(name)) {
    if (auto error = flatten_inputs((*json)[name], name)) return *error;
  }
  out.llama_form = llama_form || std::string_view(name) == "content";
  Fields fields(*json);
  fields.read("model", out.model);
  read_prompts(fields, name, defaults, out.inputs);
  std::string format = "float";
  fields.read("encoding_format", format);
  if (format != "float" && format != "base64") fields.fail("encoding_format", format, "float or base64");
  if (out.llama_form && format == "base64") {
    fields.fail(unsupported_field("encoding_format", format, "float; /v1/embeddings has base64"));
  }
  out.base64 = format == "base64";
  fields.only("dimensions", nullptr, "null: embeddings have the model's width");
  fields.only("embd_normalize", 2, "2: embeddings have length 1");
  if (fields.error()) return *fields.error();
  out.ignored_fields = fields.unread();
  return out;
}

ApiResult<TokenizeRequest> parse_tokenize(std::string_view body) {
  ApiResult<Json> json = parse_body(body);
  if (!json) return json.error();
  TokenizeRequest out;
  Fields fields(*json);
  const Json* content = fields.find("content");
  if (content == nullptr && json->contains("prompt")) {
    fields.read("prompt", out.content);  // vLLM's name
  } else if (content == nullptr) {
    fields.fail("content", nullptr, "a string");
  }
  fields.read("content", out.content);
  fields.read("add_special", out.add_special);
  fields.read("parse_special", out.parse_special);
  fields.read("with_pieces", out.with_pieces);
  if (fields.error()) return *fields.error();
  return out;
}

ApiResult<std::vector<int32_t>> parse_detokenize(std::string_view body, const ApiDefaults& defaults) {
  ApiResult<Json> json = parse_body(body);
  if (!json) return json.error();
  Fields fields(*json);
  const Json* tokens = nullptr;
  fields.read_array("tokens", size_t{1} << 24, tokens);
  if (tokens == nullptr) fields.fail("tokens", nullptr, "an array of token ids");
  if (fields.error()) return *fields.error();
  std::vector<int32_t> out;
  out.reserve(tokens->size());
  for (size_t i = 0; i < tokens->size(); ++i) {
    const Json& item = (*tokens)[i];
    const bool whole =
        item.is_number_integer() && (!item.is_number_unsigned() || item.get<uint64_t>() <= INT32_MAX);
    const int64_t id = whole ? item.get<int64_t>() : -1;
    if (id < 0 || id >= defaults.vocab) {
      return bad_field(fmt::format("tokens[{}]", i), item,
                       fmt::format("a token id from 0 to {}", defaults.vocab - 1));
    }
    out.push_back(static_cast<int32_t>(id));
  }
  return out;
}

}  // namespace mete
