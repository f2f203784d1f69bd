#include <cmath>
#include <cstring>
#include <limits>

#include "format/gguf.h"

namespace mete {
namespace {

template <typename T>
T load(const GgufValue& value, uint64_t i) {
  METE_CHECK(i < value.count && (i + 1) * sizeof(T) <= value.bytes.size());
  T out;
  std::memcpy(&out, value.bytes.data() + i * sizeof(T), sizeof out);
  return out;
}

bool is_integer_type(GgufValueType type) {
  switch (type) {
    case GgufValueType::kU8:
    case GgufValueType::kI8:
    case GgufValueType::kU16:
    case GgufValueType::kI16:
    case GgufValueType::kU32:
    case GgufValueType::kI32:
    case GgufValueType::kU64:
    case GgufValueType::kI64:
      return true;
    default:
      return false;
  }
}

std::string describe(const GgufValue& value) {
  if (value.type != GgufValueType::kArray) return name(value.type);
  return fmt::format("an array of {} {}", value.count, name(value.element));
}

Error missing(std::string_view key, const char* expected) {
  return bad_model("key \"{}\" is missing, expected {}", key, expected);
}

Error wrong_type(std::string_view key, const GgufValue& value, const char* expected) {
  return bad_model("key \"{}\" is {}, expected {}", key, describe(value), expected);
}

/// The value of an unsigned 64-bit element that int64 cannot hold, else nothing.
std::optional<uint64_t> beyond_int64(const GgufValue& value, uint64_t i) {
  if (value.element != GgufValueType::kU64) return std::nullopt;
  const uint64_t x = load<uint64_t>(value, i);
  if (x <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return std::nullopt;
  return x;
}

}  // namespace

const char* name(GgufValueType type) {
  constexpr const char* kNames[] = {"U8",   "I8",     "U16",   "I16", "U32", "I32", "F32",
                                    "BOOL", "STRING", "ARRAY", "U64", "I64", "F64"};
  const int32_t i = static_cast<int32_t>(type);
  return i >= 0 && i <= static_cast<int32_t>(GgufValueType::kF64) ? kNames[i] : "unknown";
}

bool GgufValue::is_integer() const { return is_integer_type(element); }

bool GgufValue::is_number() const {
  return is_integer() || element == GgufValueType::kF32 || element == GgufValueType::kF64;
}

double GgufValue::number(uint64_t i) const {
  if (element == GgufValueType::kF32) return static_cast<double>(load<float>(*this, i));
  if (element == GgufValueType::kF64) return load<double>(*this, i);
  if (element == GgufValueType::kU64) return static_cast<double>(load<uint64_t>(*this, i));
  return static_cast<double>(integer(i));
}

int64_t GgufValue::integer(uint64_t i) const {
  switch (element) {
    case GgufValueType::kBool:
    case GgufValueType::kU8:
      return load<uint8_t>(*this, i);
    case GgufValueType::kI8:
      return load<int8_t>(*this, i);
    case GgufValueType::kU16:
      return load<uint16_t>(*this, i);
    case GgufValueType::kI16:
      return load<int16_t>(*this, i);
    case GgufValueType::kU32:
      return load<uint32_t>(*this, i);
    case GgufValueType::kI32:
      return load<int32_t>(*this, i);
    case GgufValueType::kU64:
      return beyond_int64(*this, i) ? std::numeric_limits<int64_t>::max()
                                    : static_cast<int64_t>(load<uint64_t>(*this, i));
    case GgufValueType::kI64:
      return load<int64_t>(*this, i);
    default:
      METE_CHECK(!"an integer element");
      return 0;
  }
}

uint64_t GgufValue::unsigned_integer(uint64_t i) const {
  METE_CHECK(element == GgufValueType::kU64);
  return load<uint64_t>(*this, i);
}

const GgufValue* GgufMetadata::find(std::string_view key) const {
  const auto found = values_.find(key);
  return found == values_.end() ? nullptr : &found->second;
}

void GgufMetadata::set(std::string key, GgufValue value, std::shared_ptr<const void> owner) {
  values_.insert_or_assign(std::move(key), std::move(value));
  owners_.push_back(std::move(owner));
}

Result<int64_t> GgufMetadata::integer(std::string_view key, int64_t min, int64_t max) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return missing(key, "an integer");
  if (!is_integer_type(value->type)) return wrong_type(key, *value, "an integer");
  if (const auto big = beyond_int64(*value, 0)) {
    return bad_model("key \"{}\" is {}, expected {} to {}", key, *big, min, max);
  }
  const int64_t x = value->integer();
  if (x < min || x > max) return bad_model("key \"{}\" is {}, expected {} to {}", key, x, min, max);
  return x;
}

Result<int64_t> GgufMetadata::integer_or(std::string_view key, int64_t fallback, int64_t min,
                                         int64_t max) const {
  if (!has(key)) return fallback;
  return integer(key, min, max);
}

Result<double> GgufMetadata::number(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return missing(key, "a number");
  if (value->type == GgufValueType::kArray || !value->is_number()) return wrong_type(key, *value, "a number");
  const double x = value->number();
  if (!std::isfinite(x)) return bad_model("key \"{}\" is {}, expected a finite number", key, x);
  return x;
}

Result<double> GgufMetadata::number_or(std::string_view key, double fallback) const {
  if (!has(key)) return fallback;
  return number(key);
}

Result<bool> GgufMetadata::boolean_or(std::string_view key, bool fallback) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return fallback;
  if (value->type != GgufValueType::kBool) return wrong_type(key, *value, "BOOL");
  return value->integer() != 0;
}

Result<std::string_view> GgufMetadata::string(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return missing(key, "a string");
  if (value->type != GgufValueType::kString) return wrong_type(key, *value, "STRING");
  return value->strings[0];
}

Result<std::string_view> GgufMetadata::string_or(std::string_view key, std::string_view fallback) const {
  if (!has(key)) return fallback;
  return string(key);
}

Result<std::span<const std::string_view>> GgufMetadata::strings(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return missing(key, "an array of strings");
  if (value->type != GgufValueType::kArray || value->element != GgufValueType::kString) {
    return wrong_type(key, *value, "an array of STRING");
  }
  return std::span<const std::string_view>(value->strings);
}

Result<std::vector<int64_t>> GgufMetadata::integers(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return missing(key, "an array of integers");
  if (value->type != GgufValueType::kArray ||
      (!value->is_integer() && value->element != GgufValueType::kBool)) {
    return wrong_type(key, *value, "an array of integers");
  }
  std::vector<int64_t> out(value->count);
  for (uint64_t i = 0; i < value->count; ++i) {
    if (const auto big = beyond_int64(*value, i)) {
      return bad_model("key \"{}\" has element {} = {}, expected at most 2^63 - 1", key, i, *big);
    }
    out[i] = value->integer(i);
  }
  return out;
}

Result<std::vector<float>> GgufMetadata::floats(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return missing(key, "an array of F32");
  if (value->type != GgufValueType::kArray || value->element != GgufValueType::kF32) {
    return wrong_type(key, *value, "an array of F32");
  }
  std::vector<float> out(value->count);
  if (!out.empty()) std::memcpy(out.data(), value->bytes.data(), value->bytes.size());
  return out;
}

}  // namespace mete
