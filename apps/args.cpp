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
    {"-tb", "--threads-batch"},
    {"-ub", "--ubatch-size"},
    {"-ctk", "--cache-type-k"},
    {"-ctv", "--cache-type-v"},
    {"-sys", "--system-prompt"},
    {"-cnv", "--conversation"},
    {"-no-cnv", "--no-conversation"},
    {"-sysf", "--system-prompt-file"},
    {"-jf", "--json-schema-file"},
    {"-pg", "--prompt-gen"},
    {"-np", "--parallel"},
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
    std::fprintf(stderr, "%s: %s (%s --help lists the options)\n", app.get_name().c_str(), error.what(),
                 app.get_name().c_str());
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
  experts.add_to(app);
  add_memory_to(app);
}

void ExpertArgs::add_to(CLI::App& app) {
  const char* group = "Experts of a mixture-of-experts model (docs/experts.md)";
  std::vector<const CLI::Option*> of_store;  // read only where experts are streamed
  const auto add = [&](const char* names, auto& value, const char* help) {
    CLI::Option* option = app.add_option(names, value, help)->group(group)->capture_default_str();
    of_store.push_back(option);
    return option;
  };
  const auto by_default = [&](const char* names, auto& value, const char* help) {
    CLI::Option* option = app.add_option(names, value, help)->group(group);
    of_store.push_back(option);
    return option;
  };
  app.add_option("--expert-slots", options.slots_per_layer,
                 "experts of each layer kept in memory, the others are read when needed (default: all)")
      ->group(group)
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20));
  add("--expert-policy", policy, "which experts give up their slots: lru, lfu, lrfu, classlru, learned");
  add("--expert-rule", options.rule_path, "what mete replay --train wrote, for the learned policy");
  add("--expert-pool", pool, "layers: slots of its own for each layer; shared: one pool")
      ->check(CLI::IsMember({"layers", "shared"}));
  by_default("--expert-prefetch", options.prefetch,
             "slots for experts that the next layer's router is guessed to want (default: twice "
             "--expert-io-depth)")
      ->check(CLI::Range(0, 4096));
  add("--expert-pack", options.pack_path, "expert pack that mete pack made of the model");
  add("--expert-io", io, "how experts are read: io_uring, threads, or auto")
      ->check(CLI::IsMember({"auto", "io_uring", "threads"}));
  add("--expert-io-threads", options.threads, "threads that read")->check(CLI::Range(1, 256));
  by_default("--expert-io-depth", options.depth,
             "experts that are read at a time (default: by the profile of mete bench --machine, else 4)")
      ->check(CLI::Range(1, 1024));
  of_store.push_back(
      app.add_flag("--expert-buffered", buffered, "read through the page cache")->group(group));
  app.parse_complete_callback([this, of_store] {
    for (const CLI::Option* option : of_store) {
      if (option->count() > 0 && given_.empty()) given_ = option->get_name(false, false);
    }
  });
}

ExpertOptions ExpertArgs::finish(bool ceiling) const {
  ExpertOptions out = options;
  if (!given_.empty() && !out.streamed() && !ceiling) {
    throw bad_usage("{} has no effect without --expert-slots or --memory", given_);
  }
  out.policy = parse_replace_kind(policy).value();
  if (!out.rule_path.empty() && out.policy != ReplaceKind::kLearned) {
    throw bad_usage("--expert-rule has no effect with --expert-policy {}", policy);
  }
  out.shared = pool == "shared";
  out.way = io == "io_uring" ? ReadWay::kUring : io == "threads" ? ReadWay::kThreads : ReadWay::kAuto;
  out.direct = !buffered;
  return out;
}

void ModelOptions::add_memory_to(CLI::App& app) {
  app.add_option(
      "--memory", memory,
      "ceiling for the whole process, such as 6GiB; auto: what the system and the memory cgroups leave");
  app.add_option("--memory-file", memory_file,
                 "file that holds the ceiling, read at start if --memory is not given, and again at SIGUSR1");
  app.add_option("--embeddings", embeddings,
                 "tables of which a token takes one row: memory; disk: rows are read when they are needed; "
                 "auto: in memory, unless the ceiling is better met without")
      ->check(CLI::IsMember({"auto", "memory", "disk"}))
      ->capture_default_str();
}

int64_t read_memory_file(const std::string& path) {
  std::string text = read_text_file(path);
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  const Result<int64_t> bytes = parse_memory(text);
  if (!bytes) throw bad_usage("{}: {}", path, bytes.error().message());
  return *bytes;
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
  if (!memory.empty()) {
    config.memory_bytes = parse_memory(memory).value();
  } else if (!memory_file.empty()) {
    config.memory_bytes = read_memory_file(memory_file);
  }
  config.experts = experts.finish(config.memory_bytes > 0);
  if (embeddings == "memory") config.embeddings = EmbeddingPlace::kMemory;
  if (embeddings == "disk") config.embeddings = EmbeddingPlace::kDisk;
  return config;
}

void SamplingOptions::add_to(CLI::App& app) {
  const char* group = "Sampling (llama.cpp's chain and defaults)";
  const auto add = [&](const char* names, auto& value, const char* help) {
    CLI::Option* option = app.add_option(names, value, help)->group(group);
    return option->get_expected_max() > 1 ? option->allow_extra_args(false) : option->capture_default_str();
  };
  const auto stage = [&](SamplerStage of, const char* names, auto& value, const char* help) {
    of_stage_.emplace_back(add(names, value, help), of);
  };
  using Stage = SamplerStage;
  add("-s,--seed", seed, "seed; the same seed gives the same text; -1 draws one and prints it");
  add("--temp,--temperature", params.temperature, "temperature; 0: greedy");
  stage(Stage::kTopK, "--top-k", params.top_k, "keep the k likeliest; 0: off");
  stage(Stage::kTopP, "--top-p", params.top_p, "keep the smallest set of this probability; 1: off");
  stage(Stage::kMinP, "--min-p", params.min_p, "drop what is below this share of the likeliest; 0: off");
  stage(Stage::kTypicalP, "--typical,--typical-p", params.typical_p, "locally typical sampling; 1: off");
  stage(Stage::kTopNSigma, "--top-nsigma,--top-n-sigma", params.top_n_sigma,
        "keep logits within n standard deviations of the top; -1: off");
  stage(Stage::kXtc, "--xtc-probability", params.xtc_probability, "chance of excluding top choices; 0: off");
  stage(Stage::kXtc, "--xtc-threshold", params.xtc_threshold, "threshold of a top choice; above 0.5: off");
  stage(Stage::kPenalties, "--repeat-last-n", params.penalty_last_n,
        "tokens that penalties look at; 0: off, -1: all");
  stage(Stage::kPenalties, "--repeat-penalty", params.repeat_penalty, "penalty for repeated tokens; 1: off");
  stage(Stage::kPenalties, "--presence-penalty", params.presence_penalty, "0: off");
  stage(Stage::kPenalties, "--frequency-penalty", params.frequency_penalty, "0: off");
  stage(Stage::kDry, "--dry-multiplier", params.dry_multiplier, "DRY repetition penalty; 0: off");
  stage(Stage::kDry, "--dry-base", params.dry_base, "DRY base");
  stage(Stage::kDry, "--dry-allowed-length", params.dry_allowed_length,
        "DRY: repeats up to this length are free");
  stage(Stage::kDry, "--dry-penalty-last-n", params.dry_penalty_last_n,
        "DRY: tokens looked at; 0: off, -1: all");
  stage(Stage::kDry, "--dry-sequence-breaker", dry_breakers,
        "DRY, may be repeated: replaces the default breakers (newline : \" *); 'none': none");
  add("--dynatemp-range", params.dynatemp_range, "dynamic temperature: temp +- range; 0: off");
  add("--dynatemp-exp", params.dynatemp_exponent, "dynamic temperature exponent");
  add("--mirostat", params.mirostat, "0: off, 1 or 2; replaces every stage but the temperature");
  mirostat_only_ = {add("--mirostat-ent", params.mirostat_tau, "mirostat target entropy (tau)"),
                    add("--mirostat-lr", params.mirostat_eta, "mirostat learning rate (eta)")};
  add("-l,--logit-bias", logit_bias, "TOKEN_ID+BIAS or TOKEN_ID-BIAS, may be repeated; -inf bans");
  add("--samplers", samplers,
      "stages in order, separated by ';' (default: penalties;dry;top_n_sigma;top_k;typ_p;"
      "top_p;min_p;xtc;temperature)");
  add("--sampler-seq", sampler_letters, "the same by letters (default edskypmxt)");
}

/// An option of a stage that will not run is refused, not ignored.
void SamplingOptions::check_effects(const SamplingParams& out) const {
  for (const auto& [option, stage] : of_stage_) {
    if (option->count() == 0) continue;
    const std::string name = option->get_name(false, false);
    if (out.mirostat != 0) throw bad_usage("{} has no effect with --mirostat", name);
    if (std::find(out.order.begin(), out.order.end(), stage) == out.order.end()) {
      throw bad_usage("{} has no effect: --samplers leaves {} out", name, sampler_stage_name(stage));
    }
  }
  for (const CLI::Option* option : mirostat_only_) {
    if (option->count() > 0 && out.mirostat == 0) {
      throw bad_usage("{} has no effect without --mirostat", option->get_name(false, false));
    }
  }
  if (!samplers.empty() && !sampler_letters.empty())
    throw bad_usage("--samplers and --sampler-seq exclude each other");
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
  if (!sampler_letters.empty()) out.order = parse_sampler_letters(sampler_letters).value();
  check_effects(out);
  return out;
}

}  // namespace mete
