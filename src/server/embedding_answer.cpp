#include <cmath>
#include <cstring>

#include "server/answer.h"

namespace mete {
namespace {

std::string base64(const uint8_t* data, size_t size) {
  constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  out.reserve((size + 2) / 3 * 4);
  for (size_t i = 0; i < size; i += 3) {
    uint32_t group = static_cast<uint32_t>(data[i]) << 16;
    if (i + 1 < size) group |= static_cast<uint32_t>(data[i + 1]) << 8;
    if (i + 2 < size) group |= data[i + 2];
    out += kDigits[group >> 18];
    out += kDigits[(group >> 12) & 63];
    out += i + 1 < size ? kDigits[(group >> 6) & 63] : '=';
    out += i + 2 < size ? kDigits[group & 63] : '=';
  }
  return out;
}

/// To length 1; a zero vector stays zero.
void normalise(std::vector<float>& vector) {
  double sum = 0;
  for (const float x : vector) sum += static_cast<double>(x) * x;
  if (!(sum > 0)) return;
  const double scale = 1 / std::sqrt(sum);
  for (float& x : vector) x = static_cast<float>(x * scale);
}

Json embedding_json(const std::vector<float>& vector, bool as_base64) {
  if (!as_base64) return vector;
  std::vector<uint8_t> bytes(vector.size() * sizeof(float));
  std::memcpy(bytes.data(), vector.data(), bytes.size());  // little-endian float32
  return base64(bytes.data(), bytes.size());
}

}  // namespace

EmbeddingAnswer::EmbeddingAnswer(EmbeddingRequest request, std::vector<BuiltPrompt> inputs,
                                 const ModelInfo& model, std::string request_id,
                                 std::shared_ptr<Exchange> exchange, HttpHeaders headers)
    : request_(std::move(request)),
      inputs_(std::move(inputs)),
      model_(model),
      request_id_(std::move(request_id)),
      exchange_(std::move(exchange)),
      headers_(std::move(headers)),
      embeddings_(inputs_.size()),
      running_(inputs_.size()) {}

bool EmbeddingAnswer::on_event(size_t index, JobEvent event, double) {
  if (!event.end) return false;
  if (event.end->reason != FinishReason::kStop) {
    fail(end_error(*event.end));
    return true;
  }
  embeddings_[index] = std::move(event.end->embedding);
  normalise(embeddings_[index]);
  if (--running_ > 0) return false;
  status_ = 200;
  HttpResponse response;
  response.body = to_text(request_.llama_form ? llama_form() : openai_form());
  response.headers = headers_;
  exchange_->respond(std::move(response));
  return true;
}

Json EmbeddingAnswer::receipt() const {
  return {{"request_id", request_id_}, {"ignored_fields", request_.ignored_fields}};
}

Json EmbeddingAnswer::openai_form() const {
  Json data = Json::array();
  for (size_t i = 0; i < embeddings_.size(); ++i) {
    data.push_back({{"object", "embedding"},
                    {"index", i},
                    {"embedding", embedding_json(embeddings_[i], request_.base64)}});
  }
  const int64_t tokens = counts().prompt;
  return {{"object", "list"},
          {"model", model_.name},
          {"data", std::move(data)},
          {"usage", {{"prompt_tokens", tokens}, {"total_tokens", tokens}}},
          {"mete", receipt()}};
}

/// An array, in it one vector for each input, in an array too: with pooling there is one.
Json EmbeddingAnswer::llama_form() const {
  Json out = Json::array();
  for (size_t i = 0; i < embeddings_.size(); ++i) {
    out.push_back({{"index", i}, {"embedding", Json::array({Json(embeddings_[i])})}, {"mete", receipt()}});
  }
  return out;
}

void EmbeddingAnswer::fail(const ApiError& error) {
  status_ = error.status;
  HttpResponse response = error_response(error, false, request_id_);
  response.headers.insert(response.headers.end(), headers_.begin(), headers_.end());
  exchange_->respond(std::move(response));
}

TokenCounts EmbeddingAnswer::counts() const {
  TokenCounts out;
  for (const BuiltPrompt& input : inputs_) out.prompt += static_cast<int64_t>(input.tokens.size());
  return out;
}

}  // namespace mete
