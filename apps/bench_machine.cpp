#include "apps/bench_machine.h"

#include <cstdio>
#include <ctime>
#include <nlohmann/json.hpp>

#include "apps/progress.h"
#include "format/hub_cache.h"
#include "format/machine_profile.h"

namespace mete {
namespace {

std::string percent(const Spread& s) { return fmt::format("+- {:.0f} %", 100 * s.relative()); }

std::string size_text(int64_t bytes) {
  return bytes >= 1 << 20 ? fmt::format("{:g} MiB", static_cast<double>(bytes) / 1048576)
                          : fmt::format("{:g} KiB", static_cast<double>(bytes) / 1024);
}

void print_threads(const MachineProfile& p) {
  fmt::print("\n| threads | memory read | fork and join |\n| ---: | ---: | ---: |\n");
  for (const ThreadPoint& t : p.threads) {
    fmt::print("| {} | {:.1f} GB/s {} | {:.2f} us {} |\n", t.threads, t.read_bytes_per_s.median / 1e9,
               percent(t.read_bytes_per_s), t.fork_join_s.median * 1e6, percent(t.fork_join_s));
  }
  fmt::print("\n| tier | of | instruction | threads | peak |\n| --- | --- | --- | ---: | ---: |\n");
  for (const PeakPoint& k : p.peaks) {
    fmt::print("| {} | {} | {} | {} | {:.3f} TOPS {} |\n", k.tier, k.kind, k.unit, k.threads,
               k.ops_per_s.median / 1e12, percent(k.ops_per_s));
  }
  if (p.pair_ratio > 0) {
    fmt::print("\nWith all CPUs busy, two do {:.2f} times the work of one alone: {}\n", p.pair_ratio,
               p.threads_per_core > 1 ? "two of them share a core" : "each has a core of its own");
  }
}

void print_caches(const MachineProfile& p) {
  fmt::print("\n| cache | size | |\n| --- | ---: | --- |\n");
  for (const CacheLevel& c : p.caches)
    fmt::print("| L{} | {} | {} |\n", c.level, size_text(c.bytes), c.measured ? "measured" : "reported");
}

void print_drive(const MachineProfile& p) {
  if (p.drive_file.empty()) {
    fmt::print("\nDrive: not measured; -m MODEL measures the one that holds the file\n");
    return;
  }
  fmt::print("\nDrive of {} ({}):\n\n| reads | block | in flight | rate |\n| --- | ---: | ---: | ---: |\n",
             p.drive_file, size_text(p.drive_bytes));
  for (const DriveRate& d : p.drive) {
    fmt::print("| {}, {} | {} | {} | {:.3f} GB/s {} |\n", d.pattern.random ? "random" : "sequential",
               d.pattern.direct ? "direct" : "buffered", size_text(d.pattern.block), d.pattern.depth,
               d.bytes_per_s.median / 1e9, percent(d.bytes_per_s));
  }
  if (!p.drive_problem.empty()) fmt::print("\nNot all could be measured: {}\n", p.drive_problem);
}

void print_profile(const MachineProfile& p) {
  const double age = static_cast<double>(std::time(nullptr)) - p.measured_at;
  fmt::print("{}, {} CPUs, host {}, kernel {}; measured {:.0f} min ago in {:.1f} s\n", p.cpu, p.cpus, p.host,
             p.kernel, std::max(0.0, age) / 60, p.took_s);
  print_threads(p);
  print_caches(p);
  print_drive(p);
  fmt::print("\nPower:\n");
  for (const PowerSource& source : p.power)
    fmt::print("  {}: {}\n", source.name, source.reason.empty() ? "readable" : source.reason);
  const std::vector<Repeat> unsteady = p.unsteady();
  if (unsteady.empty()) {
    fmt::print("\nRepeats: every figure came within 5 % of itself at the end\n");
    return;
  }
  fmt::print("\nNot a quiet machine: figures of the start and of the end differ by more than 5 %:\n");
  for (const Repeat& r : unsteady)
    fmt::print("  {}: {:.4g} then {:.4g} per second ({:.0f} %)\n", r.what, r.first, r.second,
               100 * r.difference());
}

}  // namespace

int bench_machine(const BenchOptions& options) {
  ProfileOptions profile;
  profile.fresh = options.fresh;
  if (!options.model.model.empty()) profile.drive_file = resolve_model_path(options.model.model).value();
  const MachineProfile measured = [&] {
    Progress progress("machine");
    profile.progress = Progress::callback;
    profile.progress_user = &progress;
    return load_or_measure(profile).value();
  }();
  if (options.output == "json") {
    fmt::print("{}\n", to_json(measured).dump(1));
  } else {
    print_profile(measured);
  }
  return std::fflush(stdout) == 0 ? 0 : 1;
}

}  // namespace mete
