#include "apps/eval_sweep.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "apps/eval_report.h"
#include "apps/eval_sweep_file.h"
#include "eval/frontier.h"

namespace mete {
namespace {

constexpr int kDecodeRepetitions = 5;

struct Entry {
  const SweepSetting* setting;
  QualityResult quality;
  std::vector<NamedTaskResult> tasks;
  Price price;
};

/// The reference's rows, computed once for all settings, in a file without a name: nothing is left behind
/// whatever happens.
class ReferenceRows {
 public:
  /// `common` names the reference: empty, a logits file (used where it is), or a model.
  explicit ReferenceRows(const EvalOptions& common) {
    if (common.reference.empty() || is_logits_file(common.reference)) {
      if (common.compact > 0)
        throw bad_usage("compact has no effect: the reference is not a model that is run");
      path_ = common.reference;
      return;
    }
    EvalOptions run = common;
    if (common.reference == "self") {
      run.numerics = "reference";
    } else {
      run.model.model = common.reference;
      run.model.experts = {};
      run.model.embeddings = "auto";
      run.numerics = common.reference_numerics;
    }
    run.reference.clear();
    run.model.cache_k = run.model.cache_v = "f16";
    std::string name = (std::filesystem::temp_directory_path() / "mete-reference-XXXXXX").string();
    fd_ = ::mkostemp(name.data(), O_CLOEXEC);
    if (fd_ < 0) throw run_failure("{}: cannot be created", name);
    ::unlink(name.c_str());
    path_ = fmt::format("/proc/self/fd/{}", fd_);
    run.save_logits = path_;
    fmt::print(stderr, "reference: {}\n", common.reference);
    measure_quality(run);
  }
  ~ReferenceRows() {
    if (fd_ >= 0) ::close(fd_);
  }
  ReferenceRows(const ReferenceRows&) = delete;
  ReferenceRows& operator=(const ReferenceRows&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  int fd_ = -1;
};

Price price_of(const Entry& entry, bool compared) {
  Price price;
  price.name = entry.setting->name;
  price.bytes = static_cast<double>(entry.quality.bytes());
  std::vector<double> rates = entry.quality.decode_rates;
  std::sort(rates.begin(), rates.end());
  price.rate = rates[rates.size() / 2];
  price.rate_spread = (rates.back() - rates.front()) / price.rate;
  price.loss = compared ? entry.quality.all.kl_mean : entry.quality.all.ppl;
  for (const NamedTaskResult& task : entry.tasks) {
    if (task.result.judged) price.scores.push_back({task.result.score.share(), task.result.score.error()});
  }
  return price;
}

std::string loss_name(const Entry& entry) {
  if (!entry.quality.compared) return "perplexity";
  return entry.quality.compact > 0 ? "KL lower bound, nats" : "mean KL, nats";
}

std::string list_text(const std::vector<Entry>& entries) {
  size_t width = 8;
  for (const Entry& e : entries) width = std::max(width, e.setting->name.size());
  const bool compared = entries[0].quality.compared;
  std::string out =
      fmt::format("{:<{}} {:>10} {:>9} {:>12}", "setting", width, "MiB", "tokens/s", "perplexity");
  if (compared) {
    out += fmt::format(" {:>12} {:>10} {:>9}", entries[0].quality.compact > 0 ? "KL at least" : "KL mean",
                       "KL 99 %", "same top");
  }
  for (const NamedTaskResult& task : entries[0].tasks) {
    if (task.result.judged) out += fmt::format(" {:>10}", name(task.kind));
  }
  out += "  dominated by\n";
  for (const Entry& e : entries) {
    const Quality& q = e.quality.all;
    out += fmt::format("{:<{}} {:>10.2f} {:>9.1f} {:>12.4f}", e.setting->name, width, e.price.bytes / 1048576,
                       e.price.rate, q.ppl);
    if (compared)
      out += fmt::format(" {:>12.4g} {:>10.3g} {:>7.2f} %", q.kl_mean, q.kl_p99, 100 * q.same_top1);
    for (const Price::Score& score : e.price.scores) out += fmt::format(" {:>10.3f}", score.share);
    const int by = e.price.dominated_by;
    out += fmt::format("  {}\n", by >= 0 ? entries[static_cast<size_t>(by)].setting->name : "-");
  }
  if (entries[0].quality.compact > 0) {
    out += fmt::format(
        "KL is a lower bound: the reference keeps {} tokens per row; its mass outside them: mean {:.3g}\n",
        entries[0].quality.compact, entries[0].quality.all.outside_mean);
  }
  return out;
}

nlohmann::ordered_json list_json(const std::vector<Entry>& entries, const std::string& reference) {
  nlohmann::ordered_json out;
  for (const Entry& e : entries) {
    EvalOptions named = e.setting->options;
    named.reference = reference;
    nlohmann::ordered_json entry = {{"name", e.setting->name}};
    entry.update(quality_json(named, e.quality));
    entry["decode_tokens_per_s"] = e.price.rate;
    entry["decode_spread"] = e.price.rate_spread;
    entry["tasks"] = tasks_json(e.tasks);
    const int by = e.price.dominated_by;
    entry["dominated_by"] = by < 0 ? nlohmann::ordered_json()
                                   : nlohmann::ordered_json(entries[static_cast<size_t>(by)].setting->name);
    out["settings"].push_back(entry);
  }
  return out;
}

/// The options of the command line that go before those of the file; others cannot stand beside --sweep.
std::vector<std::string> given_over_file(const EvalOptions& o, const CLI::App& app) {
  std::vector<std::string> over;
  for (const CLI::Option* option : app.get_options()) {
    if (option->count() == 0) continue;
    const std::string name = "--" + option->get_lnames().at(0);
    if (name == "--model" || name == "--file" || name == "--data" || name == "--chunks" ||
        name == "--threads") {
      over.insert(over.end(), {name, option->results().at(0)});
    } else if (name != "--sweep" && name != "--svg" && name != "--json") {
      throw bad_usage("{} cannot stand beside --sweep: write it in {}", name, o.sweep);
    }
  }
  return over;
}

void write_text_file(const std::string& path, const std::string& text) {
  std::FILE* file = std::fopen(path.c_str(), "wb");
  if (file == nullptr) throw run_failure("{}: cannot be created", path);
  const bool written = std::fwrite(text.data(), 1, text.size(), file) == text.size();
  if (std::fclose(file) != 0 || !written) throw run_failure("{}: cannot be written", path);
}

}  // namespace

int run_sweep(const EvalOptions& o, const CLI::App& app) {
  const Sweep sweep = parse_sweep(read_text_file(o.sweep), o.sweep, given_over_file(o, app));
  if (sweep.common.file.empty()) throw bad_usage("{}: 'file' is missing: the text to score", o.sweep);
  const std::optional<Sandbox> sandbox = open_sandbox(sweep.common);
  const ReferenceRows reference(sweep.common);
  std::vector<Entry> entries;
  for (const SweepSetting& setting : sweep.settings) {
    fmt::print(stderr, "setting {} of {}: {}\n", entries.size() + 1, sweep.settings.size(), setting.name);
    EvalOptions run = setting.options;
    run.reference = reference.path();
    run.reference_numerics = "standard";
    run.compact = 0;
    Entry entry{&setting,
                measure_quality(run, kDecodeRepetitions),
                run_tasks(run, sandbox ? &*sandbox : nullptr),
                {}};
    entry.price = price_of(entry, entry.quality.compared);
    entries.push_back(std::move(entry));
  }
  std::stable_sort(entries.begin(), entries.end(),
                   [](const Entry& a, const Entry& b) { return a.price.bytes < b.price.bytes; });
  std::vector<Price> prices;
  for (const Entry& e : entries) prices.push_back(e.price);
  mark_dominated(prices);
  for (size_t i = 0; i < entries.size(); ++i) entries[i].price = prices[i];

  if (!o.svg.empty()) write_text_file(o.svg, plot_svg(prices, loss_name(entries[0])));
  if (o.json) {
    std::printf("%s\n", list_json(entries, sweep.common.reference).dump(2).c_str());
  } else {
    std::printf("%s\n%s", list_text(entries).c_str(), plot_text(prices, loss_name(entries[0])).c_str());
  }
  return std::fflush(stdout) == 0 ? 0 : 1;
}

}  // namespace mete
