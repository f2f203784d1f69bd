// Builds tokenizer metadata in code.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "format/gguf.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

namespace mete::test {

class MetadataBuilder {
 public:
  MetadataBuilder& text(const std::string& key, const std::string& value) { return put(key, {value}, true); }
  MetadataBuilder& texts(const std::string& key, std::vector<std::string> values) {
    return put(key, std::move(values), false);
  }
  MetadataBuilder& integer(const std::string& key, int32_t value) {
    return numbers(key, std::vector<int32_t>{value}, GgufValueType::kI32, true);
  }
  MetadataBuilder& boolean(const std::string& key, bool value) {
    return numbers(key, std::vector<uint8_t>{value}, GgufValueType::kBool, true);
  }
  MetadataBuilder& integers(const std::string& key, std::vector<int32_t> values) {
    return numbers(key, std::move(values), GgufValueType::kI32, false);
  }
  MetadataBuilder& floats(const std::string& key, std::vector<float> values) {
    return numbers(key, std::move(values), GgufValueType::kF32, false);
  }
  const GgufMetadata& metadata() const { return metadata_; }
  Result<std::unique_ptr<Tokenizer>> create() const { return Tokenizer::create(metadata_); }

 private:
  MetadataBuilder& put(const std::string& key, std::vector<std::string> values, bool scalar) {
    auto owner = std::make_shared<std::vector<std::string>>(std::move(values));
    GgufValue value{};
    value.type = scalar ? GgufValueType::kString : GgufValueType::kArray;
    value.element = GgufValueType::kString;
    value.count = owner->size();
    value.strings.assign(owner->begin(), owner->end());
    metadata_.set(key, std::move(value), owner);
    return *this;
  }
  template <typename T>
  MetadataBuilder& numbers(const std::string& key, std::vector<T> values, GgufValueType element,
                           bool scalar) {
    auto owner = std::make_shared<std::vector<T>>(std::move(values));
    GgufValue value{};
    value.type = scalar ? element : GgufValueType::kArray;
    value.element = element;
    value.count = owner->size();
    value.bytes = {reinterpret_cast<const uint8_t*>(owner->data()), owner->size() * sizeof(T)};
    metadata_.set(key, std::move(value), owner);
    return *this;
  }
  GgufMetadata metadata_;
};

/// The 256 tokens of single bytes in the byte-level spelling, in byte order.
inline std::vector<std::string> byte_level_tokens() {
  std::vector<std::string> tokens;
  uint32_t next = 256;
  for (uint32_t byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte != 0xad);
    tokens.emplace_back();
    utf8_append(tokens.back(), printable ? byte : next++);
  }
  return tokens;
}

inline std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream content;
  content << file.rdbuf();
  return content.str();
}

/// The directory that an environment variable names, else `fallback`; without a final slash.
inline std::string directory_of(const char* variable, const std::string& fallback) {
  const char* value = std::getenv(variable);
  std::string path = value != nullptr ? value : fallback;
  while (!path.empty() && path.back() == '/') path.pop_back();
  return path;
}

}  // namespace mete::test
