#include "format/machine_profile.h"

#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <fstream>

#include <nlohmann/json.hpp>

#include "base/clock.h"

namespace mete {
namespace {

constexpr double kSteady = 0.05;
constexpr double kDriveSeconds = 0.12;  // per pattern

std::string host_name() {
  char text[256] = "";
  ::gethostname(text, sizeof text - 1);
  return text;
}

std::string kernel_release() {
  utsname names{};
  return ::uname(&names) == 0 ? names.release : "";
}

/// 1, 2, 4, ... and all.
std::vector<int> thread_counts(int cpus) {
  std::vector<int> counts;
  for (int n = 1; n < cpus; n *= 2) counts.push_back(n);
  counts.push_back(cpus);
  return counts;
}

class Steps {
 public:
  Steps(const ProfileOptions& options, int64_t total) : options_(options), total_(total) {}
  void next() {
    if (options_.progress != nullptr) options_.progress(options_.progress_user, ++done_, total_);
  }

 private:
  const ProfileOptions& options_;
  int64_t total_, done_ = 0;
};

void measure_arithmetic(MachineProfile& p, Steps& steps) {
  const std::vector<PeakLoop> loops = supported_peak_loops();
  for (const int threads : thread_counts(p.cpus)) {
    ThreadPool pool(threads);
    p.threads.push_back({threads, measure_read_rate(pool), measure_fork_join(pool)});
    for (const PeakLoop& loop : loops)
      p.peaks.push_back({name(loop.tier), loop.kind, loop.unit, threads, measure_peak(pool, loop)});
    steps.next();
  }
}

void measure_cores(MachineProfile& p) {
  const std::vector<int> cpus = allowed_cpus();
  if (cpus.size() < 2) return;
  p.pair_ratio = measure_pair_ratio(cpus);
  if (p.pair_ratio < kSharedCoreRatio) p.threads_per_core = 2;
}

/// Read rate and best int8 peak with all threads once more.
void repeat(MachineProfile& p) {
  ThreadPool pool(p.cpus);
  p.repeats.push_back(
      {"memory read", p.threads.back().read_bytes_per_s.median, measure_read_rate(pool).median});
  const std::vector<PeakLoop> loops = supported_peak_loops();
  if (loops.empty()) return;
  const size_t first = p.peaks.size() - loops.size();
  for (size_t i = 0; i < loops.size(); ++i) {
    p.repeats.push_back(
        {loops[i].unit, p.peaks[first + i].ops_per_s.median, measure_peak(pool, loops[i]).median});
  }
}

}  // namespace

double Repeat::difference() const {
  const double larger = std::max(first, second);
  return larger > 0 ? std::abs(second - first) / larger : 0;
}

std::vector<Repeat> MachineProfile::unsteady() const {
  std::vector<Repeat> some;
  for (const Repeat& r : repeats) {
    if (r.difference() > kSteady) some.push_back(r);
  }
  return some;
}

const ThreadPoint* MachineProfile::with_threads(int count) const {
  for (const ThreadPoint& point : threads) {
    if (point.threads == count) return &point;
  }
  return nullptr;
}

double MachineProfile::drive_rate(const DrivePattern& pattern) const {
  for (const DriveRate& rate : drive) {
    if (rate.pattern == pattern) return rate.bytes_per_s.median;
  }
  return 0;
}

int MachineProfile::drive_depth(int64_t block) const {
  int64_t nearest = 0;
  for (const DriveRate& rate : drive) {
    if (!rate.pattern.direct || !rate.pattern.random) continue;
    if (nearest == 0 || std::abs(rate.pattern.block - block) < std::abs(nearest - block))
      nearest = rate.pattern.block;
  }
  double best = 0;
  for (const DriveRate& rate : drive) {
    if (rate.pattern.direct && rate.pattern.random && rate.pattern.block == nearest)
      best = std::max(best, rate.bytes_per_s.median);
  }
  int depth = 0;
  for (const DriveRate& rate : drive) {
    if (!rate.pattern.direct || !rate.pattern.random || rate.pattern.block != nearest) continue;
    if (rate.bytes_per_s.median < 0.9 * best) continue;
    if (depth == 0 || rate.pattern.depth < depth) depth = rate.pattern.depth;
  }
  return depth;
}

void measure_profile_drive(MachineProfile& p, const std::string& file) {
  struct stat info {};
  p.drive_file = file;
  p.drive_bytes = ::stat(file.c_str(), &info) == 0 ? static_cast<int64_t>(info.st_size) : 0;
  p.drive.clear();
  p.drive_problem.clear();
  for (const DrivePattern& pattern : drive_patterns()) {
    Result<DriveRate> rate = measure_drive(file, pattern, kDriveSeconds);
    if (rate) {
      p.drive.push_back(*rate);
    } else if (p.drive_problem.empty()) {
      p.drive_problem = rate.error().message();
    }
  }
}

MachineProfile measure_machine(const ProfileOptions& options) {
  MachineProfile p;
  const double start = now_seconds();
  p.host = host_name();
  p.cpu = cpu_model_name();
  p.cpus = usable_cpus();
  p.kernel = kernel_release();
  p.measured_at = static_cast<double>(std::time(nullptr));
  Steps steps(options, static_cast<int64_t>(thread_counts(p.cpus).size()) + 4);
  measure_arithmetic(p, steps);
  measure_cores(p);
  steps.next();
  p.caches = reported_caches();
  p.latencies = measure_latency_curve(size_t{8} << 10, size_t{128} << 20);
  const std::vector<CacheLevel> measured = caches_of(p.latencies);
  p.caches.insert(p.caches.end(), measured.begin(), measured.end());
  steps.next();
  p.power = EnergyMeter().sources();
  if (!options.drive_file.empty()) measure_profile_drive(p, options.drive_file);
  steps.next();
  repeat(p);
  steps.next();
  p.took_s = now_seconds() - start;
  return p;
}

std::string profile_path() {
  const char* xdg = std::getenv("XDG_CACHE_HOME");
  if (xdg != nullptr && *xdg != '\0') return std::string(xdg) + "/mete/machine.json";
  const char* home = std::getenv("HOME");
  return std::string(home != nullptr ? home : ".") + "/.cache/mete/machine.json";
}

Result<MachineProfile> load_profile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return run_failure("{}: no machine profile; mete bench --machine makes one", path);
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  Result<MachineProfile> profile = profile_from_json(text);
  if (!profile)
    return run_failure("{}: {}; mete bench --machine --fresh makes it anew", path, profile.error().message());
  const MachineProfile& p = *profile;
  const auto differs = [&](const char* what, const auto& found, const auto& expected) -> Status {
    return run_failure(
        "{}: the profile of another machine: {} is {}, this one's is {}; mete bench --machine --fresh "
        "measures this one",
        path, what, found, expected);
  };
  if (p.cpu != cpu_model_name()) return differs("the CPU", p.cpu, cpu_model_name()).error();
  if (p.host != host_name()) return differs("the host", p.host, host_name()).error();
  if (p.cpus != usable_cpus()) return differs("the number of CPUs", p.cpus, usable_cpus()).error();
  return profile;
}

namespace {

Status keep(const MachineProfile& profile, const std::string& path) {
  std::error_code failed;
  std::filesystem::create_directories(std::filesystem::path(path).parent_path(), failed);
  const std::string temporary = path + ".part";
  {
    std::ofstream file(temporary, std::ios::binary);
    file << to_json(profile).dump(1) << "\n";
    if (!file.flush()) return run_failure("{}: cannot be written", temporary);
  }
  std::filesystem::rename(temporary, path, failed);
  if (failed) return run_failure("{}: {}", path, failed.message());
  return {};
}

}  // namespace

Result<MachineProfile> load_or_measure(const ProfileOptions& options) {
  const std::string path = options.path.empty() ? profile_path() : options.path;
  if (!options.fresh && std::filesystem::exists(path)) {
    Result<MachineProfile> kept = load_profile(path);
    if (!kept) return kept;
    const double age = static_cast<double>(std::time(nullptr)) - kept->measured_at;
    if (age >= 0 && age < options.max_age_s) {
      if (options.drive_file.empty() || !kept->drive_file.empty()) return kept;
      MachineProfile profile = *kept;
      measure_profile_drive(profile, options.drive_file);
      if (Status written = keep(profile, path); !written) return written.error();
      return profile;
    }
  }
  MachineProfile profile = measure_machine(options);
  if (Status written = keep(profile, path); !written) return written.error();
  return profile;
}

}  // namespace mete
