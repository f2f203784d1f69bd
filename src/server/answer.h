// Answers in the making: events of sequences in, a response out. I/O thread only.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "server/formatter.h"
#include "server/http.h"

namespace mete {

/// Whatever waits for sequences.
class JobSink {
 public:
  virtual ~JobSink() = default;
  /// An event of sequence `index`. True when the answer is complete or has failed.
  virtual bool on_event(size_t index, JobEvent event, double now) = 0;
  /// Keeps a silent stream alive with a comment.
  virtual void ping(double) {}
  virtual void fail(const ApiError& error) = 0;
  virtual int status() const = 0;  ///< of the response; 0 before it has begun
  virtual TokenCounts counts() const = 0;
};

/// The answer to a generation request.
class Answer final : public JobSink {
 public:
  /// `headers` go with the response; `output`: how the model's text is read in conversations.
  Answer(AnswerInfo info, std::shared_ptr<Exchange> exchange, HttpHeaders headers, OutputOptions output);

  Answer(const Answer&) = delete;
  Answer& operator=(const Answer&) = delete;

  bool on_event(size_t index, JobEvent event, double now) override;
  void ping(double now) override;
  void fail(const ApiError& error) override;
  int status() const override { return status_; }
  TokenCounts counts() const override { return count_tokens(info_, choices_); }

  const AnswerInfo& info() const { return info_; }
  std::vector<Choice>& choices() { return choices_; }

 private:
  void name_calls(size_t index, std::vector<ToolCall>& calls) const;
  void begin();
  void send(const std::string& text);

  AnswerInfo info_;
  std::shared_ptr<Exchange> exchange_;
  HttpHeaders headers_;
  std::unique_ptr<Formatter> formatter_;
  std::vector<Choice> choices_;
  std::vector<OutputParser> parsers_;
  std::vector<std::vector<JobToken>> held_;  // tokens whose text the parser still holds
  size_t running_;
  bool begun_ = false;
  int status_ = 0;
  double last_sent_ = 0;
};

/// The answer to an embedding request: one sequence per input.
class EmbeddingAnswer final : public JobSink {
 public:
  EmbeddingAnswer(EmbeddingRequest request, std::vector<BuiltPrompt> inputs, const ModelInfo& model,
                  std::string request_id, std::shared_ptr<Exchange> exchange, HttpHeaders headers);
  bool on_event(size_t index, JobEvent event, double now) override;
  void fail(const ApiError& error) override;
  int status() const override { return status_; }
  TokenCounts counts() const override;

 private:
  Json receipt() const;
  Json openai_form() const;
  Json llama_form() const;

  EmbeddingRequest request_;
  std::vector<BuiltPrompt> inputs_;
  const ModelInfo& model_;
  std::string request_id_;
  std::shared_ptr<Exchange> exchange_;
  HttpHeaders headers_;
  std::vector<std::vector<float>> embeddings_;
  size_t running_;
  int status_ = 0;
};

/// What went wrong with a sequence that ended without an answer.
ApiError end_error(const JobEnd& end);
/// The response to a request that failed, in the form of the request's API.
HttpResponse error_response(const ApiError& error, bool anthropic, const std::string& request_id);

}  // namespace mete
