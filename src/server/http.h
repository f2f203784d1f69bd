// What the server knows of HTTP: plain requests and responses, and the two interfaces between the sockets
// (http_server) and what answers (service). Nothing here or above it includes Boost.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace mete {

using HttpHeaders = std::vector<std::pair<std::string, std::string>>;

struct HttpRequest {
  std::string method;   ///< as sent
  std::string path;     ///< the target up to '?', as sent: nothing is decoded or normalised
  std::string query;    ///< after '?', or ""
  HttpHeaders headers;  ///< names in lower case
  std::string body;
  std::string peer;  ///< address of the client

  /// The first value of a header (name in lower case), or "".
  std::string_view header(std::string_view name) const;
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  std::string body;
  HttpHeaders headers;  ///< beside content type and length
  bool close = false;   ///< end the connection after this response
};

/// The answer to one request. Used on the I/O thread only; calls after the client has gone do nothing.
class Exchange {
 public:
  virtual ~Exchange() = default;
  virtual void respond(HttpResponse response) = 0;
  /// Starts a response whose body comes in pieces; `response.body` is ignored.
  virtual void begin_stream(HttpResponse response) = 0;
  virtual void write(std::string_view data) = 0;
  virtual void end_stream() = 0;
  /// The request's body has been dropped: others may send theirs. Done by itself when the response ends.
  virtual void release_body() = 0;
  /// Called once if the client goes away before the response has ended.
  std::function<void()> on_gone;
};

/// Called on the I/O thread.
class HttpHandler {
 public:
  virtual ~HttpHandler() = default;
  /// Looks at a request before its body is read; a response refuses it.
  virtual std::optional<HttpResponse> admit(const HttpRequest& head) = 0;
  virtual void handle(HttpRequest request, std::shared_ptr<Exchange> exchange) = 0;
  /// The response to a request that never became one: bad syntax, a limit, a timeout.
  virtual HttpResponse refuse(int status, const std::string& message) = 0;
  virtual void on_signal(int signal) = 0;  ///< SIGTERM, SIGINT, SIGUSR1 or SIGUSR2
  virtual void on_tick() = 0;              ///< about ten times a second
};

/// "OK", "Not Found", ...; "" for a status that the server never sends.
const char* status_text(int status);

/// Equal, in time that depends on the length of `given` only.
bool equal_in_constant_time(std::string_view secret, std::string_view given);

}  // namespace mete
