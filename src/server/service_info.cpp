// The endpoints that describe the server, and what happens when the model is there.
#include <xxhash.h>

#include <algorithm>

#include "base/process_memory.h"
#include "engine/decode_limit.h"
#include "server/service.h"
#include "server/web_page.h"

namespace mete {
namespace {

/// The name of a file without folders and ".gguf".
std::string stem_of(const std::string& path) {
  std::string name = path.substr(path.find_last_of('/') + 1);
  if (name.size() > 5 && name.compare(name.size() - 5, 5, ".gguf") == 0) name.resize(name.size() - 5);
  return name;
}

/// {part: {planned, used}} in bytes, ceiling and floor.
Json memory_json(const EngineSnapshot& snapshot) {
  Json lines = Json::object();
  for (size_t i = 0; i < kMemoryItems; ++i) {
    if (snapshot.planned[i] == 0 && snapshot.memory.lines[i] == 0) continue;
    lines[name(static_cast<MemoryItem>(i))] = {{"planned", snapshot.planned[i]},
                                               {"used", snapshot.memory.lines[i]}};
  }
  return {{"ceiling", snapshot.memory_ceiling},
          {"floor", snapshot.memory_floor},
          {"resident", snapshot.memory.resident},
          {"peak", snapshot.memory.peak},
          {"lines", std::move(lines)}};
}

}  // namespace

/// On the I/O thread, when loading has ended.
void Service::on_loaded(std::exception_ptr error) {
  try {
    if (error) std::rethrow_exception(error);
    const Runtime& runtime = loop_->runtime();
    chat_template_source_ =
        chat_template_source(runtime.file().metadata(), config_.chat_template, config_.chat_template_file)
            .value_or("");
    if (!chat_template_source_.empty()) chat_template_ = ChatTemplate::parse(chat_template_source_).value();
    chat_format_ = detect_chat_format(chat_template_source_);
    for (const std::string_view spelling : structural_tokens(chat_format_)) {
      const auto id = runtime.tokenizer().find(spelling);
      if (id) structural_tokens_.push_back(*id);
    }
    config_.defaults.vocab = runtime.model_config().vocab;
    config_.defaults.tokenizer = &runtime.tokenizer();
    config_.defaults.end_tokens = runtime.tokenizer().end_tokens();
    names_ = config_.aliases;
    names_.push_back(stem_of(config_.model_file));
    model_.name = names_[0];
    const std::string file = stem_of(config_.model_file);
    model_.fingerprint = fmt::format("b-mete-{}-{:08x}", config_.version,
                                     static_cast<uint32_t>(XXH3_64bits(file.data(), file.size())));
    model_.runtime = &runtime;
    model_.decode_limit = decode_limit(runtime);
    grammars_ = std::make_unique<GrammarCompiler>(runtime.tokenizer());
    if (const MemoryPlan& plan = runtime.memory_plan(); plan.budget > 0) {
      log_.write("memory", {{"plan", plan.summary()}});
      for (const std::string& choice : plan.choices) log_.write("memory", {{"smaller", choice}});
    }
    ready_ = true;
    log_.write("ready", {{"model", model_.name},
                         {"load_s", runtime.load_seconds()},
                         {"context", runtime.max_context()},
                         {"parallel", engine_.max_running},
                         {"kv_bytes", runtime.kv().capacity_bytes()}});
  } catch (...) {
    load_error_ = std::current_exception();
    http_.stop();
  }
}

void Service::health(const CallPtr& call) {
  if (!ready_ || draining_) {
    return reply(call, api_error(503, "unavailable_error", ready_ ? "draining" : "loading",
                                 ready_ ? "the server is shutting down" : "the model is being loaded"));
  }
  reply(call, Json{{"status", "ok"}});
}

void Service::page(const CallPtr& call) {
  if (!config_.show_page)
    return reply(call, api_error(404, "not_found_error", "not_found", "the page is switched off"));
  HttpResponse response;
  response.content_type = "text/html; charset=utf-8";
  response.headers = {
      {"Content-Security-Policy",
       "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; "
       "img-src data:; frame-ancestors 'none'; base-uri 'none'"},
      {"X-Content-Type-Options", "nosniff"}};
  response.body = kWebPage;
  reply(call, std::move(response));
}

void Service::models(const CallPtr& call) {
  const ModelConfig& model = model_.runtime->model_config();
  Json entry = {{"id", model_.name},
                {"aliases", names_},
                {"object", "model"},
                {"created", 0},
                {"owned_by", "mete"},
                {"max_model_len", model_.runtime->max_context()},
                {"meta",
                 {{"n_vocab", model.vocab},
                  {"n_ctx", model_.runtime->max_context()},
                  {"n_ctx_train", model.context_train},
                  {"n_embd", model.d_model},
                  {"size", model.weight_bytes}}}};
  reply(call, Json{{"object", "list"}, {"data", Json::array({std::move(entry)})}});
}

void Service::props(const CallPtr& call) {
  const EngineSnapshot snapshot = loop_->snapshot();
  const Runtime& r = *model_.runtime;
  const Tokenizer& tokenizer = r.tokenizer();
  const auto spelling = [&](int32_t id) { return id >= 0 ? std::string(tokenizer.text(id)) : std::string(); };
  const Json settings = {
      {"id", 0},
      {"n_ctx", r.max_context()},
      {"speculative", false},
      {"params", generation_settings_json(config_.defaults.sampling, config_.defaults.max_tokens, nullptr)}};
  reply(call, Json{{"default_generation_settings", settings},
                   {"total_slots", engine_.max_running},
                   {"model_alias", model_.name},
                   {"model_path", stem_of(config_.model_file) + ".gguf"},
                   {"modalities", {{"vision", false}, {"audio", false}}},
                   {"chat_template", chat_template_source_},
                   {"bos_token", spelling(tokenizer.bos())},
                   {"eos_token", spelling(tokenizer.eos())},
                   {"build_info", model_.fingerprint},
                   {"is_sleeping", false},
                   {"mete",
                    {{"cpu_tier", name(r.tier())},
                     {"threads", r.threads()},
                     {"kv_tokens", snapshot.stats.kv_slots_total},
                     {"memory", memory_json(snapshot)},
                     {"queued", snapshot.stats.queued},
                     {"max_queue", engine_.max_queue},
                     {"weight_bytes", r.model_config().weight_bytes},
                     {"kv_bytes", r.kv().capacity_bytes()}}}});
}

/// {"memory": "6GiB"} or "auto": the ceiling from the next step on.
void Service::change_memory(const CallPtr& call) {
  if (config_.api_keys.empty()) {
    return reply(call,
                 api_error(403, "permission_error", "no_key",
                           "the ceiling can be changed only where the server asks for a key (--api-key)"));
  }
  const ApiResult<Json> body = parse_body(call->request.body);
  if (!body) return reply(call, body.error());
  Fields fields(*body);
  std::string size;
  fields.read("memory", size);
  if (size.empty()) fields.fail("memory", nullptr, "a size such as \"6GiB\", or \"auto\"");
  if (fields.error()) return reply(call, *fields.error());
  const Result<int64_t> bytes = parse_memory(size);
  if (!bytes) return reply(call, bad_field("memory", size, bytes.error().message()));
  loop_->change_memory(*bytes, [this, call, bytes = *bytes](Status status) {
    http_.post([this, call, bytes, status] {
      if (!status)
        return reply(call, api_error(400, "invalid_request_error", "below_floor", status.error().message()));
      reply(call, Json{{"memory", bytes}, {"floor", model_.runtime->memory_plan().floor}});
    });
  });
}

void Service::slots(const CallPtr& call) {
  if (!config_.show_slots) {
    return reply(
        call, api_error(501, "not_supported_error", "not_supported", "slots are switched off (--no-slots)"));
  }
  EngineSnapshot snapshot = loop_->snapshot();
  std::sort(snapshot.jobs.begin(), snapshot.jobs.end(),
            [](const SlotInfo& a, const SlotInfo& b) { return a.job < b.job; });
  Json out = Json::array();
  for (int64_t i = 0; i < engine_.max_running; ++i) {
    Json slot = {{"id", i},
                 {"n_ctx", model_.runtime->max_context()},
                 {"speculative", false},
                 {"is_processing", false}};
    if (static_cast<size_t>(i) < snapshot.jobs.size()) {
      const SlotInfo& job = snapshot.jobs[static_cast<size_t>(i)];
      slot["is_processing"] = true;
      slot["id_task"] = job.job;
      slot["n_prompt_tokens"] = job.prompt_tokens;
      slot["n_prompt_tokens_processed"] = std::min(job.rows_done, job.prompt_tokens);
      slot["next_token"] = {{"has_next_token", true}, {"n_decoded", job.generated}};
    }
    out.push_back(std::move(slot));
  }
  reply(call, out);
}

void Service::metrics_page(const CallPtr& call) {
  MetricsInput input;
  input.stats = loop_->snapshot().stats;
  input.model = model_.name;
  input.max_running = engine_.max_running;
  input.connections = http_.connections();
  input.kv_bytes = static_cast<int64_t>(model_.runtime->kv().capacity_bytes());
  input.rss_bytes = read_process_memory().rss;
  HttpResponse response;
  response.content_type = "text/plain; version=0.0.4; charset=utf-8";
  response.body = metrics_.page(input, config_.llama_metrics);
  if (config_.llama_metrics)
    response.headers.emplace_back("Process-Start-Time-Unix", std::to_string(started_unix_));
  reply(call, std::move(response));
}

}  // namespace mete
