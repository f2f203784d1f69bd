// mete inspect: what a model file holds, and what this CPU would run it with.
#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>

#include "apps/args.h"
#include "apps/commands.h"
#include "base/cpu.h"
#include "format/gguf.h"
#include "format/hub_cache.h"
#include "quant/pack.h"

namespace mete {
namespace {

using Json = nlohmann::ordered_json;

struct InspectOptions {
  std::string model;
  bool json = false;
  bool print_cpu = false;
  bool full = false;  ///< whole arrays and strings

  uint64_t shown_elements(uint64_t count) const { return full ? count : std::min<uint64_t>(count, 8); }
};

struct TypeTotal {
  int64_t tensors = 0, elements = 0;
  uint64_t bytes = 0;
};

struct Totals {
  std::map<DType, TypeTotal> types;
  int64_t elements = 0;
  uint64_t bytes = 0, packed_bytes = 0;
};

Totals add_up(const GgufFile& file) {
  Totals totals;
  for (const GgufTensor& t : file.tensors()) {
    const int64_t elements = t.cols() * t.rows();
    TypeTotal& type = totals.types[t.type];
    ++type.tensors;
    type.elements += elements;
    type.bytes += t.bytes;
    totals.elements += elements;
    totals.bytes += t.bytes;
    // Vectors (norms, biases) stay rows of float32; matrices become panels.
    const uint64_t panels = static_cast<uint64_t>(panel_count(t.rows())) * panel_bytes(t.type, t.cols());
    totals.packed_bytes += t.n_dims == 1 ? static_cast<uint64_t>(elements) * sizeof(float) : panels;
  }
  return totals;
}

/// For a terminal: control characters and bytes outside ASCII of an untrusted string are escaped.
std::string quoted(std::string_view text, bool full) {
  constexpr size_t kShown = 96;
  std::string out = "\"";
  for (const char c : full ? text : text.substr(0, kShown)) {
    if (c == '\n') {
      out += "\\n";
    } else if (c == '"' || c == '\\') {
      out += fmt::format("\\{}", c);
    } else if (c >= 0x20 && c <= 0x7e) {
      out += c;
    } else {
      out += fmt::format("\\x{:02x}", static_cast<uint8_t>(c));
    }
  }
  if (!full && text.size() > kShown) return out + fmt::format("\"... ({} bytes)", text.size());
  return out + "\"";
}

std::string element_text(const GgufValue& value, uint64_t i, bool full) {
  if (value.element == GgufValueType::kString) return quoted(value.strings[i], full);
  if (value.element == GgufValueType::kBool) return value.integer(i) != 0 ? "true" : "false";
  if (value.element == GgufValueType::kF32) return fmt::format("{}", static_cast<float>(value.number(i)));
  if (value.element == GgufValueType::kU64) return fmt::format("{}", value.unsigned_integer(i));
  if (value.is_integer()) return fmt::format("{}", value.integer(i));
  return fmt::format("{}", value.number(i));
}

std::string value_text(const GgufValue& value, const InspectOptions& options) {
  if (value.type != GgufValueType::kArray) return element_text(value, 0, options.full);
  std::string text = "[";
  const uint64_t shown = options.shown_elements(value.count);
  for (uint64_t i = 0; i < shown; ++i) text += (i == 0 ? "" : ", ") + element_text(value, i, options.full);
  return text + (shown < value.count ? ", ...]" : "]");
}

std::string type_text(const GgufValue& value) {
  if (value.type != GgufValueType::kArray) return name(value.type);
  return fmt::format("{}[{}]", name(value.element), value.count);
}

Json element_json(const GgufValue& value, uint64_t i) {
  if (value.element == GgufValueType::kString) return std::string(value.strings[i]);
  if (value.element == GgufValueType::kBool) return value.integer(i) != 0;
  if (value.element == GgufValueType::kU64) return value.unsigned_integer(i);
  if (value.is_integer()) return value.integer(i);
  const double x = value.number(i);
  return std::isfinite(x) ? Json(x) : Json(fmt::format("{}", x));  // JSON has no NaN
}

Json value_json(const GgufValue& value, const InspectOptions& options) {
  Json out{{"type", name(value.type)}};
  if (value.type != GgufValueType::kArray) {
    out["value"] = element_json(value, 0);
    return out;
  }
  out["element"] = name(value.element);
  out["count"] = value.count;
  Json list = Json::array();
  for (uint64_t i = 0; i < options.shown_elements(value.count); ++i) list.push_back(element_json(value, i));
  out["value"] = std::move(list);
  return out;
}

Json shape_json(const GgufTensor& tensor) {
  return std::vector<int64_t>(tensor.dims.begin(), tensor.dims.begin() + tensor.n_dims);
}

Json cpu_json() {
  Json tiers = Json::array();
  for (int i = 0; i < kCpuTierCount; ++i) {
    const CpuTier tier = static_cast<CpuTier>(i);
    tiers.push_back(
        {{"name", name(tier)}, {"needs", required_features(tier)}, {"supported", supported(tier)}});
  }
  return {{"model", cpu_model_name()},
          {"usable_cpus", usable_cpus()},
          {"tier", name(choose_cpu_tier())},
          {"tiers", tiers}};
}

void print_cpu() {
  const CpuTier chosen = choose_cpu_tier();  // may throw: before anything is printed
  fmt::print("cpu          {}\n", cpu_model_name());
  fmt::print("usable cpus  {}\n", usable_cpus());
  fmt::print("tier         {}\n\n", name(chosen));
  fmt::print("{:<12}  {:<9}  {}\n", "tier", "runs here", "needs");
  for (int i = 0; i < kCpuTierCount; ++i) {
    const CpuTier tier = static_cast<CpuTier>(i);
    fmt::print("{:<12}  {:<9}  {}\n", name(tier), supported(tier) ? "yes" : "no", required_features(tier));
  }
}

double bits_per_weight(const TypeTotal& total) {
  return 8.0 * static_cast<double>(total.bytes) / static_cast<double>(total.elements);
}

Json model_json(const GgufFile& file, const InspectOptions& options) {
  const Totals totals = add_up(file);
  Json out{{"paths", file.paths()},           {"version", file.version()},
           {"file_bytes", file.file_bytes()}, {"parameters", totals.elements},
           {"tensor_bytes", totals.bytes},    {"packed_bytes", totals.packed_bytes}};
  Json& metadata = out["metadata"] = Json::object();
  for (const auto& [key, value] : file.metadata().all()) metadata[key] = value_json(value, options);
  Json& types = out["types"] = Json::array();
  for (const auto& [type, total] : totals.types) {
    types.push_back({{"type", name(type)},
                     {"tensors", total.tensors},
                     {"elements", total.elements},
                     {"bytes", total.bytes},
                     {"bits_per_weight", bits_per_weight(total)}});
  }
  Json& tensors = out["tensors"] = Json::array();
  for (const GgufTensor& t : file.tensors()) {
    tensors.push_back({{"name", t.name},
                       {"type", name(t.type)},
                       {"shape", shape_json(t)},
                       {"bytes", t.bytes},
                       {"part", t.part},
                       {"offset", t.offset}});
  }
  return out;
}

void print_model(const GgufFile& file, const InspectOptions& options) {
  const Totals totals = add_up(file);
  for (const std::string& path : file.paths()) fmt::print("file          {}\n", path);
  fmt::print("format        GGUF v{}, {} bytes\n", file.version(), file.file_bytes());
  fmt::print("parameters    {}\n", totals.elements);
  fmt::print("tensor bytes  {} ({} packed in memory)\n", totals.bytes, totals.packed_bytes);

  fmt::print("\nmetadata ({})\n", file.metadata().all().size());
  for (const auto& [key, value] : file.metadata().all()) {
    fmt::print("  {:<42}  {:<14}  {}\n", key, type_text(value), value_text(value, options));
  }
  fmt::print("\ntensors ({})\n", file.tensors().size());
  for (const GgufTensor& t : file.tensors()) {
    fmt::print("  {:<42}  {:<8}  {:>12}  {}\n", t.name, name(t.type), t.bytes, shape_json(t).dump());
  }
  fmt::print("\n  {:<8}  {:>8}  {:>14}  {:>14}  {:>8}\n", "type", "tensors", "elements", "bytes", "bits");
  for (const auto& [type, total] : totals.types) {
    fmt::print("  {:<8}  {:>8}  {:>14}  {:>14}  {:>8.4f}\n", name(type), total.tensors, total.elements,
               total.bytes, bits_per_weight(total));
  }
}

/// False if help was printed.
/// Exit code if the command is over, else -1.
int read_options(const std::vector<std::string>& args, InspectOptions* options) {
  CLI::App app("What a model file holds.", "inspect");
  app.add_option("FILE,-m,--model", options->model,
                 "GGUF file, or org/name[:file] in the Hugging Face hub cache");
  app.add_flag("--json", options->json, "one JSON object");
  app.add_flag("--full", options->full, "whole arrays and strings");
  app.add_flag("--print-cpu", options->print_cpu, "CPU tiers, what they need, and the one that would run");
  if (const int code = parse(app, args); code >= 0) return code;
  if (options->model.empty() && !options->print_cpu) throw bad_usage("no FILE given, expected a GGUF file");
  if (options->model.empty() && options->full) throw bad_usage("--full has no effect without a FILE");
  return -1;
}

}  // namespace

int cmd_inspect(const std::vector<std::string>& args) {
  InspectOptions options;
  if (const int code = read_options(args, &options); code >= 0) return code;
  Json out = Json::object();
  if (!options.model.empty()) {
    const GgufFile file = GgufFile::open(resolve_model_path(options.model).value()).value();
    if (options.json) out = model_json(file, options);
    if (!options.json) print_model(file, options);
  }
  if (options.print_cpu && options.json) out["cpu"] = cpu_json();
  if (options.print_cpu && !options.json) {
    if (!options.model.empty()) fmt::print("\n");
    print_cpu();
  }
  // Tokens need not be valid UTF-8; JSON must be.
  if (options.json) fmt::print("{}\n", out.dump(2, ' ', false, Json::error_handler_t::replace));
  return 0;
}

}  // namespace mete
