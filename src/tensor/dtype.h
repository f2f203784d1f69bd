// Storage types of tensors: GGUF's numbering (ggml), with block geometry.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace mete {

/// Values are the type ids of the GGUF file format.
enum class DType : int32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ2_K = 10,
  kQ3_K = 11,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kIQ4_NL = 20,
  kIQ4_XS = 23,
  kBF16 = 30,
  kMXFP4 = 39
};

/// Block geometry of a type: `block` elements take `bytes` bytes; a row is a whole number of blocks.
struct DTypeInfo {
  DType type;
  const char* name;  ///< as ggml prints it: "Q4_K"
  int block;         ///< elements per block: 1, 32 or 256
  int bytes;         ///< bytes per block
};

/// The table row of a supported type id, or nullptr for any other id.
const DTypeInfo* find_dtype(int32_t id);

/// Name of any id that GGUF has ever assigned ("IQ2_XXS"), or nullptr: for error messages.
const char* gguf_type_name(int32_t id);

const DTypeInfo& info(DType type);
inline const char* name(DType type) { return info(type).name; }
std::optional<DType> parse_dtype(std::string_view text);

/// Bytes of a row of `cols` elements; cols must be a multiple of the block.
inline size_t row_bytes(DType type, int64_t cols) {
  const DTypeInfo& i = info(type);
  return static_cast<size_t>(cols / i.block) * static_cast<size_t>(i.bytes);
}

/// All supported types, in table order.
inline constexpr DType kAllDTypes[] = {DType::kF32,  DType::kF16,    DType::kBF16,   DType::kQ4_0,
                                       DType::kQ4_1, DType::kQ5_0,   DType::kQ5_1,   DType::kQ8_0,
                                       DType::kQ2_K, DType::kQ3_K,   DType::kQ4_K,   DType::kQ5_K,
                                       DType::kQ6_K, DType::kIQ4_NL, DType::kIQ4_XS, DType::kMXFP4};

}  // namespace mete
