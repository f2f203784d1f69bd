// Speed of prefill and decode, with llama-bench's tests, options and JSON, as a share of the machine's limit.
#include <sys/stat.h>

#include <cstdio>
#include <nlohmann/json.hpp>
#include <optional>

#include "apps/bench_machine.h"
#include "apps/bench_rows.h"
#include "apps/commands.h"
#include "apps/conversation.h"
#include "apps/memory.h"
#include "apps/progress.h"
#include "format/drive_probe.h"
#include "format/hub_cache.h"

namespace mete {
namespace {

constexpr size_t kCeilingBytes = size_t{256} << 20, kLeastCeilingBytes = size_t{64} << 20;

/// One line of JSON as soon as a row is done, or all rows at the end.
class Output {
 public:
  explicit Output(const BenchOptions& options) : options_(options) {}
  void add(nlohmann::ordered_json row) {
    if (options_.output == "jsonl") {
      std::printf("%s\n", row.dump().c_str());
      std::fflush(stdout);
    }
    rows_.push_back(std::move(row));
  }
  int finish() {
    if (options_.output == "md") std::fputs(markdown(rows_).c_str(), stdout);
    if (options_.output == "csv") std::fputs(csv(rows_).c_str(), stdout);
    if (options_.output == "json") std::printf("%s\n", rows_.dump(2).c_str());
    if (!options_.compare.empty()) {
      // Other formats are for programs: the comparison goes where people look.
      std::fputs(compare(rows_, options_.compare).c_str(), options_.output == "md" ? stdout : stderr);
    }
    return std::fflush(stdout) == 0 ? 0 : 1;
  }

 private:
  const BenchOptions& options_;
  nlohmann::ordered_json rows_ = nlohmann::ordered_json::array();
};

/// Loads the model again and again; each time all of it is gone before the next.
LoadRow measure_load(const RuntimeConfig& config, const BenchOptions& o, bool cold, Progress& progress) {
  LoadRow row;
  row.cold = cold;
  const std::string path = resolve_model_path(o.model.model).value();
  struct stat info {};
  if (::stat(path.c_str(), &info) == 0) row.file_bytes = info.st_size;
  reset_peak_rss();
  if (!cold) Runtime warm(config);  // fills the page cache
  for (int64_t i = 0; i < o.repetitions; ++i) {
    if (cold) {
      if (const Status dropped = drop_page_cache(path); !dropped) {
        row.note = dropped.error().message();
        return row;
      }
    }
    const double start = now_seconds();
    const Runtime runtime(config);
    row.seconds.push_back(now_seconds() - start);
    progress.update(i + 1, o.repetitions);
  }
  row.peak_rss = peak_rss_bytes();
  if (cold) {
    const Result<DriveRate> drive = measure_drive(path, {true, false, 1 << 20, 4}, 0.5);
    if (drive) row.drive_bytes_per_s = (*drive).bytes_per_s.median;
  }
  return row;
}

BenchRow run_test(const Runtime& runtime, BenchRunner& runner, const BenchTest& test, const BenchOptions& o,
                  Progress& progress, int64_t& done, int64_t tests) {
  BenchRow row;
  row.test = test;
  reset_peak_rss();
  if (!o.no_warmup) {
    BenchTest warm = test;
    warm.gen = std::min<int64_t>(warm.gen, 1);
    runner.run(warm, 0);
  }
  for (int64_t i = 0; i < o.repetitions; ++i) {
    row.samples.push_back(runner.run(test, i + 1));
    progress.update(++done, tests);
  }
  row.peak_rss = peak_rss_bytes();
  row.memory = runtime.memory_use(0);
  // Under a ceiling of memory the measurement's buffer must fit below it.
  const MemoryPlan& memory = runtime.memory_plan();
  const auto room = static_cast<size_t>(memory.budget > 0 ? memory.budget - total(memory.lines) : INT64_MAX);
  if (room < kLeastCeilingBytes) return row;  // no shares
  ThreadPool pool(test.threads);
  row.limits = measure_machine_limits(pool, std::min(kCeilingBytes, room));
  return row;
}

/// Whether most weight bytes of the file are floats.
bool float_weights(const GgufFile& file) {
  double floats = 0, all = 0;
  for (const GgufTensor& t : file.tensors()) {
    const double bytes = static_cast<double>(row_bytes(t.type, t.cols())) * static_cast<double>(t.rows());
    all += bytes;
    if (t.type == DType::kF32 || t.type == DType::kF16 || t.type == DType::kBF16) floats += bytes;
  }
  return floats > all / 2;
}

std::vector<int32_t> tokens_to_feed(const Runtime& runtime, const BenchOptions& o) {
  const std::string text = o.text_file.empty() ? kBenchText : read_text_file(o.text_file);
  if (text.empty()) throw bad_usage("--text {}: the file is empty", o.text_file);
  return encode_raw(runtime.tokenizer(), text);
}

}  // namespace

int cmd_bench(const std::vector<std::string>& args) {
  BenchOptions o;
  if (const int code = parse_bench_options(args, o); code >= 0) return code;
  if (o.machine) return bench_machine(o);
  const std::vector<BenchTest> tests = plan(o);
  RuntimeConfig config = o.model.config();
  config.threads = *std::max_element(o.threads.begin(), o.threads.end());
  config.max_seqs = *std::max_element(o.sequences.begin(), o.sequences.end());
  config.max_rows = std::max(config.max_rows, config.max_seqs);  // a step decodes all sequences
  for (const BenchTest& test : tests)
    config.context = std::max(config.context, test.depth + test.prompt + test.gen);
  // Each sequence fills pages of its own.
  config.context = (config.context + config.page_slots - 1) / config.page_slots * config.page_slots;

  Output output(o);
  BenchSetting setting;
  EnergyMeter meter;
  setting.power = meter.why_not();
  setting.text = o.text_file.empty() ? "built-in" : o.text_file;
  const std::string path = resolve_model_path(o.model.model).value();
  if (config.memory_bytes == 0) setting.model_hash = file_hash(path);  // reads all of the file
  if (o.load) {
    for (const bool cold : {true, false}) {
      Progress progress("load");
      output.add(load_json(measure_load(config, o, cold, progress), o, setting));
    }
  }
  if (tests.empty()) return output.finish();

  std::optional<Runtime> runtime;
  {
    Progress progress("loading");
    config.progress = Progress::callback;
    config.progress_user = &progress;
    runtime.emplace(config);
  }
  announce_memory("bench", *runtime);
  for (const GgufTensor& tensor : runtime->file().tensors()) setting.params += tensor.cols() * tensor.rows();
  setting.float_weights = float_weights(runtime->file());
  setting.report_s = measure_report_seconds();
  BenchRunner runner(*runtime, tokens_to_feed(*runtime, o), &meter);
  {
    Progress progress("bench");
    int64_t done = 0;
    for (const BenchTest& test : tests) {
      const BenchRow row = run_test(*runtime, runner, test, o, progress, done,
                                    static_cast<int64_t>(tests.size()) * o.repetitions);
      progress.clear();
      output.add(row_json(row, *runtime, o, setting));
    }
  }
  return output.finish();
}

}  // namespace mete
