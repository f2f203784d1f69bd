#include "server/answer.h"

#include <iterator>

#include "base/clock.h"

namespace mete {
namespace {

constexpr double kPingSeconds = 15;

void append(std::vector<JobToken>& to, std::vector<JobToken> from) {
  to.insert(to.end(), std::make_move_iterator(from.begin()), std::make_move_iterator(from.end()));
}

}  // namespace

ApiError end_error(const JobEnd& end) {
  if (end.queue_full) {
    ApiError error = api_error(429, "rate_limit_error", "queue_full", end.error);
    error.retry_after_s = 1;
    return error;
  }
  if (end.refused) return api_error(400, "invalid_request_error", "invalid_value", end.error);
  if (end.reason == FinishReason::kDeadline) {
    return api_error(504, "server_error", "deadline_exceeded", "deadline_ms passed before the first token");
  }
  return api_error(500, "server_error", "generation_failed", end.error);
}

Answer::Answer(AnswerInfo info, std::shared_ptr<Exchange> exchange, HttpHeaders headers, OutputOptions output)
    : info_(std::move(info)),
      exchange_(std::move(exchange)),
      headers_(std::move(headers)),
      formatter_(make_formatter(info_)),
      choices_(info_.prompts.size() * static_cast<size_t>(info_.request.n)),
      held_(choices_.size()),
      running_(choices_.size()),
      last_sent_(now_seconds()) {
  if (info_.request.api == Api::kCompletion || info_.request.api == Api::kLlama) output = {};
  for (size_t i = 0; i < choices_.size(); ++i) {
    output.starts_in_reasoning = info_.prompts[i / static_cast<size_t>(info_.request.n)].starts_in_reasoning;
    parsers_.emplace_back(output);
  }
}

bool Answer::on_event(size_t index, JobEvent event, double now) {
  Choice& choice = choices_[index];
  if (event.end) {
    const bool nothing = event.end->reason == FinishReason::kDeadline && event.end->generated == 0;
    if (event.end->reason == FinishReason::kError || nothing) {
      fail(end_error(*event.end));
      return true;
    }
  }
  if (event.progress) {
    begin();
    send(formatter_->progress(index, *event.progress, event.times.get()));
    last_sent_ = now;
    return false;
  }
  Piece piece;
  piece.output = parsers_[index].put(event.text);
  piece.times = std::move(event.times);
  if (event.end) {
    OutputPiece rest = parsers_[index].finish();
    piece.output.text += rest.text;
    piece.output.reasoning += rest.reasoning;
    for (ToolCall& call : rest.tool_calls) piece.output.tool_calls.push_back(std::move(call));
  }
  name_calls(index, piece.output.tool_calls);
  append(held_[index], std::move(event.tokens));
  if (!piece.output.empty() || event.end) piece.tokens = std::exchange(held_[index], {});
  choice.text += piece.output.text;
  choice.reasoning += piece.output.reasoning;
  for (const ToolCall& call : piece.output.tool_calls) choice.tool_calls.push_back(call);
  const bool keep_tokens =
      !info_.request.stream && (info_.request.top_logprobs >= 0 || info_.request.return_tokens);
  if (info_.request.stream && (!piece.output.empty() || !piece.tokens.empty())) {
    begin();
    send(formatter_->piece(index, choice, piece));
  }
  if (keep_tokens) append(choice.tokens, std::move(piece.tokens));
  last_sent_ = now;
  if (!event.end) return false;

  choice.end = std::move(event.end);
  --running_;
  if (info_.request.stream) {
    begin();
    send(formatter_->finish(index, choices_, running_ == 0));
  }
  if (running_ > 0) return false;
  if (info_.request.stream) {
    send(formatter_->end(choices_));
    exchange_->end_stream();
  } else {
    status_ = 200;
    HttpResponse response;
    response.body = to_text(formatter_->whole(choices_));
    response.headers = headers_;
    exchange_->respond(std::move(response));
  }
  return true;
}

/// Ids that tell the calls of a request apart.
void Answer::name_calls(size_t index, std::vector<ToolCall>& calls) const {
  size_t number = choices_[index].tool_calls.size();
  for (ToolCall& call : calls)
    call.id =
        fmt::format("call_{}_{}_{}", info_.id.substr(info_.id.find_first_of("-_") + 1), index, number++);
}

void Answer::ping(double now) {
  if (!info_.request.stream || now - last_sent_ < kPingSeconds) return;
  begin();
  send(": waiting\n\n");
  last_sent_ = now;
}

void Answer::fail(const ApiError& error) {
  if (begun_) {
    send(formatter_->error(error));
    exchange_->end_stream();
    return;
  }
  status_ = error.status;
  HttpResponse response = error_response(error, info_.request.api == Api::kMessages, info_.request_id);
  response.headers.insert(response.headers.end(), headers_.begin(), headers_.end());
  exchange_->respond(std::move(response));
}

void Answer::begin() {
  if (begun_) return;
  begun_ = true;
  status_ = 200;
  HttpResponse response;
  response.content_type = "text/event-stream";
  response.headers = headers_;
  response.headers.emplace_back("Cache-Control", "no-cache");
  exchange_->begin_stream(std::move(response));
  send(formatter_->begin(choices_));
}

void Answer::send(const std::string& text) { exchange_->write(text); }

HttpResponse error_response(const ApiError& error, bool anthropic, const std::string& request_id) {
  HttpResponse response;
  response.status = error.status;
  response.body = anthropic ? anthropic_error_body(error, request_id) : openai_error_body(error);
  if (error.retry_after_s > 0)
    response.headers.emplace_back("Retry-After", std::to_string(error.retry_after_s));
  return response;
}

}  // namespace mete
