// What a client did wrong, or what the server could not do: an HTTP status and the fields of the JSON error.
#pragma once

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <variant>

namespace mete {

using Json = nlohmann::ordered_json;

struct ApiError {
  int status = 400;
  std::string type = "invalid_request_error";
  std::string code;            ///< a stable word, e.g. "model_not_found"
  std::string field;           ///< path of the field, or ""
  std::string message;         ///< names the field, what was found, what was expected
  Json found, expected;        ///< null where there is nothing to say
  Json more = Json::object();  ///< further fields of the error object
  int retry_after_s = 0;       ///< > 0: header Retry-After
};

/// A value or an ApiError.
template <typename T>
class [[nodiscard]] ApiResult {
 public:
  ApiResult(T value) : state_(std::move(value)) {}
  ApiResult(ApiError error) : state_(std::move(error)) {}
  explicit operator bool() const noexcept { return state_.index() == 0; }
  T& operator*() { return std::get<0>(state_); }
  const T& operator*() const { return std::get<0>(state_); }
  T* operator->() { return &std::get<0>(state_); }
  const T* operator->() const { return &std::get<0>(state_); }
  const ApiError& error() const { return std::get<1>(state_); }

 private:
  std::variant<T, ApiError> state_;
};

/// 400 with "FIELD: found FOUND, expected EXPECTED".
ApiError bad_field(const std::string& field, const Json& found, const std::string& expected);
/// 400 for a field that is known but not supported with this value.
ApiError unsupported_field(const std::string& field, const Json& found, const std::string& expected);
ApiError api_error(int status, std::string type, std::string code, std::string message);

/// {"error": {message, type, param, code, found, expected}}, as OpenAI's clients read it.
std::string openai_error_body(const ApiError& error);
/// {"type": "error", "error": {type, message}, ...}, as Anthropic's clients read it.
std::string anthropic_error_body(const ApiError& error, const std::string& request_id);

/// JSON text of one line; bytes that are not UTF-8 become U+FFFD.
std::string to_text(const Json& json);

}  // namespace mete
