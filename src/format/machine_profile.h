// What this machine can do, measured in seconds and kept in a file with its age: memory, arithmetic, caches,
// threads, drive, power counters.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "base/energy.h"
#include "base/machine_limits.h"
#include "format/drive_probe.h"

namespace mete {

struct PeakPoint {
  std::string tier, kind, unit;  ///< as PeakLoop
  int threads = 0;
  Spread ops_per_s;
};
struct ThreadPoint {
  int threads = 0;
  Spread read_bytes_per_s;
  Spread fork_join_s;
};
/// A figure measured twice, at the start and at the end.
struct Repeat {
  std::string what;
  double first = 0, second = 0;
  double difference() const;  ///< |second - first| over the larger
};

struct MachineProfile {
  // Whose profile it is: all of these must be those of the machine that uses it.
  std::string host, cpu;
  int cpus = 0;  ///< hardware threads this process may use

  std::string kernel;
  double measured_at = 0;  ///< seconds since 1970
  double took_s = 0;

  std::vector<ThreadPoint> threads;  ///< ascending; 1 first, `cpus` last
  std::vector<PeakPoint> peaks;
  double pair_ratio = 0;           ///< measure_pair_ratio of all CPUs; 0: there is one CPU only
  int threads_per_core = 1;        ///< 2 if pair_ratio shows shared cores
  std::vector<CacheLevel> caches;  ///< reported and measured ones
  std::vector<LatencyPoint> latencies;
  std::string drive_file;     ///< that the drive was measured on; empty: it was not
  int64_t drive_bytes = 0;    ///< its size
  std::string drive_problem;  ///< why some or all drive figures are missing; empty: none is
  std::vector<DriveRate> drive;
  std::vector<PowerSource> power;
  std::vector<Repeat> repeats;

  /// Figures that differ by more than 5 % between start and end; empty on a quiet machine.
  std::vector<Repeat> unsteady() const;
  /// Null if it was not measured.
  const ThreadPoint* with_threads(int threads) const;
  /// Rate of a pattern; 0 if it was not measured.
  double drive_rate(const DrivePattern& pattern) const;
  /// The least depth that reaches 90 % of the best direct random rate for blocks of this size (the nearest
  /// measured one); 0 if the drive was not measured.
  int drive_depth(int64_t block) const;
};

struct ProfileOptions {
  bool fresh = false;              ///< measure even if the kept profile is young
  double max_age_s = 7.0 * 86400;  ///< older profiles are measured anew
  std::string drive_file;          ///< read to measure the drive; empty: the drive is not measured
  std::string path;                ///< of the kept profile; empty: profile_path()
  void (*progress)(void* user, int64_t done, int64_t total) = nullptr;
  void* progress_user = nullptr;
};

/// $XDG_CACHE_HOME/mete/machine.json, else ~/.cache/mete/machine.json.
std::string profile_path();

/// The kept profile if it is young and of this machine, else one measured now and kept. A kept profile
/// without drive figures is completed when a drive file is given. Errors (kRuntime): a kept profile that is
/// damaged or of another machine (say --fresh), a drive file that cannot be opened.
Result<MachineProfile> load_or_measure(const ProfileOptions& options);

/// Only reads. Errors: no file, damaged, of another machine.
Result<MachineProfile> load_profile(const std::string& path);

MachineProfile measure_machine(const ProfileOptions& options);
void measure_profile_drive(MachineProfile& profile, const std::string& file);

nlohmann::ordered_json to_json(const MachineProfile& profile);
/// Checked: a field of another type or a missing one is an Error naming it.
Result<MachineProfile> profile_from_json(const std::string& text);

}  // namespace mete
