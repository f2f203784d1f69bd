// GGUF v2 and v3 reader, little-endian, single or split files. Every byte is untrusted.
// Specification: ggml-org/ggml docs/gguf.md.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "tensor/dtype.h"

namespace mete {

enum class GgufValueType : int32_t {
  kU8 = 0,
  kI8,
  kU16,
  kI16,
  kU32,
  kI32,
  kF32,
  kBool,
  kString,
  kArray,
  kU64,
  kI64,
  kF64
};
const char* name(GgufValueType type);

/// One metadata value. Scalars are stored in their own type; arrays are not nested (nested: refused by the
/// reader). Strings are views into memory that the GgufFile owns.
struct GgufValue {
  GgufValueType type;                          ///< kArray for arrays
  GgufValueType element = GgufValueType::kU8;  ///< element type of an array
  uint64_t count = 1;                          ///< elements; 1 for a scalar
  std::span<const uint8_t> bytes;              ///< numbers: `count` packed elements (unaligned)
  std::vector<std::string_view> strings;       ///< strings: `count` entries

  /// Element i of a number or number array, widened; booleans are 0 and 1. A U64 beyond int64 saturates in
  /// integer(); GgufMetadata's getters refuse it.
  double number(uint64_t i = 0) const;
  int64_t integer(uint64_t i = 0) const;
  uint64_t unsigned_integer(uint64_t i = 0) const;  ///< of U64 only
  bool is_integer() const;
  bool is_number() const;
};

/// Metadata with typed access: a value of another type is an error naming key, found and expected type,
/// never a reinterpretation. Integer getters take any integer type whose value fits.
class GgufMetadata {
 public:
  const GgufValue* find(std::string_view key) const;
  bool has(std::string_view key) const { return find(key) != nullptr; }

  Result<int64_t> integer(std::string_view key, int64_t min, int64_t max) const;  ///< required, bounded
  Result<int64_t> integer_or(std::string_view key, int64_t fallback, int64_t min, int64_t max) const;
  Result<double> number(std::string_view key) const;  ///< required, finite
  Result<double> number_or(std::string_view key, double fallback) const;
  Result<bool> boolean_or(std::string_view key, bool fallback) const;
  Result<std::string_view> string(std::string_view key) const;
  Result<std::string_view> string_or(std::string_view key, std::string_view fallback) const;
  Result<std::span<const std::string_view>> strings(std::string_view key) const;  ///< array of strings
  Result<std::vector<int64_t>> integers(std::string_view key) const;  ///< array of any integer type
  Result<std::vector<float>> floats(std::string_view key) const;      ///< array of F32

  const std::map<std::string, GgufValue, std::less<>>& all() const { return values_; }
  /// For tests and tools: adds or replaces a value that owns its bytes.
  void set(std::string key, GgufValue value, std::shared_ptr<const void> owner);

 private:
  friend class GgufReader;
  std::map<std::string, GgufValue, std::less<>> values_;
  std::vector<std::shared_ptr<const void>> owners_;
};

/// A tensor's place: shape, type and byte range in one of the file's parts, all checked.
struct GgufTensor {
  std::string name;
  DType type;
  int n_dims;                   ///< 1..4
  std::array<int64_t, 4> dims;  ///< ne order: dims[0] varies fastest; unused are 1
  int part;                     ///< index of the split file
  uint64_t offset;              ///< absolute byte offset in that part
  uint64_t bytes;
  int64_t cols() const { return dims[0]; }
  int64_t rows() const { return dims[1] * dims[2] * dims[3]; }
};

/// An opened model: metadata and tensor directory in memory; tensor data stays in the file and is read with
/// read(). Opening "x-00001-of-0000N.gguf" opens all N parts. Movable.
class GgufFile {
 public:
  static Result<GgufFile> open(const std::string& path);
  /// Parses a whole single-part file held in memory; tensor data is read from it. For tests and fuzzing.
  static Result<GgufFile> parse(std::span<const uint8_t> bytes);

  GgufFile(GgufFile&&) noexcept;
  GgufFile& operator=(GgufFile&&) noexcept;
  ~GgufFile();

  const GgufMetadata& metadata() const;
  std::span<const GgufTensor> tensors() const;
  const GgufTensor* find(std::string_view name) const;
  /// Reads bytes [begin, begin + out.size()) of a tensor. A file shorter than when it was opened: an error
  /// naming the file (exit code 1).
  Status read(const GgufTensor& tensor, uint64_t begin, std::span<uint8_t> out) const;
  /// The bytes [begin, begin + bytes) of a tensor, somewhere in `buffer`: as ByteSource::read_into().
  Result<const uint8_t*> read_into(const GgufTensor& tensor, uint64_t begin, uint64_t bytes,
                                   std::span<uint8_t> buffer) const;
  /// From now on read_into() leaves nothing in the page cache, and what opening left there is dropped.
  /// Returns whether reads past the page cache are allowed for all parts.
  bool spare_cache();

  int version() const;
  uint64_t file_bytes() const;                    ///< sum over parts
  const std::vector<std::string>& paths() const;  ///< one per part

 private:
  struct Impl;
  explicit GgufFile(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace mete
