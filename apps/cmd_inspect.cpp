// mete inspect: what a model file holds, and what this CPU would run it with.
#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>

#include "apps/args.h"
#include "apps/commands.h"
#include "apps/routing.h"
#include "base/cpu.h"
#include "format/gguf.h"
#include "format/hub_cache.h"
#include "models/model.h"
#include "quant/activation.h"

namespace mete {
namespace {

using Json = nlohmann::ordered_json;

struct InspectOptions {
  std::string model;
  bool json = false;
  bool print_cpu = false;
  bool full = false;  ///< whole arrays and strings
  RoutingArgs routing;

  uint64_t shown_elements(uint64_t count) const { return full ? count : std::min<uint64_t>(count, 8); }
};

template <typename... Args>
void add(std::string& out, fmt::format_string<Args...> format, Args&&... args) {
  out += fmt::format(format, std::forward<Args>(args)...);
}

struct TypeTotal {
  int64_t tensors = 0, elements = 0;
  uint64_t bytes = 0;
};

struct Totals {
  std::map<DType, TypeTotal> types;
  int64_t elements = 0;
  uint64_t bytes = 0;
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

std::string cpu_text() {
  std::string out;
  const CpuTier chosen = choose_cpu_tier();  // may throw: before anything is printed
  add(out, "cpu          {}\n", cpu_model_name());
  add(out, "usable cpus  {}\n", usable_cpus());
  add(out, "tier         {}\n\n", name(chosen));
  add(out, "{:<12}  {:<9}  {}\n", "tier", "runs here", "needs");
  for (int i = 0; i < kCpuTierCount; ++i) {
    const CpuTier tier = static_cast<CpuTier>(i);
    add(out, "{:<12}  {:<9}  {}\n", name(tier), supported(tier) ? "yes" : "no", required_features(tier));
  }
  return out;
}

const char* activation_text(DType type) {
  switch (activation_kind(type)) {
    case ActivationKind::kQ8_16:
      return "int8, blocks of 16";
    case ActivationKind::kQ8_K:
      return "int8, blocks of 32";
    default:
      return "float32";
  }
}

/// What the engine would do with the model, or why it cannot run it.
Json engine_json(const GgufFile& file, const Totals& totals) {
  ModelConfig c;
  try {
    c = read_model_config(file);
  } catch (const Error& error) {
    return {{"runs", false}, {"reason", error.message()}};
  }
  const int64_t windowed = std::count_if(c.windows.begin(), c.windows.end(), [](int32_t w) { return w > 0; });
  const int32_t window = c.windows.empty() ? 0 : *std::max_element(c.windows.begin(), c.windows.end());
  Json activations = Json::object();
  for (const auto& [type, total] : totals.types) activations[name(type)] = activation_text(type);
  return {{"runs", true},
          {"architecture", c.arch},
          {"cpu_tier", name(choose_cpu_tier())},
          {"layers", c.layers},
          {"d_model", c.d_model},
          {"ffn", c.ffn},
          {"heads", c.heads},
          {"kv_heads", c.kv_heads},
          {"head_dim", c.head_dim},
          {"vocab", c.vocab},
          {"context_train", c.context_train},
          {"windowed_layers", windowed},
          {"window", window},
          {"expert_layers", c.experts.layers.size()},
          {"experts", c.experts.experts},
          {"experts_used", c.experts.used},
          {"expert_bytes", c.expert_bytes},
          {"weight_bytes", c.weight_bytes},
          {"weight_bytes_read_per_token", c.bytes_per_token},
          {"macs_per_token", c.macs_per_token + c.macs_per_logits},
          {"kv_bytes_per_token_f16",
           c.kv_layers * c.kv_heads * (c.head_dim + (c.value_in_key ? 0 : c.value_dim)) * 2},
          {"activations", activations}};
}

double bits_per_weight(const TypeTotal& total) {
  return 8.0 * static_cast<double>(total.bytes) / static_cast<double>(total.elements);
}

Json model_json(const GgufFile& file, const InspectOptions& options) {
  const Totals totals = add_up(file);
  Json out{{"paths", file.paths()},
           {"version", file.version()},
           {"file_bytes", file.file_bytes()},
           {"parameters", totals.elements},
           {"tensor_bytes", totals.bytes}};
  out["engine"] = engine_json(file, totals);
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

std::string model_text(const GgufFile& file, const InspectOptions& options) {
  std::string out;
  const Totals totals = add_up(file);
  for (const std::string& path : file.paths()) add(out, "file          {}\n", path);
  add(out, "format        GGUF v{}, {} bytes\n", file.version(), file.file_bytes());
  add(out, "parameters    {}\n", totals.elements);
  add(out, "tensor bytes  {}\n", totals.bytes);

  add(out, "\nmetadata ({})\n", file.metadata().all().size());
  for (const auto& [key, value] : file.metadata().all()) {
    add(out, "  {:<42}  {:<14}  {}\n", key, type_text(value), value_text(value, options));
  }
  add(out, "\ntensors ({})\n", file.tensors().size());
  for (const GgufTensor& t : file.tensors()) {
    add(out, "  {:<42}  {:<8}  {:>12}  {}\n", t.name, name(t.type), t.bytes, shape_json(t).dump());
  }
  add(out, "\n  {:<8}  {:>8}  {:>14}  {:>14}  {:>8}\n", "type", "tensors", "elements", "bytes", "bits");
  for (const auto& [type, total] : totals.types) {
    add(out, "  {:<8}  {:>8}  {:>14}  {:>14}  {:>8.4f}\n", name(type), total.tensors, total.elements,
        total.bytes, bits_per_weight(total));
  }
  const Json engine = engine_json(file, totals);
  add(out, "\nengine\n");
  for (const auto& [key, value] : engine.items()) {
    add(out, "  {:<28}  {}\n", key,
        value.is_string() ? quoted(value.get<std::string>(), true) : value.dump());
  }
  return out;
}

/// False if help was printed.
/// Exit code if the command is over, else -1.
int read_options(const std::vector<std::string>& args, InspectOptions* options) {
  CLI::App app("What a model file holds, and what the engine would do with it.", "mete inspect");
  app.add_option("FILE,-m,--model", options->model,
                 "GGUF file, or org/name[:file] in the Hugging Face hub cache");
  app.add_flag("--json", options->json, "one JSON object");
  app.add_flag("--full", options->full, "whole arrays and strings");
  app.add_flag("--print-cpu", options->print_cpu, "CPU tiers, what they need, and the one that would run");
  options->routing.add_to(app);
  if (const int code = parse(app, args); code >= 0) return code;
  options->routing.finish();
  if (options->model.empty() && !options->print_cpu) throw bad_usage("no FILE given, expected a GGUF file");
  if (options->model.empty() && options->full) throw bad_usage("--full has no effect without a FILE");
  return -1;
}

}  // namespace

int cmd_inspect(const std::vector<std::string>& args) {
  InspectOptions options;
  if (const int code = read_options(args, &options); code >= 0) return code;
  if (options.routing.wanted()) {
    if (options.json || options.full || options.print_cpu || options.model.empty()) {
      throw bad_usage("--routing: expected a FILE, and none of --json, --full, --print-cpu");
    }
    record_routing(options.model, options.routing);
    return std::fflush(stdout) == 0 ? 0 : 1;
  }
  Json json = Json::object();
  std::string text;
  if (!options.model.empty()) {
    const GgufFile file = GgufFile::open(resolve_model_path(options.model).value()).value();
    if (options.json) json = model_json(file, options);
    if (!options.json) text = model_text(file, options);
  }
  if (options.print_cpu && options.json) json["cpu"] = cpu_json();
  if (options.print_cpu && !options.json) text += (text.empty() ? "" : "\n") + cpu_text();
  // Tokens need not be valid UTF-8; JSON must be.
  if (options.json) text = json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
  const bool written = std::fwrite(text.data(), 1, text.size(), stdout) == text.size();
  return written && std::fflush(stdout) == 0 ? 0 : 1;
}

}  // namespace mete
