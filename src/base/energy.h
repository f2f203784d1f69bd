// Joules from the machine's own counters: RAPL through powercap (CPU packages and memory), NVML (NVIDIA
// GPUs).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace mete {

struct PowerSource {
  std::string
      name;  ///< "package-0", "dram of package-0", "gpu 0 (NVIDIA H100)", or "rapl", "nvml" if unreadable
  std::string reason;  ///< empty: readable; else why not
};

class EnergyMeter {
 public:
  /// Looks for sources once. `powercap` is a folder like /sys/class/powercap; tests give their own, and then
  /// GPUs are left out with `gpus` false.
  explicit EnergyMeter(const std::string& powercap = "/sys/class/powercap", bool gpus = true);
  ~EnergyMeter();
  EnergyMeter(const EnergyMeter&) = delete;
  EnergyMeter& operator=(const EnergyMeter&) = delete;

  const std::vector<PowerSource>& sources() const { return sources_; }
  bool available() const { return !zones_.empty() || !gpus_.empty(); }
  /// Joules of all readable sources since construction; nullopt if there is none, or one failed. Call it at
  /// least every minute: a package's counter wraps after some minutes at full power, and one wrap is seen.
  std::optional<double> joules();
  /// Why joules() has no value, for people; empty if it has.
  std::string why_not() const;

 private:
  struct Zone {
    std::string path;  ///< of energy_uj
    uint64_t range, last, total;
  };
  struct Gpu {
    void* device;
    uint64_t first;  ///< mJ
  };
  struct Nvml;

  void find_zones(const std::string& powercap);
  void find_gpus();

  std::vector<PowerSource> sources_;
  std::vector<Zone> zones_;
  std::unique_ptr<Nvml> nvml_;
  std::vector<Gpu> gpus_;
  bool failed_ = false;
};

}  // namespace mete
