// Speed of prefill and decode, with llama-bench's tests, options and JSON, as a share of the machine's limit.
#include <cmath>
#include <cstdio>
#include <ctime>
#include <nlohmann/json.hpp>
#include <optional>

#include "apps/args.h"
#include "apps/commands.h"
#include "apps/progress.h"
#include "base/clock.h"
#include "base/machine_limits.h"
#include "base/rng.h"
#include "engine/runtime.h"

namespace mete {
namespace {

struct BenchOptions {
  ModelOptions model;
  std::vector<int64_t> prompts{512}, gens{128}, depths{0};
  std::vector<int> threads;
  std::vector<std::string> mixed;
  int64_t repetitions = 5;
  std::string output = "md";
  bool no_warmup = false;
};

/// One row of the table: `prompt` tokens in steps of several rows, then `gen` tokens one by one, after
/// `depth` tokens that are not timed.
struct Test {
  int64_t prompt, gen, depth;
  int threads;
  std::vector<double> seconds;
  MachineLimits limits;
  int64_t peak_rss;

  int64_t tokens() const { return prompt + gen; }
  double rate(double s) const { return static_cast<double>(tokens()) / s; }
  double mean_rate() const {
    double sum = 0;
    for (const double s : seconds) sum += rate(s);
    return sum / static_cast<double>(seconds.size());
  }
  double rate_deviation() const {
    if (seconds.size() < 2) return 0;
    double sum = 0;
    for (const double s : seconds) sum += (rate(s) - mean_rate()) * (rate(s) - mean_rate());
    return std::sqrt(sum / static_cast<double>(seconds.size() - 1));
  }
  std::string label() const {
    std::string text;
    if (prompt > 0) text += "pp" + std::to_string(prompt);
    if (gen > 0) text += (text.empty() ? "tg" : "+tg") + std::to_string(gen);
    if (depth > 0) text += " @ d" + std::to_string(depth);
    return text;
  }
};

/// Feeds tokens of one sequence; ids are pseudo-random, a function of the position alone.
class Feeder {
 public:
  explicit Feeder(Runtime& runtime)
      : runtime_(runtime), logits_(static_cast<size_t>(runtime.model_config().vocab) * sizeof(float)) {}

  void start() {
    if (seq_ >= 0) runtime_.kv().release(seq_);
    seq_ = runtime_.kv().create();
    position_ = 0;
  }
  /// `count` more tokens in steps of at most `step`; the last row's logits are computed, as a user needs
  /// them.
  void feed(int64_t count, int64_t step) {
    const int64_t end = position_ + count;
    while (position_ < end) {
      const int64_t n = std::min(step, end - position_);
      rows_.clear();
      for (int64_t i = 0; i < n; ++i)
        rows_.push_back({token(position_ + i), static_cast<int32_t>(position_ + i), seq_});
      const int32_t last = static_cast<int32_t>(n) - 1;
      Batch batch;
      batch.rows = rows_;
      if (position_ + n == end || step == 1) batch.logits_rows = std::span(&last, 1);
      Outputs outputs;
      outputs.logits = logits_.as<float>();
      runtime_.step(batch, outputs).or_throw();
      position_ += n;
    }
  }
  void feed_prompt(int64_t count) { feed(count, runtime_.max_rows()); }
  void feed_one_by_one(int64_t count) { feed(count, 1); }

 private:
  int32_t token(int64_t position) const {
    const auto vocab = static_cast<uint64_t>(runtime_.model_config().vocab);
    return static_cast<int32_t>(random_bits(1, static_cast<uint64_t>(position), Purpose::kTest) % vocab);
  }
  Runtime& runtime_;
  AlignedBuffer logits_;
  std::vector<Row> rows_;
  SeqId seq_ = -1;
  int64_t position_ = 0;
};

/// "512" or "512,1024", repeatable, as llama-bench.
std::vector<int64_t> parse_list(const std::string& option, const std::vector<std::string>& words,
                                int64_t min) {
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
      if (item.empty() || used != item.size() || value < min || value > (1 << 20)) {
        throw bad_usage("{}: found '{}', expected integers of {} to {} separated by commas", option, word,
                        min, 1 << 20);
      }
      values.push_back(value);
      begin = end + 1;
    }
  }
  return values;
}

std::vector<Test> plan(const BenchOptions& o) {
  std::vector<Test> tests;
  const auto add = [&](int64_t prompt, int64_t gen, int64_t depth, int threads) {
    if (prompt + gen > 0) tests.push_back({prompt, gen, depth, threads, {}, {}, 0});
  };
  for (const int threads : o.threads) {
    for (const int64_t depth : o.depths) {
      for (const int64_t p : o.prompts) add(p, 0, depth, threads);
      for (const int64_t n : o.gens) add(0, n, depth, threads);
      for (const std::string& pair : o.mixed) {
        const std::vector<int64_t> values = parse_list("--prompt-gen", {pair}, 1);
        if (values.size() != 2) throw bad_usage("--prompt-gen: found '{}', expected PROMPT,GEN", pair);
        add(values[0], values[1], depth, threads);
      }
    }
  }
  if (tests.empty()) throw bad_usage("nothing to measure: -p, -n and --prompt-gen ask for no tokens");
  return tests;
}

void run_test(Runtime& runtime, Feeder& feeder, Test& test, const BenchOptions& o, Progress& progress,
              int64_t& done, int64_t total) {
  runtime.set_threads(test.threads);
  if (!o.no_warmup) {
    feeder.start();
    if (test.prompt > 0) feeder.feed_prompt(test.prompt);
    if (test.gen > 0) feeder.feed_one_by_one(1);
  }
  for (int64_t i = 0; i < o.repetitions; ++i) {
    feeder.start();
    if (test.depth > 0) feeder.feed_prompt(test.depth);
    const double start = now_seconds();
    if (test.prompt > 0) feeder.feed_prompt(test.prompt);
    if (test.gen > 0) feeder.feed_one_by_one(test.gen);
    test.seconds.push_back(now_seconds() - start);
    progress.update(++done, total);
  }
  test.peak_rss = peak_rss_bytes();
  {
    ThreadPool pool(test.threads);
    test.limits = measure_machine_limits(pool, size_t{256} << 20);
  }
  reset_peak_rss();  // the measurement's own buffer is not the model's
}

/// KV bytes that decoding one token at `position` reads, windows honoured.
double kv_bytes_read(const Runtime& runtime, double position) {
  const ModelConfig& m = runtime.model_config();
  const KvLayout& layout = runtime.kv().layout();
  const double per_slot = static_cast<double>(layout.key_tile() + layout.value_tile()) / kTileSlots;
  double slots = 0;
  for (const int32_t window : m.windows) slots += window > 0 ? std::min<double>(window, position) : position;
  return slots * static_cast<double>(m.kv_heads) * per_slot;
}

/// What a test moved and computed per second, and its share of the machine's limits measured beside it.
struct Shares {
  double bytes_per_s = 0, ops_per_s = 0, of_bandwidth = 0, of_peak = 0;
};
Shares shares(const Test& test, const Runtime& runtime) {
  const ModelConfig& m = runtime.model_config();
  Shares s;
  const double seconds = static_cast<double>(test.tokens()) / test.mean_rate();
  if (test.prompt == 0) {
    const double middle = static_cast<double>(test.depth) + static_cast<double>(test.gen) / 2;
    const double bytes = static_cast<double>(m.bytes_per_token) + kv_bytes_read(runtime, middle);
    s.bytes_per_s = bytes * static_cast<double>(test.gen) / seconds;
    s.of_bandwidth = s.bytes_per_s / test.limits.read_bytes_per_s;
  } else if (test.gen == 0) {
    s.ops_per_s = 2 *
                  (static_cast<double>(m.macs_per_token) * static_cast<double>(test.prompt) +
                   static_cast<double>(m.macs_per_logits)) /
                  seconds;
    if (test.limits.int8_ops_per_s > 0) s.of_peak = s.ops_per_s / test.limits.int8_ops_per_s;
  }
  return s;
}

std::string now_utc() {
  const std::time_t now = std::time(nullptr);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", std::gmtime(&now));
  return text;
}

nlohmann::ordered_json row_json(const Test& test, const Runtime& runtime, const BenchOptions& o,
                                int64_t params) {
  const Shares s = shares(test, runtime);
  nlohmann::ordered_json samples_ns = nlohmann::ordered_json::array(),
                         samples_ts = nlohmann::ordered_json::array();
  double sum_ns = 0;
  for (const double sec : test.seconds) {
    samples_ns.push_back(static_cast<int64_t>(sec * 1e9));
    samples_ts.push_back(test.rate(sec));
    sum_ns += sec * 1e9;
  }
  return {{"build_commit", METE_VERSION},
          {"compiler", __VERSION__},
          {"cpu_info", cpu_model_name()},
          {"cpu_tier", name(runtime.tier())},
          {"backends", "CPU"},
          {"model_filename", o.model.model},
          {"model_type", runtime.model_config().arch},
          {"model_size", runtime.model_config().weight_bytes},
          {"model_n_params", params},
          {"n_batch", o.model.batch},
          {"n_ubatch", o.model.ubatch},
          {"n_threads", test.threads},
          {"type_k", o.model.cache_k},
          {"type_v", o.model.cache_v},
          {"n_prompt", test.prompt},
          {"n_gen", test.gen},
          {"n_depth", test.depth},
          {"test_time", now_utc()},
          {"avg_ns", static_cast<int64_t>(sum_ns / static_cast<double>(test.seconds.size()))},
          {"avg_ts", test.mean_rate()},
          {"stddev_ts", test.rate_deviation()},
          {"samples_ns", samples_ns},
          {"samples_ts", samples_ts},
          {"read_bytes_per_s", s.bytes_per_s},
          {"int8_ops_per_s", s.ops_per_s},
          {"share_of_bandwidth", s.of_bandwidth},
          {"share_of_int8_peak", s.of_peak},
          {"machine_read_bytes_per_s", test.limits.read_bytes_per_s},
          {"machine_int8_ops_per_s", test.limits.int8_ops_per_s},
          {"peak_rss_bytes", test.peak_rss}};
}

std::string csv_cell(const nlohmann::ordered_json& value) {
  const std::string text = value.is_string() ? value.get<std::string>() : value.dump();
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + "\"";
}

void print_csv(const nlohmann::ordered_json& rows) {
  for (size_t i = 0; i < rows.size(); ++i) {
    std::string header, line;
    for (const auto& [key, value] : rows[i].items()) {
      if (value.is_array()) continue;
      header += (header.empty() ? "" : ",") + key;
      line += (line.empty() ? "" : ",") + csv_cell(value);
    }
    if (i == 0) std::printf("%s\n", header.c_str());
    std::printf("%s\n", line.c_str());
  }
}

void print_markdown(const std::vector<Test>& tests, const Runtime& runtime, int64_t params) {
  std::printf(
      "| model | size | params | threads | test | t/s | GB/s or TOPS | of limit | peak RSS |\n"
      "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n");
  for (const Test& test : tests) {
    const Shares s = shares(test, runtime);
    std::string moved = "-", share = "-";
    if (s.bytes_per_s > 0) {
      moved = fmt::format("{:.1f} GB/s", s.bytes_per_s / 1e9);
      share =
          fmt::format("{:.0f} % of {:.1f} GB/s", 100 * s.of_bandwidth, test.limits.read_bytes_per_s / 1e9);
    } else if (s.ops_per_s > 0) {
      moved = fmt::format("{:.3f} TOPS", s.ops_per_s / 1e12);
      if (s.of_peak > 0)
        share = fmt::format("{:.0f} % of {:.2f} TOPS", 100 * s.of_peak, test.limits.int8_ops_per_s / 1e12);
    }
    fmt::print("| {} | {:.1f} MiB | {:.2f} M | {} | {} | {:.2f} +- {:.2f} | {} | {} | {:.1f} MiB |\n",
               runtime.model_config().arch,
               static_cast<double>(runtime.model_config().weight_bytes) / 1048576,
               static_cast<double>(params) / 1e6, test.threads, test.label(), test.mean_rate(),
               test.rate_deviation(), moved, share, static_cast<double>(test.peak_rss) / 1048576);
  }
  fmt::print(
      "\n{}, tier {}; decode is held against the read bandwidth, prefill against the int8 peak, both "
      "measured "
      "in this run with the same threads\n",
      cpu_model_name(), name(runtime.tier()));
}

}  // namespace

int cmd_bench(const std::vector<std::string>& args) {
  CLI::App app("Speed of prefill (pp) and decode (tg), with llama-bench's tests and options.", "mete bench");
  BenchOptions o;
  std::vector<std::string> prompts, gens, depths, threads;
  app.add_option("-m,--model", o.model.model, "GGUF file")->required();
  app.add_option("-p,--n-prompt", prompts, "prompt tokens, a list (default 512); 0: none")
      ->allow_extra_args(false);
  app.add_option("-n,--n-gen", gens, "tokens generated one by one, a list (default 128); 0: none")
      ->allow_extra_args(false);
  app.add_option("--prompt-gen", o.mixed, "(-pg) PROMPT,GEN: a mixed test, a row of its own")
      ->allow_extra_args(false);
  app.add_option("-d,--n-depth", depths, "tokens already in the context, a list (default 0)")
      ->allow_extra_args(false);
  app.add_option("-t,--threads", threads, "threads, a list (default: CPUs this process may use)")
      ->allow_extra_args(false);
  app.add_option("-r,--repetitions", o.repetitions, "timed runs of each test")
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
  app.add_option("-o,--output", o.output, "md, csv or json")
      ->check(CLI::IsMember({"md", "csv", "json"}))
      ->capture_default_str();
  app.add_flag("--no-warmup", o.no_warmup, "skip the untimed first run");
  if (const int code = parse(app, args); code >= 0) return code;
  if (!prompts.empty()) o.prompts = parse_list("-p", prompts, 0);
  if (!gens.empty()) o.gens = parse_list("-n", gens, 0);
  if (!depths.empty()) o.depths = parse_list("-d", depths, 0);
  for (const int64_t t : parse_list("-t", threads, 1)) o.threads.push_back(static_cast<int>(t));
  if (o.threads.empty()) o.threads.push_back(usable_cpus());

  std::vector<Test> tests = plan(o);
  RuntimeConfig config = o.model.config();
  config.threads = *std::max_element(o.threads.begin(), o.threads.end());
  for (const Test& test : tests) config.context = std::max(config.context, test.depth + test.tokens());
  std::optional<Runtime> runtime;
  {
    Progress progress("loading");
    config.progress = Progress::callback;
    config.progress_user = &progress;
    runtime.emplace(config);
  }
  Feeder feeder(*runtime);
  {
    Progress progress("bench");
    int64_t done = 0;
    for (Test& test : tests) {
      run_test(*runtime, feeder, test, o, progress, done, static_cast<int64_t>(tests.size()) * o.repetitions);
    }
  }
  int64_t params = 0;
  for (const GgufTensor& tensor : runtime->file().tensors()) params += tensor.cols() * tensor.rows();
  if (o.output == "md") {
    print_markdown(tests, *runtime, params);
  } else {
    nlohmann::ordered_json rows = nlohmann::ordered_json::array();
    for (const Test& test : tests) rows.push_back(row_json(test, *runtime, o, params));
    if (o.output == "json") std::printf("%s\n", rows.dump(2).c_str());
    if (o.output == "csv") print_csv(rows);
  }
  return std::fflush(stdout) == 0 ? 0 : 1;
}

}  // namespace mete
