// Reads the fields of a JSON object: types and ranges are checked, nothing is converted, and what nobody
// asked for is known at the end.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "server/api_error.h"

namespace mete {

/// Parses a body: one JSON object in UTF-8, nested at most `max_depth` deep. A key that an object has twice
/// is an error: which value counts is for nobody to guess.
ApiResult<Json> parse_body(std::string_view bytes, int max_depth = 64);

/// The first error is kept and later reads do nothing, so that a caller checks once. A field that is absent
/// or null leaves the value alone. The object must live longer.
class Fields {
 public:
  explicit Fields(const Json& object, std::string path = "") : object_(object), path_(std::move(path)) {}

  /// The value if the field is there and not null; counts as read.
  const Json* find(const char* name);

  void read(const char* name, bool& out);
  void read(const char* name, std::string& out);
  void read_integer(const char* name, int64_t low, int64_t high, int64_t& out);
  void read_integer(const char* name, int64_t low, int64_t high, int32_t& out);
  void read_number(const char* name, double low, double high, float& out);
  void read_object(const char* name, const Json*& out);
  void read_array(const char* name, size_t most, const Json*& out);
  void read_strings(const char* name, size_t most, std::vector<std::string>& out);
  /// A field that is known and has no support: any value but null and `neutral` is an error that says
  /// `expected`.
  void only(const char* name, const Json& neutral, const std::string& expected);

  void fail(ApiError error) {
    if (!error_) error_ = std::move(error);
  }
  void fail(const char* name, const Json& found, const std::string& expected) {
    fail(bad_field(path(name), found, expected));
  }
  const std::optional<ApiError>& error() const { return error_; }
  std::string path(const char* name) const { return path_.empty() ? name : path_ + "." + name; }
  /// Paths of the fields that were not read.
  std::vector<std::string> unread() const;

 private:
  const Json& object_;
  std::string path_;
  std::vector<std::string_view> read_;
  std::optional<ApiError> error_;
};

}  // namespace mete
