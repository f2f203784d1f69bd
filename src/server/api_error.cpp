#include "server/api_error.h"

namespace mete {
namespace {

constexpr size_t kShownBytes = 64;  // of a found value in a message

/// A found value, short enough for a message.
Json shown(const Json& found) {
  if (found.is_array()) return fmt::format("an array of {}", found.size());
  if (found.is_object()) return "an object";
  const std::string text = to_text(found);
  if (text.size() <= kShownBytes) return found;
  size_t end = kShownBytes;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;
  return text.substr(0, end) + "...";
}

ApiError of_field(const char* code, const std::string& field, const Json& found,
                  const std::string& expected) {
  ApiError error;
  error.code = code;
  error.field = field;
  error.found = shown(found);
  error.expected = expected;
  const bool words = found.is_array() || found.is_object();
  error.message = fmt::format("{}: found {}, expected {}", field.empty() ? "the body" : field,
                              words ? error.found.get<std::string>() : to_text(error.found), expected);
  return error;
}

}  // namespace

ApiError bad_field(const std::string& field, const Json& found, const std::string& expected) {
  return of_field("invalid_value", field, found, expected);
}

ApiError unsupported_field(const std::string& field, const Json& found, const std::string& expected) {
  return of_field("unsupported_value", field, found, expected);
}

ApiError api_error(int status, std::string type, std::string code, std::string message) {
  ApiError error;
  error.status = status;
  error.type = std::move(type);
  error.code = std::move(code);
  error.message = std::move(message);
  return error;
}

std::string openai_error_body(const ApiError& error) {
  Json inner = {{"message", error.message},
                {"type", error.type},
                {"param", error.field.empty() ? Json(nullptr) : Json(error.field)},
                {"code", error.code.empty() ? Json(nullptr) : Json(error.code)}};
  if (!error.found.is_null()) inner["found"] = error.found;
  if (!error.expected.is_null()) inner["expected"] = error.expected;
  inner.update(error.more);
  return to_text({{"error", std::move(inner)}});
}

std::string anthropic_error_body(const ApiError& error, const std::string& request_id) {
  Json inner = {{"type", error.status == 404   ? "not_found_error"
                         : error.status == 429 ? "rate_limit_error"
                         : error.status == 503 ? "overloaded_error"
                         : error.status >= 500 ? "api_error"
                                               : error.type},
                {"message", error.message}};
  if (!error.field.empty()) inner["param"] = error.field;
  if (!error.found.is_null()) inner["found"] = error.found;
  if (!error.expected.is_null()) inner["expected"] = error.expected;
  inner.update(error.more);
  return to_text({{"type", "error"}, {"error", std::move(inner)}, {"request_id", request_id}});
}

std::string to_text(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

}  // namespace mete
