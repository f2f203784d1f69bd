#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

#include "sample/order.h"
#include "server/generation.h"
#include "text/tokenizer.h"

namespace mete {
namespace {

constexpr double kAny = 1e30;
constexpr int64_t kHuge = int64_t{1} << 31;

/// {"token id": bias} as OpenAI has it, or [[id, bias or false], ...] as llama-server has it; a text in the
/// place of an id is each of its tokens.
void read_logit_bias(Fields& fields, const ApiDefaults& defaults, SamplingParams& out) {
  const char* name = "logit_bias";
  const Json* value = fields.find(name);
  if (value == nullptr) return;
  if (!value->is_object() && !value->is_array())
    return fields.fail(name, *value, "an object of token ids and biases");
  if (value->size() > static_cast<size_t>(kMaxLogitBias)) {
    return fields.fail(name, *value, fmt::format("at most {} entries", kMaxLogitBias));
  }
  const std::string ids =
      fmt::format("token ids from 0 to {}{}", defaults.vocab - 1, defaults.tokenizer ? ", or texts" : "");
  const auto add = [&](int64_t id, const Json& bias, const Json& found) {
    const bool ban = bias.is_boolean() && !bias.get<bool>();
    if (id < 0 || id >= defaults.vocab) return fields.fail(name, found, ids);
    const double x = bias.is_number() ? bias.get<double>() : NAN;
    if (!ban && !(std::abs(x) <= 1e6))
      return fields.fail(name, bias, "biases that are numbers, or false to ban the token");
    out.logit_bias.emplace_back(static_cast<int32_t>(id),
                                ban ? -std::numeric_limits<float>::infinity() : static_cast<float>(x));
  };
  const auto add_text = [&](const std::string& text, const Json& bias) {
    if (defaults.tokenizer == nullptr) return fields.fail(name, text, ids);
    std::vector<int32_t> tokens;
    defaults.tokenizer->encode(text, false, tokens);
    if (tokens.size() >
        static_cast<size_t>(kMaxLogitBias) - std::min(out.logit_bias.size(), size_t{kMaxLogitBias})) {
      return fields.fail(name, *value, fmt::format("at most {} tokens", kMaxLogitBias));
    }
    for (const int32_t id : tokens) add(id, bias, text);
  };
  if (value->is_object()) {
    for (const auto& [key, bias] : value->items()) {
      int64_t id = -1;
      const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
      if (error == std::errc() && end == key.data() + key.size()) {
        add(id, bias, key);
      } else {
        add_text(key, bias);
      }
    }
    return;
  }
  for (const Json& pair : *value) {
    if (pair.is_array() && pair.size() == 2 && pair[0].is_string()) {
      add_text(pair[0].get<std::string>(), pair[1]);
      continue;
    }
    if (!pair.is_array() || pair.size() != 2 || !pair[0].is_number_integer() ||
        (pair[0].is_number_unsigned() && pair[0].get<uint64_t>() > INT32_MAX)) {
      return fields.fail(name, pair, "pairs of a token id and a bias");
    }
    add(pair[0].get<int64_t>(), pair[1], pair[0]);
  }
}

void read_sampler_order(Fields& fields, SamplingParams& out) {
  const char* name = "samplers";
  const Json* value = fields.find(name);
  if (value == nullptr) return;
  std::string text;
  if (value->is_string()) {
    text = value->get<std::string>();
  } else if (value->is_array()) {
    for (const Json& item : *value) {
      if (!item.is_string()) return fields.fail(name, item, "names of samplers");
      if (!text.empty()) text += ';';
      text += item.get<std::string>();
    }
  } else {
    return fields.fail(name, *value, "names of samplers");
  }
  auto order = value->is_string() ? parse_sampler_letters(text) : parse_sampler_order(text);
  if (!order) {
    ApiError error = bad_field(fields.path(name), *value, "names of samplers");
    error.message = fmt::format("samplers: {}", order.error().message());
    return fields.fail(error);
  }
  out.order = *order;
}

void read_seed(Fields& fields, Generation& out) {
  int64_t seed = -2;
  // 2^32 - 1 is how llama-server spells "random".
  fields.read_integer("seed", -1, std::numeric_limits<int64_t>::max(), seed);
  if (seed == -2) return;
  out.random_seed = seed == -1;
  if (seed >= 0) out.sampling.seed = static_cast<uint64_t>(seed);
}

void read_penalties(Fields& fields, SamplingParams& s) {
  fields.read_integer("repeat_last_n", -1, kHuge - 1, s.penalty_last_n);
  fields.read_number("repeat_penalty", 1e-6, 1e6, s.repeat_penalty);
  fields.read_number("presence_penalty", -1e6, 1e6, s.presence_penalty);
  fields.read_number("frequency_penalty", -1e6, 1e6, s.frequency_penalty);
  fields.read_number("dry_multiplier", 0, 1e6, s.dry_multiplier);
  fields.read_number("dry_base", 0, 1e6, s.dry_base);
  fields.read_integer("dry_allowed_length", 0, kHuge - 1, s.dry_allowed_length);
  fields.read_integer("dry_penalty_last_n", -1, kHuge - 1, s.dry_penalty_last_n);
  fields.read_strings("dry_sequence_breakers", 64, s.dry_sequence_breakers);
}

/// Fields of llama-server that mete knows and does not have.
void refuse_llama_fields(Fields& fields) {
  fields.only("id_slot", -1, "-1: any slot may serve a request");
  fields.only("n_keep", 0, "0: a full context ends the generation");
  fields.only("n_discard", 0, "0: a full context ends the generation");
  fields.only("n_indent", 0, "0");
  fields.only("t_max_predict_ms", 0, "0; deadline_ms bounds the time of a request");
  fields.only("lora", Json::array(), "an empty array: there are no adapters");
  fields.only("grammar_lazy", false, "false");
  fields.only("grammar_triggers", Json::array(), "an empty array");
  fields.only("image_data", Json::array(), "an empty array: images are not supported");
  fields.only("adaptive_target", -1.0, "-1: off");
}

}  // namespace

Generation begin_generation(Api api, const ApiDefaults& defaults) {
  Generation out;
  out.api = api;
  out.sampling = defaults.sampling;
  out.random_seed = defaults.random_seed;
  out.max_tokens = defaults.max_tokens;
  return out;
}

void read_sampling(Fields& fields, const ApiDefaults& defaults, Generation& out) {
  SamplingParams& s = out.sampling;
  fields.read_number("temperature", 0, 1e6, s.temperature);
  fields.read_number("dynatemp_range", 0, 1e6, s.dynatemp_range);
  fields.read_number("dynatemp_exponent", 0, 1e6, s.dynatemp_exponent);
  fields.read_integer("top_k", -1, kHuge - 1, s.top_k);
  fields.read_number("top_p", 0, 1, s.top_p);
  fields.read_number("min_p", 0, 1, s.min_p);
  fields.read_number("typical_p", 0, 1, s.typical_p);
  fields.read_number("top_n_sigma", -kAny, kAny, s.top_n_sigma);
  fields.read_number("xtc_probability", 0, 1, s.xtc_probability);
  fields.read_number("xtc_threshold", 0, 1, s.xtc_threshold);
  fields.read_integer("min_keep", 0, kHuge - 1, s.min_keep);
  read_penalties(fields, s);
  fields.read_integer("mirostat", 0, 2, s.mirostat);
  fields.read_number("mirostat_tau", 0, 1e6, s.mirostat_tau);
  fields.read_number("mirostat_eta", 0, 1e6, s.mirostat_eta);
  read_seed(fields, out);
  read_logit_bias(fields, defaults, s);
  read_sampler_order(fields, s);
  fields.read("ignore_eos", out.ignore_eos);
  if (out.ignore_eos) out.banned_ends = defaults.end_tokens;
  fields.read_integer("n", 1, kMaxChoices, out.n);
  fields.read_integer("priority", -1000, 1000, out.priority);
  fields.read_integer("deadline_ms", 1, int64_t{1} << 40, out.deadline_ms);
  fields.read("cache_salt", out.cache_salt);
  fields.read("cache_prompt", out.cache_prompt);
  fields.read("stream", out.stream);
  fields.read("return_tokens", out.return_tokens);
  fields.read("return_progress", out.return_progress);
  fields.read("timings_per_token", out.timings_per_token);
  fields.read("post_sampling_probs", out.post_sampling_probs);
  refuse_llama_fields(fields);
  const Json* options = nullptr;
  fields.read_object("stream_options", options);
  if (options != nullptr) {
    Fields inner(*options, fields.path("stream_options"));
    inner.read("include_usage", out.include_usage);
    inner.find("include_obfuscation");
    if (inner.error()) fields.fail(*inner.error());
    for (std::string& name : inner.unread()) out.ignored_fields.push_back(std::move(name));
  }
}

void read_stops(Fields& fields, const char* name, Generation& out) {
  const Json* value = fields.find(name);
  if (value == nullptr) return;
  if (value->is_string()) {
    out.stops = {value->get<std::string>()};
  } else {
    fields.read_strings(name, static_cast<size_t>(kMaxStops), out.stops);
  }
  for (const std::string& stop : out.stops) {
    if (stop.empty()) fields.fail(name, stop, "strings that are not empty");
  }
}

void read_prompts(Fields& fields, const char* name, const ApiDefaults& defaults, std::vector<Prompt>& out) {
  const Json* value = fields.find(name);
  if (value == nullptr) {
    if (!fields.error()) fields.fail(name, nullptr, "a text, token ids, or an array of them");
    return;
  }
  const auto add_part = [&](const Json& part, Prompt& prompt) {
    if (part.is_string()) return prompt.push_back({part.get<std::string>(), {}});
    if (part.is_object() && part.contains("prompt_string") && part["prompt_string"].is_string() &&
        !part.contains("multimodal_data")) {
      return prompt.push_back({part["prompt_string"].get<std::string>(), {}});
    }
    const bool fits = part.is_number_integer() &&
                      !(part.is_number_unsigned() && part.get<uint64_t>() > static_cast<uint64_t>(INT32_MAX));
    const int64_t id = fits ? part.get<int64_t>() : -1;
    if (id < 0 || id >= defaults.vocab) {
      return fields.fail(name, part, fmt::format("text or token ids from 0 to {}", defaults.vocab - 1));
    }
    if (prompt.empty() || prompt.back().tokens.empty()) prompt.emplace_back();
    prompt.back().tokens.push_back(static_cast<int32_t>(id));
  };
  const auto is_prompt = [](const Json& x) { return x.is_array() || x.is_string() || x.is_object(); };
  const auto add_prompt = [&](const Json& prompt) {
    Prompt parts;
    if (prompt.is_array()) {
      for (const Json& part : prompt) add_part(part, parts);
    } else {
      add_part(prompt, parts);
    }
    if (parts.empty()) fields.fail(name, prompt, "a prompt that is not empty");
    out.push_back(std::move(parts));
  };
  // An array that holds a bare number is one prompt; otherwise every element is a prompt.
  bool several = value->is_array() && !value->empty();
  if (several) {
    for (const Json& item : *value) several = several && is_prompt(item);
  }
  if (value->is_number()) return fields.fail(name, *value, "a text, token ids, or an array of them");
  if (!several) return add_prompt(*value);
  if (value->size() > static_cast<size_t>(kMaxPrompts)) {
    return fields.fail(name, *value, fmt::format("at most {} prompts", kMaxPrompts));
  }
  for (const Json& prompt : *value) add_prompt(prompt);
}

void read_output_format(Fields& fields, Generation& out) {
  std::string grammar;
  fields.read("grammar", grammar);
  if (!grammar.empty()) out.format = {OutputKind::kGrammar, grammar, fields.path("grammar")};
  const auto schema_of = [&](const Json& schema, const std::string& field) {
    if (!schema.is_object() && !schema.is_boolean())
      return fields.fail(bad_field(field, schema, "a JSON schema"));
    if (out.format.kind != OutputKind::kText) {
      return fields.fail(bad_field(field, schema, fmt::format("one of {} and {}", out.format.field, field)));
    }
    out.format = {OutputKind::kJsonSchema, to_text(schema), field};
  };
  if (const Json* schema = fields.find("json_schema")) schema_of(*schema, fields.path("json_schema"));
  const Json* format = nullptr;
  fields.read_object("response_format", format);
  if (format == nullptr || fields.error()) return;
  const std::string path = fields.path("response_format");
  const auto type = format->find("type");
  if (type == format->end() || !type->is_string()) {
    return fields.fail(bad_field(path + ".type", type == format->end() ? Json(nullptr) : *type,
                                 "text, json_object or json_schema"));
  }
  if (*type == "text") return;
  if (*type == "json_object") {
    if (const auto schema = format->find("schema"); schema != format->end())
      return schema_of(*schema, path + ".schema");
    if (out.format.kind != OutputKind::kText) {
      return fields.fail(bad_field(path, *type, fmt::format("one of {} and {}", out.format.field, path)));
    }
    out.format = {OutputKind::kJsonObject, "", path};
    return;
  }
  if (*type != "json_schema")
    return fields.fail(bad_field(path + ".type", *type, "text, json_object or json_schema"));
  const auto holder = format->find("json_schema");
  if (holder == format->end() || !holder->is_object() || !holder->contains("schema")) {
    return fields.fail(bad_field(path + ".json_schema", holder == format->end() ? Json(nullptr) : *holder,
                                 "an object with a schema"));
  }
  schema_of((*holder)["schema"], path + ".json_schema.schema");
}

}  // namespace mete
