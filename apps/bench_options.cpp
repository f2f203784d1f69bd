#include "apps/bench_options.h"

namespace mete {
namespace {

/// "512" or "512,1024", repeatable, as llama-bench.
std::vector<int64_t> parse_list(const std::string& option, const std::vector<std::string>& words, int64_t min,
                                int64_t max = 1 << 20) {
  std::vector<int64_t> values;
  for (const std::string& word : words) {
    size_t begin = 0;
    while (begin <= word.size()) {
      const size_t end = std::min(word.find(',', begin), word.size());
      const std::string item = word.substr(begin, end - begin);
      size_t used = 0;
      int64_t value = -1;
      try {
        value = std::stoll(item, &used);
      } catch (const std::exception&) {
      }
      if (item.empty() || used != item.size() || value < min || value > max) {
        throw bad_usage("{}: found '{}', expected integers of {} to {} separated by commas", option, word,
                        min, max);
      }
      values.push_back(value);
      begin = end + 1;
    }
  }
  return values;
}

struct Words {
  std::vector<std::string> prompts, gens, depths, threads, sequences;
};

void declare(CLI::App& app, BenchOptions& o, Words& words) {
  const auto list = [&](const char* names, std::vector<std::string>& value, const char* help) {
    app.add_option(names, value, help)->allow_extra_args(false);
  };
  app.add_option("-m,--model", o.model.model, "GGUF file, or org/name of a model in the hub cache");
  list("-p,--n-prompt", words.prompts, "prompt tokens, a list (default 512); 0: none");
  list("-n,--n-gen", words.gens, "tokens generated one by one, a list (default 128); 0: none");
  list("--prompt-gen", o.mixed, "(-pg) PROMPT,GEN: a mixed test, a row of its own");
  list("-d,--n-depth", words.depths, "tokens already in the context, a list (default 0)");
  list("--parallel", words.sequences, "(-np) sequences at once, a list (default 1)");
  list("-t,--threads", words.threads, "threads, a list (default: CPUs this process may use)");
  app.add_option("-r,--repetitions", o.repetitions,
                 "timed runs of each test, each from another place of the text")
      ->check(CLI::Range(1, 10000))
      ->capture_default_str();
  app.add_option("-b,--batch-size", o.model.batch, "most prompt tokens per step, as one with -ub")
      ->check(CLI::Range(1, 65536))
      ->capture_default_str();
  app.add_option("--ubatch-size", o.model.ubatch, "(-ub) most rows per step")
      ->check(CLI::Range(1, 65536))
      ->capture_default_str();
  app.add_option("--cache-type-k", o.model.cache_k, "(-ctk) f16, bf16, q8_0")->capture_default_str();
  app.add_option("--cache-type-v", o.model.cache_v, "(-ctv) f16, bf16, q8_0")->capture_default_str();
  o.model.experts.add_to(app);
  app.add_option("--text", o.text_file, "text whose tokens are fed (default: a built-in one)");
  o.model.add_memory_to(app);
  app.add_option("-o,--output", o.output, "md, csv, json (an array) or jsonl (a line as each test ends)")
      ->check(CLI::IsMember({"md", "csv", "json", "jsonl"}))
      ->capture_default_str();
  app.add_option("--compare", o.compare, "rows of an earlier -o json run: prints ratios with a noise bound");
  app.add_flag("--load", o.load, "also time loading, from a cold and from a warm page cache");
  app.add_flag("--no-warmup", o.no_warmup, "skip the untimed first run");
  app.add_flag(
      "--machine", o.machine,
      "only the machine: memory, arithmetic, caches, threads, power counters, with -m its drive; kept in "
      "the cache folder for a week");
  app.add_flag("--fresh", o.fresh, "with --machine: measure even if a profile is kept");
}

/// --machine answers another question than the tests: their options have no effect there.
void check_machine_options(const CLI::App& app, const BenchOptions& o) {
  if (!o.machine) {
    if (o.fresh) throw bad_usage("--fresh has no effect without --machine");
    if (o.model.model.empty()) throw bad_usage("-m is required");
    return;
  }
  for (const CLI::Option* option : app.get_options()) {
    const std::string name = option->get_name(false, true);
    if (option->count() == 0 || name == "-m,--model" || name == "--machine" || name == "--fresh" ||
        name == "-o,--output") {
      continue;
    }
    throw bad_usage("{} has no effect with --machine", option->get_name(false, false));
  }
  if (o.output != "md" && o.output != "json")
    throw bad_usage("--machine: -o is md or json, found {}", o.output);
}

}  // namespace

int parse_bench_options(const std::vector<std::string>& args, BenchOptions& o) {
  CLI::App app(
      "Speed of prefill (pp) and decode (tg), with llama-bench's tests and options; or, with --machine, what "
      "the "
      "machine can do at most.",
      "mete bench");
  Words words;
  declare(app, o, words);
  if (const int code = parse(app, args); code >= 0) return code;
  check_machine_options(app, o);
  if (!words.prompts.empty()) o.prompts = parse_list("-p", words.prompts, 0);
  if (!words.gens.empty()) o.gens = parse_list("-n", words.gens, 0);
  if (!words.depths.empty()) o.depths = parse_list("-d", words.depths, 0);
  if (!words.sequences.empty()) o.sequences = parse_list("-np", words.sequences, 1, 1024);
  for (const int64_t t : parse_list("-t", words.threads, 1, 1024)) o.threads.push_back(static_cast<int>(t));
  if (o.threads.empty()) o.threads.push_back(usable_cpus());
  return -1;
}

std::vector<BenchTest> plan(const BenchOptions& o) {
  std::vector<BenchTest> tests;
  for (const int threads : o.threads) {
    for (const int64_t sequences : o.sequences) {
      for (const int64_t depth : o.depths) {
        const auto add = [&](int64_t prompt, int64_t gen) {
          if (prompt + gen > 0) tests.push_back({prompt, gen, depth, static_cast<int>(sequences), threads});
        };
        for (const int64_t p : o.prompts) add(p, 0);
        for (const int64_t n : o.gens) add(0, n);
        for (const std::string& pair : o.mixed) {
          const std::vector<int64_t> values = parse_list("--prompt-gen", {pair}, 1);
          if (values.size() != 2) throw bad_usage("--prompt-gen: found '{}', expected PROMPT,GEN", pair);
          add(values[0], values[1]);
        }
      }
    }
  }
  if (tests.empty() && !o.load)
    throw bad_usage("nothing to measure: -p, -n and --prompt-gen ask for no tokens");
  return tests;
}

std::string label(const BenchTest& test) {
  std::string text;
  if (test.prompt > 0) text += "pp" + std::to_string(test.prompt);
  if (test.gen > 0) text += (text.empty() ? "tg" : "+tg") + std::to_string(test.gen);
  if (test.depth > 0) text += " @ d" + std::to_string(test.depth);
  if (test.sequences > 1) text += " x" + std::to_string(test.sequences);
  return text;
}

}  // namespace mete
