#include "server/http_server.h"

#include <sys/resource.h>

#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ip/v6_only.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <csignal>
#include <limits>
#include <optional>
#include <unordered_set>

#include "base/clock.h"
#include "base/error.h"

namespace mete {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using asio::ip::tcp;
using boost::system::error_code;

namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();
constexpr size_t kReadBytes = 4096;
constexpr double kLingerSeconds = 2;  // after an early refusal, to let the client read it

class Session;

/// Descriptors beside those of connections: the model file, epoll, timers, logs.
constexpr rlim_t kOwnDescriptors = 64;

void raise_file_limit(int connections) {
  rlimit limit{};
  const rlim_t wanted = static_cast<rlim_t>(connections) + kOwnDescriptors;
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) throw run_failure("getrlimit(RLIMIT_NOFILE) failed");
  if (limit.rlim_cur >= wanted) return;
  if (limit.rlim_max < wanted) {
    throw bad_usage("--max-connections {}: needs {} open files, this process may have {} (ulimit -Hn)",
                    connections, wanted, limit.rlim_max);
  }
  limit.rlim_cur = wanted;
  if (::setrlimit(RLIMIT_NOFILE, &limit) != 0) throw run_failure("setrlimit(RLIMIT_NOFILE) failed");
}

}  // namespace

struct HttpServer::Impl {
  Impl(HttpConfig c, HttpHandler& h) : config(std::move(c)), handler(h) {}

  HttpConfig config;
  HttpHandler& handler;
  asio::io_context io{1};
  asio::thread_pool workers{2};
  std::vector<tcp::acceptor> acceptors;
  asio::signal_set signals{io};
  asio::steady_timer timer{io};
  std::unordered_set<std::shared_ptr<Session>> sessions;
  int busy = 0;
  uint64_t body_bytes = 0;     // that sessions have reserved
  std::vector<size_t> paused;  // acceptors that wait for a connection to end

  void listen();
  void accept(size_t index);
  void resume_accepting();
  void wait_for_signal();
  void tick();
};

namespace {

class SessionExchange;

class Session : public std::enable_shared_from_this<Session> {
 public:
  Session(HttpServer::Impl& server, tcp::socket socket) : server_(server), socket_(std::move(socket)) {}

  void start() {
    error_code ignored;
    socket_.set_option(tcp::no_delay(true), ignored);
    const tcp::endpoint peer = socket_.remote_endpoint(ignored);
    peer_ = peer.address().to_string();
    deadline_ = now_seconds() + server_.config.header_timeout_s;
    wait_for_bytes();
  }

  /// Closes what has waited too long.
  void check(double now) {
    if (now > write_deadline_) return gone();
    if (now <= deadline_) return;
    if (!reading_request_) return gone();
    time_out();
  }

  void release_body() {
    server_.body_bytes -= reserved_;
    reserved_ = 0;
  }
  bool sending() const { return writing_active_; }

  // The response, from SessionExchange.
  void respond(HttpResponse response) {
    const bool close = response.close;
    send_whole(response);
    finish(close);
  }
  void begin_stream(const HttpResponse& response) {
    chunked_ = version_ >= 11;
    if (!chunked_) keep_alive_ = false;
    enqueue(head(response, chunked_ ? "Transfer-Encoding: chunked\r\n" : ""));
  }
  void write(std::string_view data) {
    if (data.empty()) return;
    if (waiting_.size() + data.size() > server_.config.unread_bytes) {
      asio::post(socket_.get_executor(), [self = shared_from_this()] { self->gone(); });
      return;
    }
    if (chunked_) waiting_ += fmt::format("{:x}\r\n", data.size());
    waiting_ += data;
    if (chunked_) waiting_ += "\r\n";
    flush();
  }
  void end_stream() {
    if (chunked_) enqueue("0\r\n\r\n");
    finish(false);
  }

  /// The connection is over, for whatever reason.
  void gone();

 private:
  std::string head(const HttpResponse& response, const std::string& framing) const {
    std::string out = fmt::format("HTTP/1.1 {} {}\r\nServer: mete\r\nContent-Type: {}\r\n{}", response.status,
                                  status_text(response.status), response.content_type, framing);
    for (const auto& [name, value] : response.headers) out += fmt::format("{}: {}\r\n", name, value);
    if (response.close || !keep_alive_) out += "Connection: close\r\n";
    return out + "\r\n";
  }

  /// Reads until there are bytes: the next request while idle; while a response is being made, what tells
  /// that the client has gone.
  void wait_for_bytes() {
    if (buffer_.size() > 0) return got_bytes();
    if (watching_) return;
    watching_ = true;
    socket_.async_read_some(buffer_.prepare(kReadBytes),
                            [self = shared_from_this()](error_code error, size_t bytes) {
                              self->watching_ = false;
                              if (error) return self->gone();
                              self->buffer_.commit(bytes);
                              self->got_bytes();
                            });
  }
  void got_bytes() {
    if (!exchange_ && !lingering_ && !reading_request_) read_header();
  }

  void read_header() {
    reading_request_ = true;
    keep_alive_ = true;
    version_ = 11;
    method_.clear();
    deadline_ = now_seconds() + server_.config.header_timeout_s;
    parser_.emplace();
    parser_->header_limit(server_.config.header_bytes);
    parser_->body_limit(server_.config.body_bytes);
    http::async_read_header(
        socket_, buffer_, *parser_,
        [self = shared_from_this()](error_code error, size_t) { self->on_header(error); });
  }

  /// True if the request cannot go on.
  bool failed(error_code error) {
    if (closed_ || lingering_ || cutting_) return true;
    if (!error) return false;
    if (error == http::error::header_limit) {
      refuse(431, fmt::format("the header is longer than {} bytes", server_.config.header_bytes));
    } else if (error == http::error::body_limit) {
      refuse(413, fmt::format("the body is longer than {} bytes", server_.config.body_bytes));
    } else if (error == http::error::end_of_stream || error == http::error::partial_message ||
               error.category() != http::make_error_code(http::error::bad_method).category()) {
      gone();
    } else {
      refuse(400, fmt::format("the request is not HTTP/1.1: {}", error.message()));
    }
    return true;
  }

  void on_header(error_code error) {
    if (parser_ && parser_->is_header_done()) version_ = static_cast<int>(parser_->get().version());
    if (failed(error)) return;
    const auto& message = parser_->get();
    keep_alive_ = message.keep_alive();
    request_ = {};
    request_.method = std::string(message.method_string());
    method_ = request_.method;
    const std::string_view target(message.target().data(), message.target().size());
    const size_t mark = target.find('?');
    request_.path = std::string(target.substr(0, mark));
    if (mark != std::string_view::npos) request_.query = std::string(target.substr(mark + 1));
    request_.peer = peer_;
    for (const auto& field : message) {
      std::string name(field.name_string());
      for (char& c : name) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
      request_.headers.emplace_back(std::move(name), std::string(field.value()));
    }
    if (std::optional<HttpResponse> refusal = server_.handler.admit(request_)) return refuse(*refusal);
    const auto length = parser_->content_length();
    const uint64_t wanted = length ? *length : message.chunked() ? server_.config.body_bytes : 0;
    if (server_.body_bytes + wanted > server_.config.all_bodies_bytes()) {
      return refuse(503, "too many large requests at once");
    }
    reserved_ = wanted;
    server_.body_bytes += wanted;
    if (message[http::field::expect] == "100-continue") enqueue("HTTP/1.1 100 Continue\r\n\r\n");
    deadline_ = now_seconds() + server_.config.timeout_s;
    http::async_read(socket_, buffer_, *parser_,
                     [self = shared_from_this()](error_code e, size_t) { self->on_body(e); });
  }

  void on_body(error_code error);

  void refuse(int status, const std::string& message) { refuse(server_.handler.refuse(status, message)); }
  /// Answers a request of which perhaps not everything was read, and ends the connection.
  void refuse(HttpResponse response) {
    reading_request_ = false;
    const bool whole = parser_ && parser_->is_done();
    if (whole && keep_alive_ && !response.close) {
      send_whole(response);
      return next();
    }
    response.close = true;
    lingering_ = true;
    deadline_ = now_seconds() + kLingerSeconds;
    send_whole(response);
    end_after_write();
  }
  /// Says so and closes; a read is still under way, so that nothing more can be read.
  void time_out() {
    HttpResponse response = server_.handler.refuse(408, "the request did not arrive in time");
    response.close = true;
    reading_request_ = false;
    cutting_ = true;
    deadline_ = now_seconds() + kLingerSeconds;
    send_whole(response);
  }

  void finish(bool close_now);
  void next() {
    reading_request_ = false;
    parser_.reset();
    deadline_ = now_seconds() + server_.config.idle_timeout_s;
    wait_for_bytes();
  }

  void send_whole(const HttpResponse& response) {
    waiting_ += head(response, fmt::format("Content-Length: {}\r\n", response.body.size()));
    if (method_ != "HEAD") waiting_ += response.body;
    flush();
  }
  void enqueue(std::string_view data) {
    waiting_ += data;
    flush();
  }
  void flush() {
    if (writing_active_ || waiting_.empty() || closed_) return;
    writing_.clear();
    writing_.swap(waiting_);
    writing_active_ = true;
    write_deadline_ = now_seconds() + server_.config.timeout_s;
    asio::async_write(socket_, asio::buffer(writing_), [self = shared_from_this()](error_code error, size_t) {
      self->writing_active_ = false;
      self->write_deadline_ = kNever;
      if (error) return self->gone();
      self->flush();
      if (self->cutting_ && !self->writing_active_) return self->gone();
      if (self->ending_ && !self->writing_active_) self->half_close();
    });
  }
  void end_after_write() {
    ending_ = true;
    if (!writing_active_) half_close();
  }
  /// Ends our side; what the client still sends is read and dropped for a moment, so that it sees the answer.
  void half_close() {
    error_code ignored;
    socket_.shutdown(tcp::socket::shutdown_send, ignored);
    lingering_ = true;
    deadline_ = now_seconds() + kLingerSeconds;
    drop_bytes();
  }
  void drop_bytes() {
    if (watching_) return;  // its end closes the session
    buffer_.clear();
    socket_.async_read_some(buffer_.prepare(kReadBytes),
                            [self = shared_from_this()](error_code error, size_t) {
                              if (error) return self->gone();
                              self->drop_bytes();
                            });
  }

  HttpServer::Impl& server_;
  tcp::socket socket_;
  std::string peer_;
  beast::flat_buffer buffer_;
  std::optional<http::request_parser<http::string_body>> parser_;
  HttpRequest request_;
  std::string method_;
  std::shared_ptr<SessionExchange> exchange_;  // while a response is being made
  std::string writing_, waiting_;
  double deadline_ = kNever, write_deadline_ = kNever;
  uint64_t reserved_ = 0;  // of server_.body_bytes
  int version_ = 11;
  bool keep_alive_ = true, chunked_ = false;
  bool reading_request_ = false;  // from its first byte to its last
  bool watching_ = false, writing_active_ = false, ending_ = false;
  bool lingering_ = false, cutting_ = false, closed_ = false;
};

class SessionExchange final : public Exchange {
 public:
  explicit SessionExchange(std::shared_ptr<Session> session) : session_(std::move(session)) {}
  void respond(HttpResponse response) override {
    if (const auto session = session_) session->respond(std::move(response));
  }
  void begin_stream(HttpResponse response) override {
    if (const auto session = session_) session->begin_stream(response);
  }
  void write(std::string_view data) override {
    if (const auto session = session_) session->write(data);
  }
  void end_stream() override {
    if (const auto session = session_) session->end_stream();
  }
  void release_body() override {
    if (const auto session = session_) session->release_body();
  }
  /// The response has ended, or the client has gone.
  void detach() { session_.reset(); }

 private:
  std::shared_ptr<Session> session_;
};

void Session::on_body(error_code error) {
  if (failed(error)) return;
  reading_request_ = false;
  deadline_ = kNever;
  request_.body = std::move(parser_->get().body());
  parser_.reset();
  exchange_ = std::make_shared<SessionExchange>(shared_from_this());
  ++server_.busy;
  wait_for_bytes();
  server_.handler.handle(std::move(request_), exchange_);
}

void Session::finish(bool close_now) {
  if (!exchange_) return;
  release_body();
  exchange_->detach();
  exchange_->on_gone = nullptr;
  exchange_.reset();
  --server_.busy;
  if (closed_) return;
  if (close_now || !keep_alive_) return end_after_write();
  next();
}

void Session::gone() {
  if (closed_) return;
  closed_ = true;
  release_body();
  const auto self = shared_from_this();
  if (exchange_) {
    --server_.busy;
    exchange_->detach();
    const auto exchange = std::move(exchange_);
    exchange_.reset();
    if (exchange->on_gone) exchange->on_gone();
    exchange->on_gone = nullptr;
  }
  error_code ignored;
  socket_.close(ignored);
  server_.sessions.erase(self);
}

}  // namespace

void HttpServer::Impl::listen() {
  tcp::resolver resolver(io);
  for (const std::string& host : config.hosts) {
    error_code error;
    const auto found = resolver.resolve(host, std::to_string(config.port),
                                        tcp::resolver::passive | tcp::resolver::numeric_service, error);
    if (error || found.empty())
      throw bad_usage("--host: found '{}', expected an address of this machine", host);
    const tcp::endpoint endpoint = found.begin()->endpoint();
    tcp::acceptor acceptor(io);
    acceptor.open(endpoint.protocol(), error);
    if (!error) acceptor.set_option(tcp::acceptor::reuse_address(true), error);
    if (!error && endpoint.protocol() == tcp::v6()) acceptor.set_option(asio::ip::v6_only(true), error);
    if (!error) acceptor.bind(endpoint, error);
    if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
    if (error) throw run_failure("cannot listen on {} port {}: {}", host, config.port, error.message());
    if (config.port == 0) config.port = acceptor.local_endpoint().port();
    acceptors.push_back(std::move(acceptor));
  }
}

void HttpServer::Impl::accept(size_t index) {
  if (static_cast<int>(sessions.size()) >= config.max_connections) {
    paused.push_back(index);
    return;
  }
  acceptors[index].async_accept([this, index](error_code error, tcp::socket socket) {
    if (error) {  // out of descriptors, or closing: the next tick tries again
      paused.push_back(index);
      return;
    }
    auto session = std::make_shared<Session>(*this, std::move(socket));
    sessions.insert(session);
    session->start();
    accept(index);
  });
}

void HttpServer::Impl::resume_accepting() {
  const std::vector<size_t> waiting = std::move(paused);
  paused.clear();
  for (const size_t index : waiting) accept(index);
}

void HttpServer::Impl::wait_for_signal() {
  signals.async_wait([this](error_code error, int signal) {
    if (error) return;
    handler.on_signal(signal);
    wait_for_signal();
  });
}

void HttpServer::Impl::tick() {
  timer.expires_after(std::chrono::milliseconds(100));
  timer.async_wait([this](error_code error) {
    if (error) return;
    const double now = now_seconds();
    const std::vector<std::shared_ptr<Session>> all(sessions.begin(), sessions.end());
    for (const auto& session : all) session->check(now);
    handler.on_tick();
    resume_accepting();
    tick();
  });
}

HttpServer::HttpServer(HttpConfig config, HttpHandler& handler)
    : impl_(std::make_unique<Impl>(std::move(config), handler)) {
  raise_file_limit(impl_->config.max_connections);
  impl_->listen();
}

HttpServer::~HttpServer() { join_workers(); }

uint16_t HttpServer::port() const { return impl_->config.port; }

void HttpServer::run() {
  impl_->signals.add(SIGTERM);
  impl_->signals.add(SIGINT);
  impl_->signals.add(SIGUSR1);
  impl_->signals.add(SIGUSR2);
  impl_->wait_for_signal();
  for (size_t i = 0; i < impl_->acceptors.size(); ++i) impl_->accept(i);
  impl_->tick();
  impl_->io.run();
}

void HttpServer::post(std::function<void()> task) { asio::post(impl_->io, std::move(task)); }
void HttpServer::post_work(std::function<void()> task) { asio::post(impl_->workers, std::move(task)); }

void HttpServer::join_workers() {
  impl_->workers.stop();
  impl_->workers.join();
}

void HttpServer::stop() {
  for (tcp::acceptor& acceptor : impl_->acceptors) {
    error_code ignored;
    acceptor.close(ignored);
  }
  const std::vector<std::shared_ptr<Session>> all(impl_->sessions.begin(), impl_->sessions.end());
  for (const auto& session : all) session->gone();
  impl_->io.stop();
}

int HttpServer::connections() const { return static_cast<int>(impl_->sessions.size()); }
bool HttpServer::busy() const {
  return impl_->busy > 0 || std::any_of(impl_->sessions.begin(), impl_->sessions.end(),
                                        [](const auto& session) { return session->sending(); });
}

}  // namespace mete
