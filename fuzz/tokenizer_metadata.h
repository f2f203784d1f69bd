// Tokenizer metadata built in code, for the fuzz targets.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "format/gguf.h"

namespace mete::fuzz {

class Metadata {
 public:
  void text(const std::string& key, const std::string& value) { put(key, {value}, GgufValueType::kString); }
  void texts(const std::string& key, std::vector<std::string> values) {
    put(key, std::move(values), GgufValueType::kArray);
  }
  void number(const std::string& key, int32_t value) {
    numbers(key, std::vector<int32_t>{value}, GgufValueType::kI32, GgufValueType::kI32);
  }
  template <typename T>
  void numbers(const std::string& key, std::vector<T> values, GgufValueType element,
               GgufValueType type = GgufValueType::kArray) {
    auto owner = std::make_shared<std::vector<T>>(std::move(values));
    GgufValue value{};
    value.type = type;
    value.element = element;
    value.count = owner->size();
    value.bytes = {reinterpret_cast<const uint8_t*>(owner->data()), owner->size() * sizeof(T)};
    metadata.set(key, std::move(value), owner);
  }
  GgufMetadata metadata;

 private:
  void put(const std::string& key, std::vector<std::string> values, GgufValueType type) {
    auto owner = std::make_shared<std::vector<std::string>>(std::move(values));
    GgufValue value{};
    value.type = type;
    value.element = GgufValueType::kString;
    value.count = owner->size();
    value.strings.assign(owner->begin(), owner->end());
    metadata.set(key, std::move(value), owner);
  }
};

}  // namespace mete::fuzz
