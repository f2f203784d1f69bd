// The endpoints that make sequences or read text.
#include <xxhash.h>

#include <algorithm>
#include <random>

#include "base/clock.h"
#include "server/constraint.h"
#include "server/service.h"
#include "text/utf8.h"

namespace mete {
namespace {

const char* id_prefix(Api api) {
  switch (api) {
    case Api::kChat:
      return "chatcmpl-";
    case Api::kCompletion:
    case Api::kLlama:
      return "cmpl-";
    case Api::kResponses:
      return "resp_";
    case Api::kMessages:
      return "msg_";
  }
  return "";
}

/// What keeps prefixes of this request apart from those of others.
uint64_t cache_salt(uint64_t tenant, const Generation& request, const std::string& request_id) {
  uint64_t salt = tenant;
  if (!request.cache_salt.empty()) {
    salt = XXH3_64bits_withSeed(request.cache_salt.data(), request.cache_salt.size(), salt) | 1;
  }
  // Without cache_prompt a prefix is shared with nobody, that is, only within this request.
  if (!request.cache_prompt) salt = XXH3_64bits_withSeed(request_id.data(), request_id.size(), salt) | 1;
  return salt;
}

}  // namespace

void Service::chat(const CallPtr& call) { generate(call, parse_chat); }
void Service::completion(const CallPtr& call) { generate(call, parse_completion); }
void Service::llama_completion(const CallPtr& call) { generate(call, parse_llama_completion); }
void Service::responses(const CallPtr& call) { generate(call, parse_responses); }
void Service::messages(const CallPtr& call) {
  generate(call,
           [](std::string_view body, const ApiDefaults& defaults) { return parse_messages(body, defaults); });
}

std::optional<ApiError> Service::check_model(const std::string& asked) const {
  if (asked.empty() || std::find(names_.begin(), names_.end(), asked) != names_.end()) return std::nullopt;
  ApiError error = bad_field("model", asked, fmt::format("{}", fmt::join(names_, " or ")));
  error.status = 404;
  error.type = "not_found_error";
  error.code = "model_not_found";
  return error;
}

std::optional<ApiError> Service::check_length(const std::vector<BuiltPrompt>& prompts) const {
  const int64_t most = model_.runtime->max_context();
  for (const BuiltPrompt& prompt : prompts) {
    const auto length = static_cast<int64_t>(prompt.tokens.size());
    if (length < most) continue;
    ApiError error = api_error(
        400, "exceed_context_size_error", "context_length_exceeded",
        fmt::format(
            "the prompt is too large, it exceeds the available context size: found {} tokens, expected "
            "fewer than {} (-c)",
            length, most));
    error.found = length;
    error.expected = fmt::format("fewer than {}", most);
    error.more = {{"n_prompt_tokens", length}, {"n_ctx", most}};
    return error;
  }
  return std::nullopt;
}

void Service::generate(const CallPtr& call, Parser parse) {
  http_.post_work([this, call, parse] { prepare_generation(call, parse); });
}

Request Service::engine_request(const Generation& generation, const Call& call, size_t choice) const {
  Request out;
  out.max_tokens = generation.max_tokens;
  out.ignore_eos = generation.ignore_eos;
  out.sampling = generation.sampling;
  out.sampling.seed += choice % static_cast<size_t>(generation.n);
  out.top_logprobs = generation.top_logprobs;
  out.post_sampling_probs = generation.post_sampling_probs;
  out.priority = generation.priority;
  if (generation.deadline_ms > 0)
    out.deadline = call.arrived + static_cast<double>(generation.deadline_ms) / 1000;
  out.cache_salt = cache_salt(call.tenant, generation, call.id);
  return out;
}

/// How the model's text is read: with a forced call in a format that a grammar cannot spell (its marks are
/// special tokens), the call is plain JSON, which is read as Llama 3 writes it.
OutputOptions Service::output_options(const Generation& generation) const {
  OutputOptions out;
  out.split_reasoning = config_.split_reasoning;
  out.tool_calls = !generation.tools.empty() && generation.tool_choice != ToolChoice::kNone;
  out.json_calls = !generation.strict_tools.empty();  // what the grammar allows
  const bool forced =
      generation.tool_choice == ToolChoice::kRequired || generation.tool_choice == ToolChoice::kNamed;
  out.format = forced && chat_format_ != ChatFormat::kTags ? ChatFormat::kLlama3 : chat_format_;
  return out;
}

/// On a worker thread: from the body to sequences.
void Service::prepare_generation(const CallPtr& call, Parser parse) {
  const auto refuse = [&](const ApiError& error) { http_.post([this, call, error] { reply(call, error); }); };
  ApiResult<Generation> parsed = parse(call->request.body, config_.defaults);
  if (!parsed) return refuse(parsed.error());
  if (auto error = check_model(parsed->model)) return refuse(*error);
  if (parsed->max_tokens == 0) return refuse(bad_field("max_tokens", 0, "-1 (no limit) or at least 1"));
  if (Status valid = parsed->sampling.validate(config_.defaults.vocab); !valid) {
    return refuse(api_error(400, "invalid_request_error", "invalid_value", valid.error().message()));
  }
  auto prompts = build_prompts(*parsed, model_.tokenizer(), chat_template_ ? &*chat_template_ : nullptr);
  if (!prompts) return refuse(prompts.error());
  if (auto error = check_length(*prompts)) return refuse(*error);
  OutputOptions output = output_options(*parsed);
  output.starts_in_reasoning = output.split_reasoning && (*prompts)[0].starts_in_reasoning;
  auto grammar = compile_constraint(*parsed, output, structural_tokens_, *grammars_);
  if (!grammar) return refuse(grammar.error());
  if (parsed->random_seed) parsed->sampling.seed = std::random_device{}();

  std::vector<JobSpec> specs;
  for (size_t i = 0; i < prompts->size() * static_cast<size_t>(parsed->n); ++i) {
    JobSpec spec{engine_request(*parsed, *call, i), parsed->stops};
    spec.request.prompt = (*prompts)[i / static_cast<size_t>(parsed->n)].tokens;
    spec.request.grammar = *grammar;
    spec.wants_progress = parsed->stream && parsed->return_progress;
    spec.wants_times = parsed->stream && parsed->timings_per_token;
    const bool conversation = parsed->api != Api::kCompletion && parsed->api != Api::kLlama;
    if (conversation) spec.shown_tokens = structural_tokens_;
    specs.push_back(std::move(spec));
  }
  auto info = std::make_shared<AnswerInfo>();
  info->request = std::move(*parsed);
  info->prompts = std::move(*prompts);
  info->id =
      id_prefix(info->request.api) + fmt::format("{:016x}", XXH3_64bits(call->id.data(), call->id.size()));
  info->request_id = call->id;
  info->created = static_cast<int64_t>(std::time(nullptr));
  info->model = &model_;
  auto jobs = std::make_shared<std::vector<JobSpec>>(std::move(specs));
  http_.post([this, call, info, jobs, output] {
    auto answer = std::make_unique<Answer>(std::move(*info), call->exchange, call->headers, output);
    for (size_t i = 0; i < jobs->size(); ++i) answer->choices()[i].seed = (*jobs)[i].request.sampling.seed;
    call->sink = std::move(answer);
    launch(call, std::move(*jobs));
  });
}

/// On the I/O thread.
void Service::launch(const CallPtr& call, std::vector<JobSpec> specs) {
  if (call->gone) return;
  call->request.body.clear();
  call->request.body.shrink_to_fit();
  call->exchange->release_body();
  const int64_t most = engine_.max_running + engine_.max_queue;
  if (static_cast<int64_t>(jobs_.size() + specs.size()) > most) {
    ApiError error = api_error(
        429, "rate_limit_error", "queue_full",
        fmt::format("the queue is full: {} sequences run or wait, {} may (--max-queue)", jobs_.size(), most));
    error.retry_after_s = 1;
    call->sink.reset();
    return reply(call, error);
  }
  for (size_t i = 0; i < specs.size(); ++i) {
    const JobId job = next_job_++;
    jobs_.emplace(job, JobPlace{call, i});
    call->jobs.push_back(job);
    loop_->submit(job, std::move(specs[i]));
  }
}

void Service::embeddings(const CallPtr& call) { embed(call, false); }
void Service::llama_embeddings(const CallPtr& call) { embed(call, true); }

void Service::embed(const CallPtr& call, bool llama_form) {
  http_.post_work([this, call, llama_form] {
    const auto refuse = [&](const ApiError& error) {
      http_.post([this, call, error] { reply(call, error); });
    };
    ApiResult<EmbeddingRequest> parsed = parse_embeddings(call->request.body, config_.defaults, llama_form);
    if (!parsed) return refuse(parsed.error());
    if (auto error = check_model(parsed->model)) return refuse(*error);
    std::vector<BuiltPrompt> inputs;
    std::vector<JobSpec> specs;
    for (const Prompt& input : parsed->inputs) {
      inputs.push_back(build_prompt(input, model_.tokenizer()));
      if (inputs.back().tokens.empty())
        return refuse(bad_field("input", "", "an input of at least one token"));
      JobSpec spec;
      spec.request.prompt = inputs.back().tokens;
      spec.request.pooling = config_.pooling;
      spec.request.cache_salt = call->tenant;
      specs.push_back(std::move(spec));
    }
    if (auto error = check_length(inputs)) return refuse(*error);
    auto request = std::make_shared<EmbeddingRequest>(std::move(*parsed));
    auto texts = std::make_shared<std::vector<BuiltPrompt>>(std::move(inputs));
    auto jobs = std::make_shared<std::vector<JobSpec>>(std::move(specs));
    http_.post([this, call, request, texts, jobs] {
      call->sink = std::make_unique<EmbeddingAnswer>(std::move(*request), std::move(*texts), model_, call->id,
                                                     call->exchange, call->headers);
      launch(call, std::move(*jobs));
    });
  });
}

void Service::work(const CallPtr& call, std::function<ApiResult<Json>(const HttpRequest&)> work) {
  http_.post_work([this, call, work = std::move(work)] {
    auto result = std::make_shared<ApiResult<Json>>(work(call->request));
    http_.post([this, call, result] {
      if (*result) return reply(call, **result);
      reply(call, result->error());
    });
  });
}

void Service::tokenize(const CallPtr& call) {
  work(call, [this](const HttpRequest& request) -> ApiResult<Json> {
    ApiResult<TokenizeRequest> parsed = parse_tokenize(request.body);
    if (!parsed) return parsed.error();
    const Tokenizer& tokenizer = model_.tokenizer();
    std::vector<int32_t> ids;
    if (parsed->add_special && tokenizer.add_bos()) ids.push_back(tokenizer.bos());
    tokenizer.encode(parsed->content, parsed->parse_special, ids);
    if (parsed->add_special && tokenizer.add_eos()) ids.push_back(tokenizer.eos());
    if (!parsed->with_pieces) return Json{{"tokens", ids}};
    Json tokens = Json::array();
    for (const int32_t id : ids) {
      const std::string_view bytes = tokenizer.piece(id);
      Json piece = std::string(bytes);
      if (utf8_valid_prefix(bytes) != bytes.size()) {
        piece = Json::array();
        for (const char c : bytes) piece.push_back(static_cast<unsigned char>(c));
      }
      tokens.push_back({{"id", id}, {"piece", std::move(piece)}});
    }
    return Json{{"tokens", std::move(tokens)}};
  });
}

void Service::detokenize(const CallPtr& call) {
  work(call, [this](const HttpRequest& request) -> ApiResult<Json> {
    ApiResult<std::vector<int32_t>> ids = parse_detokenize(request.body, config_.defaults);
    if (!ids) return ids.error();
    return Json{{"content", decode(model_.tokenizer(), *ids, true)}};
  });
}

void Service::apply_template(const CallPtr& call) {
  work(call, [this](const HttpRequest& request) -> ApiResult<Json> {
    ApiResult<Generation> parsed = parse_apply_template(request.body, config_.defaults);
    if (!parsed) return parsed.error();
    auto prompts = build_prompts(*parsed, model_.tokenizer(), chat_template_ ? &*chat_template_ : nullptr);
    if (!prompts) return prompts.error();
    return Json{{"prompt", (*prompts)[0].text}};
  });
}

void Service::count_message_tokens(const CallPtr& call) {
  work(call, [this](const HttpRequest& request) -> ApiResult<Json> {
    ApiResult<Generation> parsed = parse_messages(request.body, config_.defaults, true);
    if (!parsed) return parsed.error();
    if (auto error = check_model(parsed->model)) return *error;
    auto prompts = build_prompts(*parsed, model_.tokenizer(), chat_template_ ? &*chat_template_ : nullptr);
    if (!prompts) return prompts.error();
    return Json{{"input_tokens", (*prompts)[0].tokens.size()}};
  });
}

}  // namespace mete
