#include <fmt/ranges.h>

#include <algorithm>
#include <cstdlib>

#include "apps/args.h"
#include "apps/commands.h"
#include "base/aligned.h"
#include "format/hub_cache.h"
#include "server/service.h"

namespace mete {
namespace {

struct ServeOptions {
  ModelOptions model;
  SamplingOptions sampling;
  std::string hosts = "127.0.0.1", aliases, api_keys, api_key_file, cors_origins;
  std::string chat_template, chat_template_file;
  std::string pooling = "last", reasoning = "auto", log_format = "text", prefix_cache = "lru", cache_file;
  int port = 8080;
  int64_t parallel = 4, max_queue = 2048, kv_tokens = 0, n_predict = -1, max_body_mib = 0;
  int64_t chunked_prefill = 0;
  int max_connections = 4096;
  double timeout = 60, drain_timeout = 30;
  bool allow_unauthenticated = false, no_slots = false, no_webui = false, llama_metrics = false;
};

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> out;
  for (size_t begin = 0; begin <= text.size() && !text.empty();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    if (end > begin) out.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return out;
}

void declare_network(CLI::App& app, ServeOptions& o) {
  const char* group = "Network";
  app.add_option("--host", o.hosts, "addresses to listen on, separated by commas")
      ->capture_default_str()
      ->group(group);
  app.add_option("--port", o.port, "port; 0: any free one, which the log names")
      ->check(CLI::Range(0, 65535))
      ->capture_default_str()
      ->group(group);
  app.add_option("--api-key", o.api_keys,
                 "keys that clients must show, separated by commas; also METE_API_KEY")
      ->group(group);
  app.add_option("--api-key-file", o.api_key_file, "file with one key per line")->group(group);
  app.add_flag("--allow-unauthenticated", o.allow_unauthenticated, "listen beyond this machine without a key")
      ->group(group);
  app.add_option("--cors-origins", o.cors_origins, "origins whose web pages may use the server, or *")
      ->group(group);
  app.add_option("--max-connections", o.max_connections, "open connections; later ones wait")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str()
      ->group(group);
  app.add_option("--max-body", o.max_body_mib,
                 "longest body of a request in MiB (default: 16, under --memory 4)")
      ->check(CLI::Range(int64_t{1}, int64_t{1024}))
      ->group(group);
  app.add_option("--timeout", o.timeout, "seconds to send a body, and to take a piece of the response")
      ->check(CLI::Range(1.0, 86400.0))
      ->capture_default_str()
      ->group(group);
  app.add_option("--drain-timeout", o.drain_timeout, "seconds that running requests may take after SIGTERM")
      ->check(CLI::Range(0.0, 86400.0))
      ->capture_default_str()
      ->group(group);
}

void declare(CLI::App& app, ServeOptions& o) {
  o.model.add_to(app);
  app.add_option("--parallel", o.parallel, "(-np) sequences that are decoded at once; further ones wait")
      ->check(CLI::Range(int64_t{1}, int64_t{4096}))
      ->capture_default_str();
  app.add_option("--max-queue", o.max_queue, "sequences that may wait; more are refused with status 429")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 20))
      ->capture_default_str();
  app.add_option("--kv-tokens", o.kv_tokens,
                 "tokens that KV memory holds for all sequences (default: -np times -c, "
                 "less where memory is short)")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 40));
  app.add_option(
         "--chunked-prefill-size", o.chunked_prefill,
         "most prompt tokens of a step in which answers are written too: fewer make shorter pauses in "
         "those answers and a later first token of the new one (default: the step's, -b and -ub)")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20));
  app.add_option("--prefix-cache", o.prefix_cache,
                 "which kept prefixes go first when memory is needed: lru, rlt; none: no cache")
      ->check(CLI::IsMember({"lru", "rlt", "none"}))
      ->capture_default_str();
  app.add_option("--prefix-cache-file", o.cache_file,
                 "keep the prefix cache there: read at start, written at the end and on SIGUSR2");
  app.add_option("-a,--alias", o.aliases,
                 "names of the model for clients, separated by commas (default: the file's)");
  app.add_option("-n,--n-predict", o.n_predict,
                 "most tokens of an answer that sets no limit; -1: the context")
      ->check(CLI::Range(int64_t{-1}, int64_t{1} << 30))
      ->capture_default_str();
  app.add_option("--chat-template", o.chat_template, "built-in template name, or a Jinja template's text");
  app.add_option("--chat-template-file", o.chat_template_file, "Jinja template file");
  app.add_option("--reasoning-format", o.reasoning,
                 "auto: <think> blocks go to reasoning_content; none: they stay text")
      ->check(CLI::IsMember({"auto", "deepseek", "none"}))
      ->capture_default_str();
  app.add_option("--pooling", o.pooling, "what an embedding is made of: the last token's state, or the mean")
      ->check(CLI::Validator(
          [](const std::string& found) {
            if (found == "last" || found == "mean") return std::string();
            return fmt::format("found {}, expected last or mean{}", found,
                               found == "none" ? ": a vector for each token is not offered" : "");
          },
          "{last,mean}"))
      ->capture_default_str();
  app.add_option("--log-format", o.log_format, "log lines on stderr: text or json")
      ->check(CLI::IsMember({"text", "json"}))
      ->capture_default_str();
  app.add_flag("--llama-metrics", o.llama_metrics, "/metrics has llama-server's names beside vLLM's");
  app.add_flag("--no-slots", o.no_slots, "do not show requests at /slots");
  app.add_flag("--no-webui", o.no_webui, "no page at /");
  declare_network(app, o);
  o.sampling.add_to(app);
  app.footer(
      "\nexamples:\n"
      "  mete serve -m model.gguf                          for this machine, at http://127.0.0.1:8080/v1\n"
      "  mete serve -m model.gguf -np 64 -c 2048           64 answers at once, of up to 2048 tokens each\n"
      "  mete serve -m model.gguf --host 0.0.0.0 --api-key-file keys.txt     for others, with keys\n"
      "  curl localhost:8080/v1/chat/completions -H 'Content-Type: application/json' \\\n"
      "    -d '{\"messages\": [{\"role\": \"user\", \"content\": \"Hello\"}]}'\n"
      "docs/serving.md lists the endpoints and their fields.");
}

bool is_loopback(const std::string& host) {
  return host == "localhost" || host == "::1" || host.rfind("127.", 0) == 0;
}

std::vector<std::string> find_api_keys(const ServeOptions& o) {
  std::vector<std::string> keys = split(o.api_keys);
  if (const char* from_environment = std::getenv("METE_API_KEY")) {
    for (std::string& key : split(from_environment)) keys.push_back(std::move(key));
  }
  if (!o.api_key_file.empty()) {
    const std::string text = read_text_file(o.api_key_file);
    for (size_t begin = 0; begin < text.size();) {
      const size_t end = std::min(text.find_first_of("\r\n", begin), text.size());
      if (end > begin) keys.push_back(text.substr(begin, end - begin));
      begin = end + 1;
    }
    if (keys.empty()) throw bad_usage("--api-key-file: {} has no key", o.api_key_file);
  }
  return keys;
}

HttpConfig http_config(const ServeOptions& o) {
  HttpConfig http;
  http.hosts = split(o.hosts);
  http.port = static_cast<uint16_t>(o.port);
  http.max_connections = o.max_connections;
  const bool ceiling = !o.model.memory.empty() || !o.model.memory_file.empty();
  const int64_t body_mib = o.max_body_mib > 0 ? o.max_body_mib : ceiling ? 4 : 16;
  http.body_bytes = static_cast<uint64_t>(body_mib) << 20;
  http.timeout_s = o.timeout;
  if (http.hosts.empty()) throw bad_usage("--host: found '{}', expected an address", o.hosts);
  return http;
}

ServiceConfig service_config(const ServeOptions& o) {
  ServiceConfig c;
  c.model_file = o.model.model;
  c.aliases = split(o.aliases);
  c.api_keys = find_api_keys(o);
  c.cors_origins = split(o.cors_origins);
  c.chat_template = o.chat_template;
  c.chat_template_file = o.chat_template_file;
  if (!o.chat_template.empty() && !o.chat_template_file.empty()) {
    throw bad_usage("--chat-template and --chat-template-file exclude each other");
  }
  c.defaults.sampling = o.sampling.finish();
  c.defaults.random_seed = o.sampling.seed == -1;
  c.defaults.max_tokens = o.n_predict;
  if (o.n_predict == 0) throw bad_usage("-n 0: nothing to generate");
  c.pooling = o.pooling == "mean" ? Pooling::kMean : Pooling::kLast;
  c.split_reasoning = o.reasoning != "none";
  c.show_slots = !o.no_slots;
  c.show_page = !o.no_webui;
  c.llama_metrics = o.llama_metrics;
  c.drain_timeout_s = o.drain_timeout;
  c.version = METE_VERSION;
  return c;
}

/// KV memory for `parallel` sequences of the longest length, less where that would take more than half of the
/// memory that the weights leave; says so on stderr. At least one sequence of the longest length.
int64_t choose_kv_tokens(const ServeOptions& o, const RuntimeConfig& runtime) {
  // Under a ceiling the plan sees to it: every sequence has room for the longest one.
  if (o.kv_tokens > 0 || runtime.memory_bytes > 0) return o.kv_tokens;
  const GgufFile file = GgufFile::open(resolve_model_path(o.model.model).value()).value();
  const ModelConfig model = read_model_config(file);
  const int64_t context =
      runtime.context > 0 ? runtime.context : std::min(model.context_train, int64_t{1} << 20);
  const int64_t asked = context * o.parallel;
  KvConfig kv = memory_demand(runtime, model).kv;
  kv.window_sequences = window_sequences(runtime.max_seqs);
  kv.step_rows = runtime.max_rows;
  const double left = static_cast<double>(memory_available()) - static_cast<double>(file.file_bytes());
  const auto fits = [&](int64_t tokens) {
    kv.max_slots = tokens;
    return static_cast<double>(kv_cache_bytes(kv)) <= left / 2;
  };
  if (fits(asked)) return asked;
  int64_t tokens = context, too_many = asked;  // a sequence of the longest length fits, or is tried
  while (too_many - tokens > 256)
    (fits((tokens + too_many) / 2) ? tokens : too_many) = (tokens + too_many) / 2;
  fmt::print(
      stderr,
      "mete serve: KV memory for {} tokens instead of {} (-np {} times -c {}): {:.0f} MiB are free beside "
      "the weights\n",
      tokens, asked, o.parallel, context, left / 1048576);
  return tokens;
}

EngineLoopConfig engine_config(const ServeOptions& o, const HttpConfig& http) {
  EngineLoopConfig config;
  RuntimeConfig& runtime = config.runtime;
  runtime = o.model.config();
  if (o.parallel > runtime.max_rows) {
    throw bad_usage("--parallel {}: at most the rows of a step, {} (-b, -ub)", o.parallel, runtime.max_rows);
  }
  runtime.max_seqs = o.parallel;
  runtime.kv_tokens = choose_kv_tokens(o, runtime);
  runtime.logits_rows = o.parallel;
  // Two bodies are parsed at a time: JSON, rendering and ids take about four times their length.
  runtime.text_bytes = static_cast<int64_t>(8 * http.body_bytes);
  runtime.socket_bytes = static_cast<int64_t>(http.all_bodies_bytes()) + int64_t{4096} * http.max_connections;
  config.engine.max_running = o.parallel;
  config.engine.max_queue = o.max_queue;
  config.engine.prompt_rows = o.chunked_prefill;
  config.engine.reuse = *parse_reuse_policy(o.prefix_cache);
  config.cache_file = o.cache_file;
  if (!o.cache_file.empty() && o.prefix_cache == "none") {
    throw bad_usage("--prefix-cache-file has no effect with --prefix-cache none");
  }
  if (!o.model.memory_file.empty()) {
    config.read_memory = [path = o.model.memory_file] { return read_memory_file(path); };
  }
  return config;
}

}  // namespace

int cmd_serve(const std::vector<std::string>& args) {
  CLI::App app(
      "Serve the model over HTTP, as OpenAI, Anthropic and llama-server clients expect. A request gets the "
      "same "
      "answer whatever else the server is doing.",
      "mete serve");
  ServeOptions o;
  declare(app, o);
  if (const int code = parse(app, args); code >= 0) return code;
  ServiceConfig service = service_config(o);
  HttpConfig http = http_config(o);
  for (const std::string& host : http.hosts) {
    if (!is_loopback(host) && service.api_keys.empty() && !o.allow_unauthenticated) {
      throw bad_usage(
          "--host {}: others could use the server: give --api-key or --api-key-file, or say "
          "--allow-unauthenticated",
          host);
    }
  }
  EngineLoopConfig engine = engine_config(o, http);
  Log log(o.log_format == "json");
  Service server(std::move(service), http, std::move(engine), log);
  log.write("listening",
            {{"address", fmt::format("http://{}:{}", fmt::join(http.hosts, ","), server.port())}});
  server.run();
  return 0;
}

}  // namespace mete
