// HTTP/1.1 on sockets: one I/O thread, keep-alive, limits on every size and wait, streaming by chunks.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "server/http.h"

namespace mete {

struct HttpConfig {
  std::vector<std::string> hosts = {"127.0.0.1"};
  uint16_t port = 8080;  ///< 0: any free one
  int max_connections = 4096;
  uint32_t header_bytes = 16 << 10;
  uint64_t body_bytes = 16 << 20;
  double header_timeout_s = 10;  ///< from the first byte of a request to the end of its header
  double idle_timeout_s = 75;    ///< between requests of one connection
  double timeout_s = 60;         ///< to receive a body; to accept a piece of a response
  /// Of all bodies together that are being received or wait for their response.
  uint64_t all_bodies_bytes() const { return 4 * body_bytes; }
  size_t unread_bytes = 16 << 20;  ///< of a stream whose client does not read; more ends the connection
};

class HttpServer {
 public:
  /// Binds and listens. Throws Error(kRuntime) naming the address when that fails, Error(kUsage) for an
  /// address that is none, or where the open-file limit cannot be raised to hold max_connections.
  HttpServer(HttpConfig config, HttpHandler& handler);
  ~HttpServer();

  uint16_t port() const;
  /// Serves on this thread until stop().
  void run();
  /// From any thread: `task` runs on the I/O thread.
  void post(std::function<void()> task);
  /// From any thread: `task` runs on a thread for work that takes long (parsing, tokenising).
  void post_work(std::function<void()> task);
  /// On the I/O thread: closes everything; run() returns.
  void stop();

  /// Waits for the work that has been posted; later work is dropped.
  void join_workers();

  int connections() const;  ///< open ones; I/O thread
  bool busy() const;        ///< some response has not been sent to its end; I/O thread

  struct Impl;

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace mete
