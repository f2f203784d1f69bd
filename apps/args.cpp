#include "apps/args.h"

#include <cstdio>
#include <fstream>
#include <iterator>
#include <random>

#include "sample/order.h"

namespace mete {
namespace {

struct ShortName {
  const char* one_dash;
  const char* long_form;
};
constexpr ShortName kShortNames[] = {
    {"-tb", "--threads-batch"},       {"-ub", "--ubatch-size"},          {"-ctk", "--cache-type-k"},
    {"-ctv", "--cache-type-v"},       {"-sys", "--system-prompt"},       {"-cnv", "--conversation"},
    {"-no-cnv", "--no-conversation"}, {"-sysf", "--system-prompt-file"}, {"-pg", "--prompt-gen"},
};

/// "TOKEN+BIAS" or "TOKEN-BIAS", as llama.cpp writes it; "-inf" bans the token.
std::pair<int32_t, float> parse_logit_bias(const std::string& text) {
  const size_t sign = text.find_first_of("+-", 1);
  try {
    size_t used_id = 0, used_bias = 0;
    const int id = std::stoi(text.substr(0, sign), &used_id);
    const float bias = std::stof(text.substr(sign), &used_bias);
    if (used_id == sign && used_bias == text.size() - sign) return {id, bias};
  } catch (const std::exception&) {
  }
  throw bad_usage("--logit-bias: found '{}', expected TOKEN_ID+BIAS or TOKEN_ID-BIAS", text);
}

KvType kv_codec_option(const char* option, const std::string& text) {
  if (const std::optional<KvType> type = parse_kv_codec(text)) return *type;
  throw bad_usage("{}: found '{}', expected f16, bf16 or q8_0", option, text);
}

}  // namespace

std::vector<std::string> expand_short_names(const std::vector<std::string>& args) {
  std::vector<std::string> out;
  for (const std::string& arg : args) {
    std::string expanded = arg;
    for (const ShortName& s : kShortNames) {
      if (arg == s.one_dash) expanded = s.long_form;
    }
    out.push_back(expanded);
  }
  return out;
}

int parse(CLI::App& app, const std::vector<std::string>& args) {
  std::vector<std::string> reversed = expand_short_names(args);
  std::reverse(reversed.begin(), reversed.end());  // CLI11 consumes from the back
  try {
    app.parse(std::move(reversed));
  } catch (const CLI::CallForHelp&) {
    std::fputs(app.help().c_str(), stdout);
    return 0;
  } catch (const CLI::ParseError& error) {
    std::fprintf(stderr, "mete %s: %s (mete %s --help lists the options)\n", app.get_name().c_str(),
                 error.what(), app.get_name().c_str());
    return 2;
  }
  return -1;
}

void ModelOptions::add_to(CLI::App& app, bool with_context) {
  app.add_option("-m,--model", model, "GGUF file, or org/name of a model in the local Hugging Face hub cache")
      ->required();
  app.add_option("-t,--threads", threads, "threads for one-token steps (default: CPUs this process may use)")
      ->check(CLI::Range(1, 1024));
  app.add_option("--threads-batch", threads_batch,
                 "(-tb) threads for steps of several tokens (default: as -t)")
      ->check(CLI::Range(1, 1024));
  if (with_context) {
    app.add_option("-c,--ctx-size", context, "context in tokens (default 0: what the model was trained with)")
        ->check(CLI::Range(int64_t{0}, int64_t{1} << 20));
  }
  app.add_option("-b,--batch-size", batch, "most prompt tokens per step, as one with -ub")
      ->check(CLI::Range(1, 65536))
      ->capture_default_str();
  app.add_option("--ubatch-size", ubatch, "(-ub) most rows per step; the smaller of -b and -ub counts")
      ->check(CLI::Range(1, 65536))
      ->capture_default_str();
  app.add_option("--cache-type-k", cache_k, "(-ctk) storage of keys: f16, bf16, q8_0")->capture_default_str();
  app.add_option("--cache-type-v", cache_v, "(-ctv) storage of values: f16, bf16, q8_0")
      ->capture_default_str();
}

RuntimeConfig ModelOptions::config() const {
  RuntimeConfig config;
  config.model_path = model;
  config.threads = threads;
  config.threads_batch = threads_batch;
  config.context = context;
  config.max_rows = std::min(batch, ubatch);
  config.key_codec = kv_codec_option("--cache-type-k", cache_k);
  config.value_codec = kv_codec_option("--cache-type-v", cache_v);
  return config;
}

void SamplingOptions::add_to(CLI::App& app) {
  const char* group = "Sampling (llama.cpp's chain and defaults)";
  const auto add = [&](const char* names, auto& value, const char* help) {
    app.add_option(names, value, help)->group(group)->capture_default_str();
  };
  add("-s,--seed", seed, "seed; the same seed gives the same text; -1 draws one and prints it");
  add("--temp,--temperature", params.temperature, "temperature; 0: greedy");
  add("--top-k", params.top_k, "keep the k likeliest; 0: off");
  add("--top-p", params.top_p, "keep the smallest set of this probability; 1: off");
  add("--min-p", params.min_p, "drop what is below this share of the likeliest; 0: off");
  add("--typical,--typical-p", params.typical_p, "locally typical sampling; 1: off");
  add("--top-nsigma,--top-n-sigma", params.top_n_sigma,
      "keep logits within n standard deviations of the top; -1: off");
  add("--xtc-probability", params.xtc_probability, "chance of excluding top choices; 0: off");
  add("--xtc-threshold", params.xtc_threshold, "threshold of a top choice; above 0.5: off");
  add("--repeat-last-n", params.penalty_last_n, "tokens that penalties look at; 0: off, -1: all");
  add("--repeat-penalty", params.repeat_penalty, "penalty for repeated tokens; 1: off");
  add("--presence-penalty", params.presence_penalty, "0: off");
  add("--frequency-penalty", params.frequency_penalty, "0: off");
  add("--dry-multiplier", params.dry_multiplier, "DRY repetition penalty; 0: off");
  add("--dry-base", params.dry_base, "DRY base");
  add("--dry-allowed-length", params.dry_allowed_length, "DRY: repeats up to this length are free");
  add("--dry-penalty-last-n", params.dry_penalty_last_n, "DRY: tokens looked at; 0: off, -1: all");
  app.add_option("--dry-sequence-breaker", dry_breakers,
                 "DRY: replaces the default breakers (newline : \" *); 'none': none")
      ->group(group)
      ->allow_extra_args(false);
  add("--dynatemp-range", params.dynatemp_range, "dynamic temperature: temp +- range; 0: off");
  add("--dynatemp-exp", params.dynatemp_exponent, "dynamic temperature exponent");
  add("--mirostat", params.mirostat, "0: off, 1 or 2; replaces the truncations");
  add("--mirostat-ent", params.mirostat_tau, "mirostat target entropy (tau)");
  add("--mirostat-lr", params.mirostat_eta, "mirostat learning rate (eta)");
  app.add_option("-l,--logit-bias", logit_bias, "TOKEN_ID+BIAS or TOKEN_ID-BIAS, may be repeated; -inf bans")
      ->group(group)
      ->allow_extra_args(false);
  app.add_option("--samplers", samplers, "stages in order, separated by ';'")->group(group);
}

SamplingParams SamplingOptions::finish() const {
  SamplingParams out = params;
  if (seed < -1) throw bad_usage("--seed: found {}, expected -1 or more", seed);
  out.seed = static_cast<uint64_t>(seed);
  if (seed == -1) {
    out.seed = std::random_device{}();
    std::fprintf(stderr, "seed: %llu\n", static_cast<unsigned long long>(out.seed));
  }
  for (const std::string& text : logit_bias) out.logit_bias.push_back(parse_logit_bias(text));
  if (!dry_breakers.empty()) {
    out.dry_sequence_breakers.clear();
    for (const std::string& b : dry_breakers) {
      if (b != "none") out.dry_sequence_breakers.push_back(b);
    }
  }
  if (!samplers.empty()) out.order = parse_sampler_order(samplers).value();
  return out;
}

std::string read_text_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw run_failure("{}: cannot be opened", path);
  std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (file.bad()) throw run_failure("{}: cannot be read", path);
  return text;
}

}  // namespace mete
