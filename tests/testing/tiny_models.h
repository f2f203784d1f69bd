// The tiny models of tests/golden/models as GGUF files in memory: metadata and shapes from NAME.json, weights
// by the hash that make.py uses. Any storage type; F16 and F32 hold the golden weights exactly.
#pragma once

#include <array>
#include <bit>
#include <cmath>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>
#include <string_view>
#include <vector>

#include "base/half.h"
#include "quant/quantize.h"
#include "testing/gguf_writer.h"

namespace mete::testing {

/// Every golden model. "phi3_short" is the file of "phi3_long" loaded for a shorter context.
inline constexpr std::array kTinyModels = {
    "llama",          "llama3",    "llama_linear", "llama_yarn",    "mistral",      "qwen2",
    "qwen2_yarn",     "qwen3",     "gemma3",       "gemma3_scaled", "phi3",         "phi3_long",
    "phi3_short",     "mixtral",   "qwen2moe",     "qwen3moe",      "olmoe",        "deepseek2",
    "deepseek2_lite", "deepseek3", "gpt_oss",      "gemma3n",       "gemma3n_three"};

struct TinyModel {
  nlohmann::json json;        ///< see tests/golden/models/make.py
  std::vector<float> golden;  ///< per row of json["rows"]: [layers][d_model], then [vocab]
};

inline TinyModel read_tiny_model(const std::string& name) {
  const std::string stem = std::string(METE_GOLDEN_DIR) + "/models/" + name;
  TinyModel model;
  std::ifstream(stem + ".json") >> model.json;
  std::ifstream data(stem + ".bin", std::ios::binary | std::ios::ate);
  model.golden.resize(static_cast<size_t>(data.tellg()) / 4);
  data.seekg(0);
  data.read(reinterpret_cast<char*>(model.golden.data()),
            static_cast<std::streamsize>(model.golden.size() * 4));
  return model;
}

/// Element i: offset + scale * uniform[-1, 1), rounded to float16; the hash is SplitMix64 of (name, i).
inline std::vector<float> tiny_weights(std::string_view name, int64_t n, float scale, float offset) {
  uint64_t seed = 0xcbf29ce484222325u;  // FNV-1a
  for (const char c : name) seed = (seed ^ static_cast<uint8_t>(c)) * 0x100000001b3u;
  std::vector<float> out(static_cast<size_t>(n));
  for (size_t i = 0; i < out.size(); ++i) {
    uint64_t z = seed + 0x9e3779b97f4a7c15u * (i + 1);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    z ^= z >> 31;
    const float unit = static_cast<float>(z >> 40) * 0x1p-23f - 1.0f;
    const float scaled = scale * unit;
    out[i] = to_float(to_half(offset + scaled));
  }
  return out;
}

inline void set_metadata(GgufWriter& writer, const std::string& key, const nlohmann::json& typed) {
  const std::string type = typed[0];
  const nlohmann::json& value = typed[1];
  if (type == "u32") writer.set(key, value.get<uint32_t>());
  if (type == "f32") writer.set(key, value.get<float>());
  if (type == "f32bits") writer.set(key, std::bit_cast<float>(value.get<uint32_t>()));  // NaN, infinities
  if (type == "bool") writer.set(key, value.get<bool>());
  if (type == "str") writer.set(key, std::string_view(value.get_ref<const std::string&>()));
  if (type == "[str]") writer.set_array(key, value.get<std::vector<std::string>>());
  if (type == "[f32]") writer.set_array(key, value.get<std::vector<float>>());
  if (type == "[f32bits]") {
    std::vector<float> floats;
    for (const uint32_t bits : value.get<std::vector<uint32_t>>())
      floats.push_back(std::bit_cast<float>(bits));
    writer.set_array(key, floats);
  }
  if (type == "[i32]") writer.set_array(key, value.get<std::vector<int32_t>>());
}

/// Matrices whose rows are whole blocks of `type` are stored in it, others in F16; vectors in F32.
inline std::vector<uint8_t> tiny_model_gguf(const nlohmann::json& json, DType type) {
  GgufWriter writer;
  for (const auto& [key, value] : json["metadata"].items()) set_metadata(writer, key, value);
  for (const auto& tensor : json["tensors"]) {
    const std::string name = tensor["name"];
    if (tensor.contains("values")) {
      const auto values = tensor["values"].get<std::vector<float>>();
      std::vector<uint8_t> raw(values.size() * 4);
      std::memcpy(raw.data(), values.data(), raw.size());
      std::vector<int64_t> shape = {static_cast<int64_t>(values.size())};
      if (tensor.contains("dims")) shape = tensor["dims"].get<std::vector<int64_t>>();
      writer.tensor(name, DType::kF32, shape, raw);
      continue;
    }
    const auto dims = tensor["dims"].get<std::vector<int64_t>>();
    const int64_t cols = dims[0],
                  rows = std::accumulate(dims.begin() + 1, dims.end(), int64_t{1}, std::multiplies<>());
    const std::vector<float> values =
        tiny_weights(name, rows * cols, tensor["scale"].get<float>(), tensor["offset"].get<float>());
    DType stored = dims.size() == 1 || name.ends_with(".bias") ? DType::kF32 : type;
    if (cols % info(stored).block != 0) stored = DType::kF16;
    std::vector<uint8_t> raw(row_bytes(stored, cols) * static_cast<size_t>(rows));
    for (int64_t r = 0; r < rows; ++r) {
      quantize_row(stored, values.data() + r * cols,
                   raw.data() + row_bytes(stored, cols) * static_cast<size_t>(r), cols);
    }
    writer.tensor(name, stored, dims, raw);
  }
  return writer.bytes();
}

inline std::vector<uint8_t> named_tiny_model_gguf(const std::string& name, DType type) {
  return tiny_model_gguf(read_tiny_model(name).json, type);
}

}  // namespace mete::testing
