#include "apps/memory.h"

#include <csignal>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "apps/args.h"
#include "base/size.h"
#include "engine/forecast.h"

namespace mete {
namespace {

volatile std::sig_atomic_t g_reread = 0;  // SIGUSR1 since the last look

double mib(int64_t bytes) { return static_cast<double>(bytes) / 0x1p20; }

}  // namespace

void announce_memory(const char* command, const Runtime& runtime) {
  const MemoryPlan& plan = runtime.memory_plan();
  if (plan.budget > 0) {
    const ModelConfig& model = runtime.model_config();
    const Forecast forecast = make_forecast(model, plan, runtime.kv().config(), runtime.threads());
    fmt::print(stderr, "mete {}: {}; {}\n", command, plan.summary(), forecast.text(model, plan));
  }
  for (const std::string& choice : plan.choices) fmt::print(stderr, "mete {}: memory: {}\n", command, choice);
}

void add_memory(nlohmann::ordered_json& receipt, const Runtime& runtime, const MemoryUse& use) {
  const MemoryPlan& plan = runtime.memory_plan();
  if (plan.budget > 0) {
    receipt["memory_budget_bytes"] = plan.budget;
    receipt["memory_floor_bytes"] = plan.floor;
  }
  receipt["memory_peak_bytes"] = use.peak;
  nlohmann::ordered_json lines = nlohmann::ordered_json::object();
  for (size_t i = 0; i < kMemoryItems; ++i) {
    if (plan.lines[i] == 0 && use.lines[i] == 0) continue;
    lines[name(static_cast<MemoryItem>(i))] = {{"planned", plan.lines[i]}, {"used", use.lines[i]}};
  }
  receipt["memory_lines"] = std::move(lines);
  receipt["unnamed_bytes"] = use.unnamed();
}

void print_memory(const Runtime& runtime, const MemoryUse& use) {
  const MemoryPlan& plan = runtime.memory_plan();
  fmt::print(stderr, "memory (MiB)    planned      used\n");
  for (size_t i = 0; i < kMemoryItems; ++i) {
    if (plan.lines[i] == 0 && use.lines[i] == 0) continue;
    fmt::print(stderr, "  {:<12} {:9.2f} {:9.2f}\n", name(static_cast<MemoryItem>(i)), mib(plan.lines[i]),
               mib(use.lines[i]));
  }
  fmt::print(stderr, "  {:<12} {:>9} {:9.2f}\n", "unnamed", "", mib(use.unnamed()));
  fmt::print(stderr, "  {:<12} {:9.2f} {:9.2f}  peak {:.2f}", "total", mib(total(plan.lines)),
             mib(use.resident + use.page_cache), mib(use.peak));
  if (plan.budget > 0)
    fmt::print(stderr, "  ceiling {:.2f}, floor {:.2f}", mib(plan.budget), mib(plan.floor));
  fmt::print(stderr, "\n");
}

MemoryWatch::MemoryWatch(const char* command, std::string path) : command_(command), path_(std::move(path)) {
  if (path_.empty()) return;
  struct sigaction action {};
  action.sa_handler = [](int) { g_reread = 1; };
  action.sa_flags = SA_RESTART;
  ::sigaction(SIGUSR1, &action, nullptr);
}

void MemoryWatch::poll(Runtime& runtime) {
  if (g_reread == 0) return;
  g_reread = 0;
  const int64_t before = runtime.memory_plan().budget;
  try {
    const int64_t bytes = read_memory_file(path_);
    runtime.set_memory(bytes).or_throw();
    fmt::print(stderr, "mete {}: memory: the ceiling is now {} (was {})\n", command_, size_text(bytes),
               size_text(before));
  } catch (const Error& error) {
    fmt::print(stderr, "mete {}: memory: the ceiling stays {}: {}\n", command_, size_text(before),
               error.what());
  }
}

}  // namespace mete
