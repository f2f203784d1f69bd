// What the server answers: routes, keys, limits, and the life of a request from body to response.
#pragma once

#include <atomic>
#include <cstdint>
#include <ctime>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "server/answer.h"
#include "server/constraint.h"
#include "server/engine_loop.h"
#include "server/http_server.h"
#include "server/log.h"
#include "server/metrics.h"
#include "text/chat_template.h"

namespace mete {

struct ServiceConfig {
  std::string model_file;                 ///< as given; only its name is shown
  std::vector<std::string> aliases;       ///< further names of the model; the first is what responses say
  std::vector<std::string> api_keys;      ///< none: no key is asked for
  std::vector<std::string> cors_origins;  ///< "*": any; none: no CORS headers
  std::string chat_template, chat_template_file;
  ApiDefaults defaults;  ///< vocab is set once the model is loaded
  Pooling pooling = Pooling::kLast;
  bool split_reasoning = true, show_slots = true, show_page = true, llama_metrics = false;
  double drain_timeout_s = 30;
  std::string version;
};

class Service final : public HttpHandler {
 public:
  /// Loads the model on the engine's thread. `log` must live longer.
  Service(ServiceConfig config, HttpConfig http, EngineLoopConfig engine, Log& log);
  ~Service() override;

  uint16_t port() const { return http_.port(); }
  /// Serves until the end of a drain. Throws what loading threw.
  void run();

  std::optional<HttpResponse> admit(const HttpRequest& head) override;
  void handle(HttpRequest request, std::shared_ptr<Exchange> exchange) override;
  HttpResponse refuse(int status, const std::string& message) override;
  void on_signal(int signal) override;
  void on_tick() override;

 private:
  /// A request under way.
  struct Call {
    HttpRequest request;
    std::shared_ptr<Exchange> exchange;
    std::string id;
    HttpHeaders headers;  // of the response
    uint64_t tenant = 0;  // salt of the key
    double arrived = 0;
    bool gone = false;  // the client went away
    std::unique_ptr<JobSink> sink;
    std::vector<JobId> jobs;
  };
  using CallPtr = std::shared_ptr<Call>;
  enum class Access { kPublic, kUser };
  struct Route {
    const char* method;
    const char* path;
    Access access;
    void (Service::*handle)(const CallPtr&);
  };
  static const std::vector<Route>& routes();
  static const Route* find_route(std::string_view method, std::string_view path);

  bool has_key(const HttpRequest& request, uint64_t* tenant) const;
  bool origin_allowed(const HttpRequest& request) const;
  bool cors_allows(std::string_view origin) const;
  HttpHeaders response_headers(const HttpRequest& request, const std::string& id) const;
  std::string request_id(const HttpRequest& request);
  HttpResponse failure(const HttpRequest& request, const ApiError& error);

  // Endpoints.
  void health(const CallPtr& call);
  void page(const CallPtr& call);
  void models(const CallPtr& call);
  void props(const CallPtr& call);
  void change_memory(const CallPtr& call);
  void slots(const CallPtr& call);
  void metrics_page(const CallPtr& call);
  void chat(const CallPtr& call);
  void completion(const CallPtr& call);
  void llama_completion(const CallPtr& call);
  void responses(const CallPtr& call);
  void messages(const CallPtr& call);
  void count_message_tokens(const CallPtr& call);
  void apply_template(const CallPtr& call);
  void embeddings(const CallPtr& call);
  void llama_embeddings(const CallPtr& call);
  void tokenize(const CallPtr& call);
  void detokenize(const CallPtr& call);

  using Parser = ApiResult<Generation> (*)(std::string_view, const ApiDefaults&);
  void generate(const CallPtr& call, Parser parse);
  void embed(const CallPtr& call, bool llama_form);
  void prepare_generation(const CallPtr& call, Parser parse);
  /// `work` runs on a worker thread and returns the response's body.
  void work(const CallPtr& call, std::function<ApiResult<Json>(const HttpRequest&)> work);
  std::optional<ApiError> check_model(const std::string& asked) const;
  std::optional<ApiError> check_length(const std::vector<BuiltPrompt>& prompts) const;
  OutputOptions output_options(const Generation& generation) const;
  Request engine_request(const Generation& generation, const Call& call, size_t choice) const;
  void launch(const CallPtr& call, std::vector<JobSpec> specs);

  void reply(const CallPtr& call, HttpResponse response);
  void reply(const CallPtr& call, const Json& json);
  void reply(const CallPtr& call, const ApiError& error);
  void finish(const CallPtr& call, int status, const TokenCounts& counts);
  void deliver(std::vector<JobEvent> events);
  void on_loaded(std::exception_ptr error);

  ServiceConfig config_;
  const int64_t started_unix_ = static_cast<int64_t>(std::time(nullptr));
  EngineConfig engine_;
  bool can_set_memory_;
  Log& log_;
  Metrics metrics_;
  HttpServer http_;
  std::optional<ChatTemplate> chat_template_;
  std::string chat_template_source_;
  ChatFormat chat_format_ = ChatFormat::kPlain;
  std::vector<int32_t> structural_tokens_;  // of chat_format_
  ModelInfo model_;
  std::unique_ptr<GrammarCompiler> grammars_;
  std::vector<std::string> names_;  // that a request may ask for

  bool ready_ = false, draining_ = false;
  double drain_deadline_ = 0;
  int signals_ = 0;
  std::exception_ptr load_error_;
  struct JobPlace {
    CallPtr call;
    size_t index;
  };
  std::unordered_map<JobId, JobPlace> jobs_;
  JobId next_job_ = 1;
  uint64_t id_secret_ = 0, id_counter_ = 0;
  std::unique_ptr<EngineLoop> loop_;  // last: its thread calls into the rest
};

}  // namespace mete
