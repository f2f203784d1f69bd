// What a run under a ceiling would do, without loading the model: floor, what is resident, expected speed.
#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "apps/args.h"
#include "apps/commands.h"
#include "apps/memory.h"
#include "base/size.h"
#include "engine/forecast.h"
#include "format/hub_cache.h"

namespace mete {
namespace {

nlohmann::ordered_json plan_json(const MemoryPlan& plan, const ModelConfig& model, const Forecast& forecast) {
  nlohmann::ordered_json lines = nlohmann::ordered_json::object();
  for (size_t i = 0; i < kMemoryItems; ++i) {
    if (plan.lines[i] != 0) lines[name(static_cast<MemoryItem>(i))] = plan.lines[i];
  }
  nlohmann::ordered_json out = {{"memory_budget_bytes", plan.budget},
                                {"memory_floor_bytes", plan.floor},
                                {"memory_planned_bytes", total(plan.lines)},
                                {"memory_lines", lines},
                                {"context", plan.context},
                                {"max_rows", plan.max_rows},
                                {"choices", plan.choices}};
  if (!model.experts.layers.empty()) {
    out["expert_layers"] = model.experts.layers.size();
    out["experts"] = model.experts.experts;
    out["experts_used"] = model.experts.used;
    out["slots_per_layer"] = plan.slots_per_layer;
    out["hit_rate"] = forecast.hit_rate;
    out["hit_rate_from"] = forecast.hit_rate_from;
    out["disk_bytes_per_token"] = forecast.disk_bytes_per_token;
  }
  out["memory_bytes_per_token"] = forecast.memory_bytes_per_token;
  out["memory_bytes_per_s"] = forecast.memory_rate;
  out["drive_bytes_per_s"] = forecast.drive_rate;
  out["rates_from"] = forecast.rates_from;
  out["decode_tokens_per_s"] = forecast.tokens_per_s();
  out["bound_by"] = forecast.bound_by_drive() ? "drive" : "memory";
  return out;
}

void print_plan(const MemoryPlan& plan, const ModelConfig& model, const Forecast& forecast) {
  if (plan.budget > 0) {
    fmt::print("ceiling {}, floor {}, planned {}\n", size_text(plan.budget), size_text(plan.floor),
               size_text(total(plan.lines)));
  } else {
    fmt::print("no ceiling (--memory), planned {}\n", size_text(total(plan.lines)));
  }
  for (size_t i = 0; i < kMemoryItems; ++i) {
    if (plan.lines[i] == 0) continue;
    fmt::print("  {:<12} {:10.2f} MiB\n", name(static_cast<MemoryItem>(i)),
               static_cast<double>(plan.lines[i]) / 0x1p20);
  }
  fmt::print("context {} tokens, steps of up to {} rows\n", plan.context, plan.max_rows);
  for (const std::string& choice : plan.choices) fmt::print("not as usual: {}\n", choice);
  fmt::print("{}\n", forecast.text(model, plan));
}

}  // namespace

int cmd_plan(const std::vector<std::string>& args) {
  CLI::App app(
      "What a run with these options would keep in memory, and how fast it should be. Reads the file's "
      "metadata only.",
      "mete plan");
  ModelOptions options;
  bool json = false;
  std::string trace_path;
  options.add_to(app);
  app.add_option("--trace", trace_path,
                 "routing trace (mete inspect --routing) from which the hit rate is predicted");
  app.add_flag("--json", json, "print one JSON object on stdout and nothing else");
  if (const int code = parse(app, args); code >= 0) return code;
  if (!options.memory_file.empty() && !options.memory.empty())
    throw bad_usage("--memory-file has no effect here with --memory");
  RuntimeConfig config = options.config();
  if (config.threads == 0) config.threads = usable_cpus();
  const GgufFile file = GgufFile::open(resolve_model_path(config.model_path).value()).value();
  const ModelConfig model = read_model_config(file);
  const MemoryDemand demand = memory_demand(config, model);
  const MemoryPlan plan = plan_memory(file, model, demand).value();
  std::optional<ReplayedRate> replayed;
  if (!trace_path.empty()) {
    if (model.experts.layers.empty())
      throw bad_usage("--trace has no effect: {} has no routed experts", config.model_path);
    const std::string text = read_text_file(trace_path);
    const auto trace = RoutingTrace::parse({reinterpret_cast<const uint8_t*>(text.data()), text.size()});
    if (!trace) throw bad_model("{}: {}", trace_path, trace.error().message());
    replayed = replay_plan(*trace, model, plan, config.experts);
  }
  const Forecast forecast = make_forecast(model, plan, demand.kv, config.threads, replayed);
  if (json) {
    std::printf("%s\n", plan_json(plan, model, forecast).dump(2).c_str());
  } else {
    print_plan(plan, model, forecast);
  }
  return std::fflush(stdout) == 0 ? 0 : 1;
}

}  // namespace mete
