#include "apps/bench_rows.h"

#include <sys/utsname.h>

#include <ctime>
#include <nlohmann/json.hpp>

#include "apps/memory.h"
#include "commit.h"
#include "engine/receipt.h"

namespace mete {
namespace {

using Json = nlohmann::ordered_json;

std::string now_utc() {
  const std::time_t now = std::time(nullptr);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", std::gmtime(&now));
  return text;
}

std::string kernel_release() {
  utsname names{};
  return ::uname(&names) == 0 ? std::string(names.sysname) + " " + names.release : "";
}

/// The fields that say what was measured, and where.
Json head(const BenchOptions& o, const BenchSetting& setting) {
  return {{"build_commit", METE_COMMIT},      {"compiler", __VERSION__}, {"cpu_info", cpu_model_name()},
          {"kernel", kernel_release()},       {"backends", "CPU"},       {"model_filename", o.model.model},
          {"model_hash", setting.model_hash}, {"test_time", now_utc()}};
}

Json samples(const std::vector<double>& values) {
  Json array = Json::array();
  for (const double v : values) array.push_back(v);
  return array;
}

BenchCost cost_of(const BenchRow& row, const Runtime& runtime, const BenchSetting& setting) {
  const ModelConfig& m = runtime.model_config();
  BenchCost cost;
  cost.macs_per_row = static_cast<double>(m.macs_per_token);
  cost.macs_per_logits = static_cast<double>(m.macs_per_logits);
  cost.ops_per_s = setting.float_weights ? row.limits.f32_ops_per_s : row.limits.int8_ops_per_s;
  cost.read_bytes_per_s = row.limits.read_bytes_per_s;
  cost.report_s = setting.report_s;
  return cost;
}

}  // namespace

Json row_json(const BenchRow& row, const Runtime& runtime, const BenchOptions& o,
              const BenchSetting& setting) {
  const BenchCost cost = cost_of(row, runtime, setting);
  const BenchFigures f = figures_of(row.test, row.samples, cost);
  std::vector<double> ts, ns, first;
  double sum_ns = 0;
  for (const BenchSample& sample : row.samples) {
    ns.push_back(sample.seconds() * 1e9);
    ts.push_back(static_cast<double>(row.test.tokens()) / sample.seconds());
    sum_ns += ns.back();
  }
  Json samples_ns = Json::array();
  for (const double v : ns) samples_ns.push_back(static_cast<int64_t>(v));
  Json j = head(o, setting);
  j["test"] = label(row.test);
  j["cpu_tier"] = name(runtime.tier());
  j["model_type"] = runtime.model_config().arch;
  j["model_size"] = runtime.model_config().weight_bytes;
  j["model_n_params"] = setting.params;
  j["n_batch"] = o.model.batch;
  j["n_ubatch"] = o.model.ubatch;
  j["n_threads"] = row.test.threads;
  j["type_k"] = o.model.cache_k;
  j["type_v"] = o.model.cache_v;
  j["n_prompt"] = row.test.prompt;
  j["n_gen"] = row.test.gen;
  j["n_depth"] = row.test.depth;
  j["n_parallel"] = row.test.sequences;
  j["text"] = setting.text;
  j["avg_ns"] = static_cast<int64_t>(sum_ns / static_cast<double>(row.samples.size()));
  j["avg_ts"] = f.mean;
  j["stddev_ts"] = f.deviation;
  j["median_ts"] = f.tokens_per_s.median;
  j["q1_ts"] = f.tokens_per_s.low;
  j["q3_ts"] = f.tokens_per_s.high;
  j["samples_ns"] = samples_ns;
  j["samples_ts"] = samples(ts);
  j["ttft_s"] = row.test.prompt > 0 ? Json(f.first_token_s.median) : Json();
  j["read_bytes_per_token"] = f.bytes_per_token;
  j["read_bytes_per_s"] = f.bytes_per_s;
  j["ops_per_s"] = f.ops_per_s;
  j["share_of_limit"] = f.share_of_limit;
  j["limit"] = f.bound_by_memory ? "memory" : setting.float_weights ? "f32" : "int8";
  j["machine_read_bytes_per_s"] = row.limits.read_bytes_per_s;
  j["machine_int8_ops_per_s"] = row.limits.int8_ops_per_s;
  j["machine_f32_ops_per_s"] = row.limits.f32_ops_per_s;
  j["joules_per_token"] = f.joules_per_token ? Json(*f.joules_per_token) : Json();
  j["power"] = setting.power;
  j["peak_rss_bytes"] = row.peak_rss;
  add_memory(j, runtime, row.memory);
  j["ledger_share"] = f.ledger_share;
  j["ledger"] = to_json(f.ledger);
  return j;
}

Json load_json(const LoadRow& row, const BenchOptions& o, const BenchSetting& setting) {
  const Spread s = spread_of(row.seconds);
  Json j = head(o, setting);
  j["test"] = row.cold ? "load, cold page cache" : "load, warm page cache";
  j["note"] = row.note;
  j["n_prompt"] = 0;
  j["n_gen"] = 0;
  j["load_s"] = row.seconds.empty() ? Json() : Json(s.median);
  j["load_q1_s"] = s.low;
  j["load_q3_s"] = s.high;
  j["samples_s"] = samples(row.seconds);
  j["file_bytes"] = row.file_bytes;
  j["load_bytes_per_s"] = s.median > 0 ? static_cast<double>(row.file_bytes) / s.median : 0;
  j["machine_drive_bytes_per_s"] = row.drive_bytes_per_s;
  j["share_of_limit"] = row.cold && row.drive_bytes_per_s > 0 && s.median > 0
                            ? static_cast<double>(row.file_bytes) / s.median / row.drive_bytes_per_s
                            : 0.0;
  j["peak_rss_bytes"] = row.peak_rss;
  return j;
}

}  // namespace mete
