#include "tensor/dtype.h"

#include "base/error.h"

namespace mete {
namespace {

constexpr DTypeInfo kInfos[] = {
    {DType::kF32, "F32", 1, 4},           {DType::kF16, "F16", 1, 2},
    {DType::kBF16, "BF16", 1, 2},         {DType::kQ4_0, "Q4_0", 32, 18},
    {DType::kQ4_1, "Q4_1", 32, 20},       {DType::kQ5_0, "Q5_0", 32, 22},
    {DType::kQ5_1, "Q5_1", 32, 24},       {DType::kQ8_0, "Q8_0", 32, 34},
    {DType::kQ2_K, "Q2_K", 256, 84},      {DType::kQ3_K, "Q3_K", 256, 110},
    {DType::kQ4_K, "Q4_K", 256, 144},     {DType::kQ5_K, "Q5_K", 256, 176},
    {DType::kQ6_K, "Q6_K", 256, 210},     {DType::kIQ4_NL, "IQ4_NL", 32, 18},
    {DType::kIQ4_XS, "IQ4_XS", 256, 136}, {DType::kMXFP4, "MXFP4", 32, 17},
};

// Ids 4, 5, 31-33 and 36-38 were removed from the format.
constexpr const char* kGgufNames[] = {
    "F32",   "F16",    "Q4_0",  "Q4_1",  nullptr, nullptr,   "Q5_0",   "Q5_1",    "Q8_0",  "Q8_1",   "Q2_K",
    "Q3_K",  "Q4_K",   "Q5_K",  "Q6_K",  "Q8_K",  "IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S", "IQ4_NL", "IQ3_S",
    "IQ2_S", "IQ4_XS", "I8",    "I16",   "I32",   "I64",     "F64",    "IQ1_M",   "BF16",  nullptr,  nullptr,
    nullptr, "TQ1_0",  "TQ2_0", nullptr, nullptr, nullptr,   "MXFP4",  "NVFP4",   "Q1_0",  "Q2_0"};

}  // namespace

const DTypeInfo* find_dtype(int32_t id) {
  for (const DTypeInfo& i : kInfos) {
    if (static_cast<int32_t>(i.type) == id) return &i;
  }
  return nullptr;
}

const char* gguf_type_name(int32_t id) {
  constexpr int32_t count = sizeof kGgufNames / sizeof kGgufNames[0];
  return id >= 0 && id < count ? kGgufNames[id] : nullptr;
}

const DTypeInfo& info(DType type) {
  const DTypeInfo* found = find_dtype(static_cast<int32_t>(type));
  METE_CHECK(found != nullptr);
  return *found;
}

std::optional<DType> parse_dtype(std::string_view text) {
  for (const DTypeInfo& i : kInfos) {
    if (text == i.name) return i.type;
  }
  return std::nullopt;
}

}  // namespace mete
