#include "server/service.h"

#include <xxhash.h>

#include <algorithm>
#include <csignal>
#include <random>

#include "base/clock.h"
#include "server/web_page.h"

namespace mete {
namespace {

constexpr size_t kMaxRequestId = 128;

bool is_request_id(std::string_view text) {
  const auto allowed = [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' ||
           c == '_' || c == '.' || c == ':';
  };
  return !text.empty() && text.size() <= kMaxRequestId && std::all_of(text.begin(), text.end(), allowed);
}

/// The host of an origin or of a Host header, without scheme and port.
std::string_view host_of(std::string_view text) {
  if (const size_t scheme = text.find("://"); scheme != std::string_view::npos)
    text.remove_prefix(scheme + 3);
  if (!text.empty() && text[0] == '[') return text.substr(0, text.find(']') + 1);
  return text.substr(0, text.find(':'));
}

/// An address, or the one name that no one else's DNS can give to this machine.
bool is_fixed(std::string_view host) {
  return host == "localhost" || host.find_first_not_of("0123456789.") == std::string_view::npos ||
         (!host.empty() && host[0] == '[');
}

}  // namespace

Service::Service(ServiceConfig config, HttpConfig http, EngineLoopConfig engine, Log& log)
    : config_(std::move(config)),
      engine_(engine.engine),
      can_set_memory_(engine.read_memory != nullptr),
      log_(log),
      http_(std::move(http), *this) {
  std::random_device random;
  id_secret_ = (static_cast<uint64_t>(random()) << 32) | random();
  loop_ = std::make_unique<EngineLoop>(
      std::move(engine), metrics_,
      [this](std::vector<JobEvent> events) {
        auto shared = std::make_shared<std::vector<JobEvent>>(std::move(events));
        http_.post([this, shared] { deliver(std::move(*shared)); });
      },
      [this](std::exception_ptr error) { http_.post([this, error] { on_loaded(error); }); },
      [this](const char* about, const std::string& text) {
        log_.write(about, {{"message", text}});
      });
}

Service::~Service() {
  http_.join_workers();  // they read the model's tokenizer
  loop_.reset();
}

void Service::run() {
  http_.run();
  if (load_error_) std::rethrow_exception(load_error_);
}

const std::vector<Service::Route>& Service::routes() {
  constexpr Access kPublic = Access::kPublic, kUser = Access::kUser;
  static const std::vector<Route> kRoutes = {
      {"GET", "/health", kPublic, &Service::health},
      {"GET", "/v1/health", kPublic, &Service::health},
      {"GET", "/", kPublic, &Service::page},
      {"GET", "/v1/models", kUser, &Service::models},
      {"GET", "/models", kUser, &Service::models},
      {"GET", "/props", kUser, &Service::props},
      {"GET", "/slots", kUser, &Service::slots},
      {"GET", "/metrics", kUser, &Service::metrics_page},
      {"POST", "/v1/chat/completions", kUser, &Service::chat},
      {"POST", "/chat/completions", kUser, &Service::chat},
      {"POST", "/v1/completions", kUser, &Service::completion},
      {"POST", "/completion", kUser, &Service::llama_completion},
      {"POST", "/completions", kUser, &Service::llama_completion},
      {"POST", "/v1/responses", kUser, &Service::responses},
      {"POST", "/responses", kUser, &Service::responses},
      {"POST", "/v1/messages", kUser, &Service::messages},
      {"POST", "/v1/messages/count_tokens", kUser, &Service::count_message_tokens},
      {"POST", "/v1/embeddings", kUser, &Service::embeddings},
      {"POST", "/embeddings", kUser, &Service::llama_embeddings},
      {"POST", "/embedding", kUser, &Service::llama_embeddings},
      {"POST", "/tokenize", kUser, &Service::tokenize},
      {"POST", "/detokenize", kUser, &Service::detokenize},
      {"POST", "/memory", kUser, &Service::change_memory},
      {"POST", "/apply-template", kUser, &Service::apply_template},
  };
  return kRoutes;
}

const Service::Route* Service::find_route(std::string_view method, std::string_view path) {
  for (const Route& route : routes()) {
    if (path == route.path &&
        (method == route.method || (method == "HEAD" && std::string_view(route.method) == "GET"))) {
      return &route;
    }
  }
  return nullptr;
}

bool Service::has_key(const HttpRequest& request, uint64_t* tenant) const {
  if (config_.api_keys.empty()) return true;
  std::string_view given = request.header("x-api-key");
  const std::string_view authorization = request.header("authorization");
  constexpr std::string_view kBearer = "Bearer ";
  if (authorization.substr(0, kBearer.size()) == kBearer) given = authorization.substr(kBearer.size());
  bool found = false;
  for (const std::string& key : config_.api_keys) {  // all of them: the time does not say which
    const bool equal = equal_in_constant_time(key, given);
    if (equal && tenant != nullptr) *tenant = XXH3_64bits(key.data(), key.size()) | 1;
    found = found || equal;
  }
  return found;
}

bool Service::cors_allows(std::string_view origin) const {
  return std::any_of(config_.cors_origins.begin(), config_.cors_origins.end(),
                     [&](const std::string& allowed) { return allowed == "*" || allowed == origin; });
}

/// A page of another site must not make a browser ask this server for work.
bool Service::origin_allowed(const HttpRequest& request) const {
  const std::string_view origin = request.header("origin");
  if (origin.empty() || cors_allows(origin)) return true;
  const std::string_view host = host_of(origin);
  const std::string_view own = host_of(request.header("host"));
  return host == own && (is_fixed(host) || !config_.api_keys.empty());
}

HttpHeaders Service::response_headers(const HttpRequest& request, const std::string& id) const {
  HttpHeaders out = {{"X-Request-Id", id}};
  const std::string_view origin = request.header("origin");
  if (!origin.empty() && cors_allows(origin)) {
    out.emplace_back("Access-Control-Allow-Origin", std::string(origin));
    out.emplace_back("Vary", "Origin");
  }
  return out;
}

std::string Service::request_id(const HttpRequest& request) {
  const std::string_view given = request.header("x-request-id");
  if (is_request_id(given)) return std::string(given);
  const uint64_t number = ++id_counter_;
  return fmt::format("req_{:016x}", XXH3_64bits_withSeed(&number, sizeof number, id_secret_));
}

HttpResponse Service::failure(const HttpRequest& request, const ApiError& error) {
  const std::string id = request_id(request);
  HttpResponse response = error_response(error, request.path.rfind("/v1/messages", 0) == 0, id);
  for (auto& header : response_headers(request, id)) response.headers.push_back(std::move(header));
  metrics_.http_errors.fetch_add(1);
  log_.write("refused", {{"id", id},
                         {"peer", request.peer},
                         {"method", request.method},
                         {"path", request.path},
                         {"status", error.status},
                         {"error", error.message}});
  return response;
}

HttpResponse Service::refuse(int status, const std::string& message) {
  HttpRequest unknown;
  return failure(unknown, api_error(status, "invalid_request_error", "bad_request", message));
}

std::optional<HttpResponse> Service::admit(const HttpRequest& head) {
  metrics_.http_requests.fetch_add(1);
  const Route* route = find_route(head.method, head.path);
  if (route == nullptr) {
    std::string allow;
    for (const Route& other : routes()) {
      if (head.path == other.path) allow += (allow.empty() ? "" : ", ") + std::string(other.method);
    }
    if (head.method == "OPTIONS" && !allow.empty() && !config_.cors_origins.empty()) {
      HttpResponse response;
      response.status = 204;
      response.headers = response_headers(head, request_id(head));
      response.headers.emplace_back("Access-Control-Allow-Methods", allow + ", OPTIONS");
      response.headers.emplace_back("Access-Control-Allow-Headers",
                                    "Authorization, Content-Type, X-Api-Key, X-Request-Id");
      response.headers.emplace_back("Access-Control-Max-Age", "600");
      return response;
    }
    if (allow.empty()) {
      return failure(head, api_error(404, "not_found_error", "not_found", "there is nothing at this path"));
    }
    HttpResponse response = failure(
        head, api_error(405, "invalid_request_error", "method_not_allowed",
                        fmt::format("method: found {}, expected {}", head.method.substr(0, 16), allow)));
    response.headers.emplace_back("Allow", allow);
    return response;
  }
  if (!origin_allowed(head)) {
    return failure(head, api_error(403, "permission_error", "origin_not_allowed",
                                   "pages of this origin may not use the server (--cors-origins)"));
  }
  if (route->access == Access::kPublic) return std::nullopt;
  if (!has_key(head, nullptr)) {
    return failure(
        head, api_error(401, "authentication_error", "invalid_api_key", "the API key is missing or wrong"));
  }
  if (!ready_)
    return failure(head, api_error(503, "unavailable_error", "loading", "the model is being loaded"));
  if (draining_ && head.method == "POST") {
    ApiError error = api_error(503, "unavailable_error", "draining", "the server is shutting down");
    error.retry_after_s = 1;
    return failure(head, error);
  }
  return std::nullopt;
}

void Service::handle(HttpRequest request, std::shared_ptr<Exchange> exchange) {
  const Route* route = find_route(request.method, request.path);
  auto call = std::make_shared<Call>();
  call->arrived = now_seconds();
  call->id = request_id(request);
  call->headers = response_headers(request, call->id);
  has_key(request, &call->tenant);
  call->request = std::move(request);
  call->exchange = exchange;
  exchange->on_gone = [this, weak = std::weak_ptr<Call>(call)] {
    const CallPtr left = weak.lock();
    if (!left || left->gone) return;
    left->gone = true;
    for (const JobId job : left->jobs) {
      if (jobs_.erase(job) > 0) loop_->cancel(job);
    }
    finish(left, 499, left->sink ? left->sink->counts() : TokenCounts{});
  };
  (this->*route->handle)(call);
}

void Service::reply(const CallPtr& call, HttpResponse response) {
  if (call->gone) return;
  const int status = response.status;
  response.headers.insert(response.headers.end(), call->headers.begin(), call->headers.end());
  call->exchange->respond(std::move(response));
  finish(call, status, {});
}

void Service::reply(const CallPtr& call, const Json& json) {
  HttpResponse response;
  response.body = to_text(json);
  reply(call, std::move(response));
}

void Service::reply(const CallPtr& call, const ApiError& error) {
  HttpResponse response = error_response(error, call->request.path.rfind("/v1/messages", 0) == 0, call->id);
  if (error.status == 429) metrics_.rejected.fetch_add(1);
  if (!call->gone) {
    log_.write(
        "error",
        {{"id", call->id}, {"status", error.status}, {"code", error.code}, {"message", error.message}});
  }
  reply(call, std::move(response));
}

/// Writes the log line of a request that is over.
void Service::finish(const CallPtr& call, int status, const TokenCounts& counts) {
  if (status >= 400) metrics_.http_errors.fetch_add(1);
  const bool quiet = call->request.method == "GET" && status == 200;  // probes and scrapes
  if (quiet) return;
  Json fields = {{"id", call->id},
                 {"peer", call->request.peer},
                 {"method", call->request.method},
                 {"path", call->request.path},
                 {"status", status},
                 {"seconds", now_seconds() - call->arrived}};
  if (counts.prompt > 0) {
    fields["prompt_tokens"] = counts.prompt;
    fields["cached_tokens"] = counts.cached;
    fields["generated_tokens"] = counts.generated;
  }
  if (const std::string_view trace = call->request.header("traceparent");
      !trace.empty() && trace.size() <= 64) {
    fields["traceparent"] = trace;
  }
  log_.write("request", fields);
}

void Service::deliver(std::vector<JobEvent> events) {
  const double now = now_seconds();
  for (JobEvent& event : events) {
    const auto place = jobs_.find(event.job);
    if (place == jobs_.end()) continue;
    const CallPtr call = place->second.call;
    const size_t index = place->second.index;
    if (event.end) jobs_.erase(place);
    if (!call->sink->on_event(index, std::move(event), now)) continue;
    for (const JobId job : call->jobs) {  // others of a failed answer
      if (jobs_.erase(job) > 0) loop_->cancel(job);
    }
    finish(call, call->sink->status(), call->sink->counts());
  }
}

void Service::on_signal(int signal) {
  if (signal == SIGUSR2) return loop_->save_cache();
  if (signal == SIGUSR1) {
    if (can_set_memory_) return loop_->reread_memory();
    return log_.write("memory", {{"message", "SIGUSR1 has no effect without --memory-file"}});
  }
  if (++signals_ > 1 || !ready_) return http_.stop();
  draining_ = true;
  drain_deadline_ = now_seconds() + config_.drain_timeout_s;
  log_.write("draining", {{"sequences", jobs_.size()}, {"timeout_s", config_.drain_timeout_s}});
}

void Service::on_tick() {
  const double now = now_seconds();
  for (const auto& [job, place] : jobs_) place.call->sink->ping(now);
  if (!draining_) return;
  if (!http_.busy() || now > drain_deadline_) {
    if (http_.busy()) log_.write("drain timeout", {{"sequences", jobs_.size()}});
    http_.stop();
  }
}

}  // namespace mete
