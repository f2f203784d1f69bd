#include "models/config.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "kernels/cpu/scalar_math.h"

namespace mete {
namespace {

/// Keys of arithmetic that no model here performs, with the value that means "off".
struct ForeignKey {
  const char* name;
  double neutral;
};
constexpr ForeignKey kForeignKeys[] = {
    {"expert_count", 0},
    {"expert_group_count", 1},
    {"expert_group_used_count", 1},
    {"expert_gating_func", 1},
    {"leading_dense_block_count", 0},
    {"interleave_moe_layer_step", 1},
    {"moe_every_n_layers", 1},
    {"attention.max_alibi_bias", 0},
    {"attention.clamp_kqv", 0},
    {"attention.temperature_scale", 0},
    {"attention.output_scale", 1},
    {"attention.value_scale", 1},
    {"attention.shared_kv_layers", 0},
    {"attention.q_lora_rank", 0},
    {"attention.kv_lora_rank", 0},
    {"logit_scale", 1},
    {"residual_scale", 1},
    {"embedding_scale", 1},
    {"rope.scaling.alpha", 0},
};

}  // namespace

ArchKeys::ArchKeys(const GgufMetadata& metadata, std::string arch,
                   std::initializer_list<std::string_view> supported)
    : metadata_(metadata), arch_(std::move(arch)) {
  for (const ForeignKey& foreign : kForeignKeys) {
    if (std::find(supported.begin(), supported.end(), foreign.name) != supported.end()) continue;
    const GgufValue* value = metadata_.find(key(foreign.name));
    if (value == nullptr) continue;
    const double found = value->type == GgufValueType::kArray || !value->is_number() ? NAN : value->number();
    if (found == foreign.neutral || found == 0) continue;
    throw bad_model("key \"{}\" is {}, which is not supported yet", key(foreign.name), found);
  }
  if (!metadata_.boolean_or(key("attention.causal"), true).value()) {
    throw bad_model("key \"{}\" is false, which is not supported yet", key("attention.causal"));
  }
}

int64_t ArchKeys::integer(std::string_view name, int64_t min, int64_t max) const {
  return metadata_.integer(key(name), min, max).value();
}

int64_t ArchKeys::integer_or(std::string_view name, int64_t fallback, int64_t min, int64_t max) const {
  return has(name) ? integer(name, min, max) : fallback;
}

int64_t ArchKeys::uniform_integer(std::string_view name, int64_t layers, int64_t min, int64_t max) const {
  const GgufValue* value = metadata_.find(key(name));
  if (value == nullptr || value->type != GgufValueType::kArray) return integer(name, min, max);
  const std::vector<int64_t> all = metadata_.integers(key(name)).value();
  if (static_cast<int64_t>(all.size()) != layers) {
    throw bad_model("key \"{}\" is an array of {}, expected one number for each of {} layers", key(name),
                    all.size(), layers);
  }
  for (const int64_t n : all) {
    if (n != all[0] || n < min || n > max) {
      throw bad_model("key \"{}\" holds {} and {}, expected one number from {} to {} for all layers",
                      key(name), all[0], n, min, max);
    }
  }
  return all[0];
}

double ArchKeys::number(std::string_view name, double min, double max) const {
  const double x = metadata_.number(key(name)).value();
  if (!(x >= min && x <= max)) {
    throw bad_model("key \"{}\" is {}, expected {} to {}", key(name), x, min, max);
  }
  return x;
}

double ArchKeys::number_or(std::string_view name, double fallback, double min, double max) const {
  return has(name) ? number(name, min, max) : fallback;
}

std::string ArchKeys::string_or(std::string_view name, std::string_view fallback) const {
  return std::string(metadata_.string_or(key(name), fallback).value());
}

ModelConfig read_shape(const ArchKeys& keys) {
  ModelConfig c;
  c.arch = keys.arch();
  c.layers = keys.integer("block_count", 1, 1024);
  c.kv_layers = c.layers;
  c.d_model = keys.integer("embedding_length", 1, 1 << 18);
  c.ffn = keys.uniform_integer("feed_forward_length", c.layers, 1, 1 << 20);
  c.context_train = keys.integer("context_length", 1, int64_t{1} << 30);
  c.heads = keys.integer("attention.head_count", 1, 1024);
  c.kv_heads = keys.integer_or("attention.head_count_kv", c.heads, 1, 1024);
  if (c.heads % c.kv_heads != 0) {
    throw bad_model("key \"{}\" is {}, expected a divisor of the {} query heads",
                    keys.key("attention.head_count_kv"), c.kv_heads, c.heads);
  }
  if (keys.has("attention.key_length")) {
    c.head_dim = keys.integer("attention.key_length", 2, 1024);
  } else if (c.d_model % c.heads == 0) {
    c.head_dim = c.d_model / c.heads;
  } else {
    throw bad_model("key \"{}\" is {}, expected a divisor of the embedding length {}",
                    keys.key("attention.head_count"), c.heads, c.d_model);
  }
  if (c.head_dim > 1024 || c.head_dim % 2 != 0) {
    throw bad_model("head dimension is {}, expected an even number up to 1024", c.head_dim);
  }
  c.value_dim = c.head_dim;
  const int64_t value_length = keys.integer_or("attention.value_length", c.head_dim, 1, 1 << 20);
  if (value_length != c.head_dim && c.arch != "deepseek2") {  // whose values are latents
    throw bad_model("key \"{}\" is {}, expected the key length {}", keys.key("attention.value_length"),
                    value_length, c.head_dim);
  }
  const auto tokens = static_cast<int64_t>(keys.metadata().strings("tokenizer.ggml.tokens").value().size());
  if (tokens < 1 || tokens > 1 << 24) {
    throw bad_model("key \"tokenizer.ggml.tokens\" has {} tokens, expected 1 to {}", tokens, 1 << 24);
  }
  c.vocab = keys.integer_or("vocab_size", tokens, 1, 1 << 24);
  if (c.vocab != tokens) {
    throw bad_model("key \"{}\" is {}, expected the {} tokens of \"tokenizer.ggml.tokens\"",
                    keys.key("vocab_size"), c.vocab, tokens);
  }
  return c;
}

RouterParams read_router(const ArchKeys& keys, const ModelConfig& config, bool normalise,
                         ExpertDeclaration* experts) {
  experts->experts = keys.integer("expert_count", 1, kMaxExperts);
  experts->used = keys.integer("expert_used_count", 1, std::min(experts->experts, kMaxExpertsUsed));
  experts->d_model = config.d_model;
  experts->ffn = keys.integer_or("expert_feed_forward_length", config.ffn, 1, 1 << 20);
  RouterParams router;
  router.experts = experts->experts;
  router.used = experts->used;
  router.normalise = keys.metadata().boolean_or(keys.key("expert_weights_norm"), normalise).value();
  router.scale = static_cast<float>(keys.number_or("expert_weights_scale", 1.0, 0.0, 1e6));
  if (router.scale == 0.0f) router.scale = 1;  // as llama.cpp: not set
  return router;
}

float read_rms_epsilon(const ArchKeys& keys) {
  return static_cast<float>(keys.number("attention.layer_norm_rms_epsilon", 1e-30, 1));
}

std::vector<int32_t> read_windows(const ArchKeys& keys, int64_t layers, int64_t pattern) {
  const auto window =
      static_cast<int32_t>(keys.integer_or("attention.sliding_window", 0, 0, int64_t{1} << 30));
  std::vector<int32_t> windows(static_cast<size_t>(layers), 0);
  if (window == 0) return windows;
  constexpr const char* kPattern = "attention.sliding_window_pattern";
  const GgufValue* stored = keys.metadata().find(keys.key(kPattern));
  if (stored != nullptr && stored->type == GgufValueType::kArray) {  // one flag per layer: does it slide?
    const bool flags = stored->element == GgufValueType::kBool || stored->is_integer();
    if (!flags || stored->count != static_cast<uint64_t>(layers)) {
      throw bad_model("key \"{}\" is an array of {} {}, expected {} flags", keys.key(kPattern), stored->count,
                      name(stored->element), layers);
    }
    for (size_t i = 0; i < windows.size(); ++i) windows[i] = stored->integer(i) != 0 ? window : 0;
    return windows;
  }
  const int64_t n = keys.integer_or(kPattern, pattern, 0, 1024);
  for (int64_t i = 0; i < layers; ++i) {
    if (n == 0 || i % n < n - 1) windows[static_cast<size_t>(i)] = window;
  }
  return windows;
}

void refuse_sliding_window(const ArchKeys& keys) {
  const int64_t window = keys.integer_or("attention.sliding_window", 0, 0, int64_t{1} << 30);
  if (window != 0) {
    throw bad_model("key \"{}\" is {}, which is not supported yet", keys.key("attention.sliding_window"),
                    window);
  }
}

double read_rope_base(const ArchKeys& keys, std::string_view name) {
  return keys.number_or(name, 10000.0, 2.0, 1e12);
}

RopeConfig read_rope(const ArchKeys& keys, const ModelConfig& config, RopeKind kind, bool longrope) {
  RopeConfig rope;
  rope.neox = kind == RopeKind::kNeox;
  rope.dim = keys.integer_or("rope.dimension_count", config.head_dim, 2, config.head_dim);
  if (rope.dim % 2 != 0) {
    throw bad_model("key \"{}\" is {}, expected an even number", keys.key("rope.dimension_count"), rope.dim);
  }
  rope.base = read_rope_base(keys, "rope.freq_base");
  rope.original_context =
      keys.integer_or("rope.scaling.original_context_length", config.context_train, 1, int64_t{1} << 30);
  double factor = keys.number_or("rope.scale_linear", 1.0, 0.0, 1e6);
  factor = keys.number_or("rope.scaling.factor", factor, 0.0, 1e6);
  if (factor == 0.0) factor = 1.0;
  if (factor < 0.5) {  // sin_cos takes angles up to 2^22, positions go to 2^20
    throw bad_model("key \"{}\" is {}, expected 0.5 to 1e6", keys.key("rope.scaling.factor"), factor);
  }
  rope.magnitude = keys.number_or("rope.scaling.attn_factor", 1.0, 1e-3, 1e3);
  // A factor without a type scales linearly.
  const std::string type = keys.string_or("rope.scaling.type", "linear");
  if (type == "none" || (type == "longrope" && longrope)) return rope;
  if (type == "linear") {
    if (factor != 1.0) rope.scaling = RopeScaling::kLinear;
    rope.factor = factor;
    return rope;
  }
  if (type != "yarn") {
    throw bad_model("key \"{}\" is \"{}\", expected none, linear{} or yarn", keys.key("rope.scaling.type"),
                    type, longrope ? ", longrope" : "");
  }
  rope.scaling = RopeScaling::kYarn;
  rope.factor = factor;
  rope.yarn_ext_factor = keys.number_or("rope.scaling.yarn_ext_factor", 1.0, 0.0, 1.0);
  rope.yarn_beta_fast = keys.number_or("rope.scaling.yarn_beta_fast", 32.0, 1e-3, 1e6);
  rope.yarn_beta_slow = keys.number_or("rope.scaling.yarn_beta_slow", 1.0, 1e-3, 1e6);
  // RopeTable multiplies by 1 + 0.1 ln(factor), the paper's choice; a file may replace that, or divide it by
  // the same with a log multiplier.
  const double log_factor = factor > 1.0 ? log_double(factor) : 0.0;
  const double log_multiplier = keys.number_or("rope.scaling.yarn_log_multiplier", 0.0, 0.0, 100.0);
  const double wanted =
      keys.number_or("rope.scaling.yarn_attn_factor",
                     (1.0 + 0.1 * log_factor) / (1.0 + 0.1 * log_multiplier * log_factor), 1e-3, 1e3);
  const double applied = rope.yarn_ext_factor != 0.0 ? 1.0 + 0.1 * log_double(factor) : 1.0;
  rope.yarn_attn_factor = wanted / applied;
  return rope;
}

}  // namespace mete
