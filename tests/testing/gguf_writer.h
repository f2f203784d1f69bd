// A small GGUF writer for tests: builds a file in memory, valid unless told otherwise.
#pragma once

#include <cstdint>
#include <cstring>
#include <fstream>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "format/gguf.h"
#include "tensor/dtype.h"

namespace mete::testing {

/// GGUF's id of a C++ number type.
template <typename T>
constexpr GgufValueType gguf_type_of() {
  if (std::is_same_v<T, bool>) return GgufValueType::kBool;
  if (std::is_same_v<T, float>) return GgufValueType::kF32;
  if (std::is_same_v<T, double>) return GgufValueType::kF64;
  constexpr bool is_signed = std::is_signed_v<T>;
  if (sizeof(T) == 1) return is_signed ? GgufValueType::kI8 : GgufValueType::kU8;
  if (sizeof(T) == 2) return is_signed ? GgufValueType::kI16 : GgufValueType::kU16;
  if (sizeof(T) == 4) return is_signed ? GgufValueType::kI32 : GgufValueType::kU32;
  return is_signed ? GgufValueType::kI64 : GgufValueType::kU64;
}

/// Little-endian bytes.
class ByteWriter {
 public:
  template <typename T>
  ByteWriter& put(T value) {
    static_assert(std::is_arithmetic_v<T>);
    uint8_t raw[sizeof(T)];
    std::memcpy(raw, &value, sizeof(T));
    bytes.insert(bytes.end(), raw, raw + sizeof(T));
    return *this;
  }
  ByteWriter& put_string(std::string_view text) { return put(uint64_t{text.size()}).put_raw(text); }
  ByteWriter& put_raw(std::string_view text) {
    bytes.insert(bytes.end(), text.begin(), text.end());
    return *this;
  }
  std::vector<uint8_t> bytes;
};

/// Keys and tensors in the order of the calls. Fields are public so that a test can write a wrong one.
class GgufWriter {
 public:
  template <typename T>
  GgufWriter& set(std::string_view key, T value) {
    if constexpr (std::is_convertible_v<T, std::string_view>) {
      return pair(key, GgufValueType::kString, ByteWriter().put_string(value));
    } else {
      return pair(key, gguf_type_of<T>(), ByteWriter().put(value));
    }
  }

  template <typename T>
  GgufWriter& set_array(std::string_view key, const std::vector<T>& values) {
    ByteWriter out;
    if constexpr (std::is_convertible_v<T, std::string_view>) {
      out.put(static_cast<int32_t>(GgufValueType::kString)).put(uint64_t{values.size()});
      for (const auto& value : values) out.put_string(value);
    } else {
      out.put(static_cast<int32_t>(gguf_type_of<T>())).put(uint64_t{values.size()});
      for (const T value : values) out.put(value);
    }
    return pair(key, GgufValueType::kArray, out);
  }

  /// A key with any type id and value bytes.
  GgufWriter& pair(std::string_view key, GgufValueType type, const ByteWriter& value) {
    pairs_.put_string(key).put(static_cast<int32_t>(type));
    pairs_.bytes.insert(pairs_.bytes.end(), value.bytes.begin(), value.bytes.end());
    ++n_pairs;
    return *this;
  }

  /// A tensor whose data are `data`; dims in ne order, dims[0] fastest.
  GgufWriter& tensor(std::string_view name, DType type, const std::vector<int64_t>& dims,
                     std::vector<uint8_t> data) {
    return tensor_info(name, static_cast<int32_t>(type), dims, data_.size(), std::move(data));
  }

  /// A tensor with any fields; `data` are appended to the data section whatever `offset` says.
  GgufWriter& tensor_info(std::string_view name, int32_t type, const std::vector<int64_t>& dims,
                          uint64_t offset, std::vector<uint8_t> data) {
    infos_.put_string(name).put(static_cast<uint32_t>(dims.size()));
    for (const int64_t dim : dims) infos_.put(dim);
    infos_.put(type).put(offset);
    data_.insert(data_.end(), data.begin(), data.end());
    data_.resize((data_.size() + alignment - 1) / alignment * alignment);
    ++n_tensors;
    return *this;
  }

  std::vector<uint8_t> bytes() const {
    ByteWriter out;
    out.put_raw(magic).put(version).put(n_tensors).put(n_pairs);
    out.bytes.insert(out.bytes.end(), pairs_.bytes.begin(), pairs_.bytes.end());
    out.bytes.insert(out.bytes.end(), infos_.bytes.begin(), infos_.bytes.end());
    out.bytes.resize((out.bytes.size() + alignment - 1) / alignment * alignment);
    out.bytes.insert(out.bytes.end(), data_.begin(), data_.end());
    return out.bytes;
  }

  void save(const std::string& path) const {
    const std::vector<uint8_t> all = bytes();
    std::ofstream file(path, std::ios::binary);
    file.write(reinterpret_cast<const char*>(all.data()), static_cast<std::streamsize>(all.size()));
  }

  std::string magic = "GGUF";
  uint32_t version = 3;
  uint64_t n_tensors = 0;
  uint64_t n_pairs = 0;
  uint64_t alignment = 32;  ///< what the writer aligns to; the key general.alignment is the caller's

 private:
  ByteWriter pairs_;
  ByteWriter infos_;
  std::vector<uint8_t> data_;
};

}  // namespace mete::testing
