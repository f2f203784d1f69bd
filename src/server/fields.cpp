#include "server/fields.h"

#include <algorithm>
#include <cmath>
#include <unordered_set>

namespace mete {
namespace {

/// Deepest nesting of brackets outside strings.
int depth_of(std::string_view bytes) {
  int depth = 0, deepest = 0;
  bool in_string = false;
  for (size_t i = 0; i < bytes.size(); ++i) {
    const char c = bytes[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      deepest = std::max(deepest, ++depth);
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
  return deepest;
}

constexpr size_t kMaxKeys = 2048;  // of one object: finding a key takes time in proportion to their number

/// Follows the parser and throws an ApiError at a key that its object has already.
class KeyCheck {
 public:
  void operator()(Json::parse_event_t event, const Json& parsed) {
    switch (event) {
      case Json::parse_event_t::object_start:
      case Json::parse_event_t::array_start:
        count();
        open_.push_back({event == Json::parse_event_t::array_start, 0, {}, {}});
        return;
      case Json::parse_event_t::object_end:
      case Json::parse_event_t::array_end:
        open_.pop_back();
        return;
      case Json::parse_event_t::key:
        return key(parsed.get_ref<const std::string&>());
      case Json::parse_event_t::value:
        return count();
    }
  }

 private:
  struct Level {
    bool is_array;
    size_t items;  // begun, of an array
    std::string key;
    std::unordered_set<std::string> keys;
  };

  void count() {
    if (!open_.empty() && open_.back().is_array) ++open_.back().items;
  }
  void key(const std::string& name) {
    Level& object = open_.back();
    object.key = name;
    const bool added = object.keys.insert(name).second;
    if (!added) {
      ApiError error = api_error(400, "invalid_request_error", "duplicate_key",
                                 fmt::format("{}: found twice in its object, expected once", path()));
      error.field = path();
      throw error;
    }
    if (object.keys.size() > kMaxKeys)
      throw bad_field(path(), object.keys.size(), fmt::format("at most {} keys in its object", kMaxKeys));
  }
  std::string path() const {
    std::string out;
    for (const Level& level : open_) {
      if (level.is_array) {
        out += fmt::format("[{}]", level.items - 1);
      } else {
        if (!out.empty()) out += '.';
        out += level.key;
      }
    }
    return out;
  }

  std::vector<Level> open_;
};

std::string range(const char* what, double low, double high) {
  const bool open_below = low <= -1e15, open_above = high >= 1e15;
  if (open_below && open_above) return fmt::format("{}", what);
  if (open_above) return fmt::format("{} of at least {}", what, low);
  return fmt::format("{} from {} to {}", what, low, high);
}

}  // namespace

ApiResult<Json> parse_body(std::string_view bytes, int max_depth) {
  if (bytes.empty())
    return api_error(400, "invalid_request_error", "invalid_json",
                     "the body: found nothing, expected a JSON object");
  if (const int depth = depth_of(bytes); depth > max_depth) {
    return api_error(
        400, "invalid_request_error", "invalid_json",
        fmt::format("the body: found {} levels of nesting, expected at most {}", depth, max_depth));
  }
  try {
    KeyCheck keys;
    Json json = Json::parse(bytes, [&](int, Json::parse_event_t event, const Json& parsed) {
      keys(event, parsed);
      return true;
    });
    if (!json.is_object()) return bad_field("", json, "a JSON object");
    return json;
  } catch (const ApiError& error) {
    return error;
  } catch (const Json::exception& error) {
    // nlohmann's text after its own prefix: "parse error at line 1, column 2: ..."
    const std::string text = error.what();
    const size_t start = text.find("] ");
    return api_error(400, "invalid_request_error", "invalid_json",
                     fmt::format("the body is not JSON in UTF-8: {}",
                                 start == std::string::npos ? text : text.substr(start + 2)));
  }
}

const Json* Fields::find(const char* name) {
  read_.push_back(name);
  const auto it = object_.find(name);
  if (it == object_.end() || it->is_null() || error_) return nullptr;
  return &*it;
}

void Fields::read(const char* name, bool& out) {
  const Json* value = find(name);
  if (value == nullptr) return;
  if (!value->is_boolean()) return fail(name, *value, "true or false");
  out = value->get<bool>();
}

void Fields::read(const char* name, std::string& out) {
  const Json* value = find(name);
  if (value == nullptr) return;
  if (!value->is_string()) return fail(name, *value, "a string");
  out = value->get<std::string>();
}

void Fields::read_integer(const char* name, int64_t low, int64_t high, int64_t& out) {
  const Json* value = find(name);
  if (value == nullptr) return;
  const std::string expected = range("an integer", static_cast<double>(low), static_cast<double>(high));
  // 3.0 is an integer to many clients; 3.5 is not.
  if (value->is_number_float()) {
    const double x = value->get<double>();
    if (!(std::floor(x) == x && std::abs(x) < 0x1p53)) return fail(name, *value, expected);
    const auto whole = static_cast<int64_t>(x);
    if (whole < low || whole > high) return fail(name, *value, expected);
    out = whole;
    return;
  }
  if (!value->is_number_integer()) return fail(name, *value, expected);
  if (value->is_number_unsigned() && value->get<uint64_t>() > static_cast<uint64_t>(INT64_MAX))
    return fail(name, *value, expected);
  const auto whole = value->get<int64_t>();
  if (whole < low || whole > high) return fail(name, *value, expected);
  out = whole;
}

void Fields::read_integer(const char* name, int64_t low, int64_t high, int32_t& out) {
  int64_t wide = out;
  read_integer(name, low, high, wide);
  out = static_cast<int32_t>(wide);
}

void Fields::read_number(const char* name, double low, double high, float& out) {
  const Json* value = find(name);
  if (value == nullptr) return;
  const double x = value->is_number() ? value->get<double>() : NAN;
  if (!(x >= low && x <= high)) return fail(name, *value, range("a number", low, high));
  out = static_cast<float>(x);
}

void Fields::read_object(const char* name, const Json*& out) {
  const Json* value = find(name);
  if (value == nullptr) return;
  if (!value->is_object()) return fail(name, *value, "an object");
  out = value;
}

void Fields::read_array(const char* name, size_t most, const Json*& out) {
  const Json* value = find(name);
  if (value == nullptr) return;
  if (!value->is_array()) return fail(name, *value, "an array");
  if (value->size() > most) return fail(name, *value, fmt::format("an array of at most {}", most));
  out = value;
}

void Fields::read_strings(const char* name, size_t most, std::vector<std::string>& out) {
  const Json* value = nullptr;
  read_array(name, most, value);
  if (value == nullptr) return;
  std::vector<std::string> strings;
  for (size_t i = 0; i < value->size(); ++i) {
    const Json& item = (*value)[i];
    if (!item.is_string()) return fail(bad_field(fmt::format("{}[{}]", path(name), i), item, "a string"));
    strings.push_back(item.get<std::string>());
  }
  out = std::move(strings);
}

void Fields::only(const char* name, const Json& neutral, const std::string& expected) {
  const Json* value = find(name);
  if (value == nullptr || *value == neutral) return;
  fail(unsupported_field(path(name), *value, expected));
}

std::vector<std::string> Fields::unread() const {
  std::vector<std::string> out;
  for (const auto& [key, value] : object_.items()) {
    if (std::find(read_.begin(), read_.end(), key) == read_.end()) out.push_back(path(key.c_str()));
  }
  return out;
}

}  // namespace mete
