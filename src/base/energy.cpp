#include "base/energy.h"

#include <dirent.h>
#include <dlfcn.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>

namespace mete {
namespace {

std::string read_word(const std::string& path) {
  std::ifstream file(path);
  std::string word;
  file >> word;
  return word;
}

/// The number in a file of digits; the reason it cannot be had goes to `why`.
std::optional<uint64_t> read_counter(const std::string& path, std::string& why) {
  std::FILE* file = std::fopen(path.c_str(), "re");
  if (file == nullptr) {
    why = path + ": " + std::strerror(errno);
    return std::nullopt;
  }
  unsigned long long value = 0;
  const int found = std::fscanf(file, "%llu", &value);
  std::fclose(file);
  if (found != 1) {
    why = path + ": found no number";
    return std::nullopt;
  }
  return value;
}

/// Folder names under `path` that start with "intel-rapl:" and have `colons` colons, sorted. AMD CPUs appear
/// under the same name.
std::vector<std::string> rapl_folders(const std::string& path, int64_t colons) {
  std::vector<std::string> names;
  DIR* dir = ::opendir(path.c_str());
  if (dir == nullptr) return names;
  while (const dirent* entry = ::readdir(dir)) {
    const std::string name = entry->d_name;
    if (name.rfind("intel-rapl:", 0) == 0 && std::count(name.begin(), name.end(), ':') == colons)
      names.push_back(name);
  }
  ::closedir(dir);
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace

/// The few functions of libnvidia-ml that are needed, with their C signatures (nvml.h); 0 is success.
struct EnergyMeter::Nvml {
  void* library = nullptr;
  int (*init)() = nullptr;
  int (*shutdown)() = nullptr;
  int (*count)(unsigned*) = nullptr;
  int (*handle)(unsigned, void**) = nullptr;
  int (*name)(void*, char*, unsigned) = nullptr;
  int (*energy)(void*, unsigned long long*) = nullptr;
  bool started = false;

  template <typename F>
  bool bind(F& function, const char* symbol) {
    function = reinterpret_cast<F>(::dlsym(library, symbol));
    return function != nullptr;
  }
  ~Nvml() {
    if (started) shutdown();
    if (library != nullptr) ::dlclose(library);
  }
};

EnergyMeter::EnergyMeter(const std::string& powercap, bool gpus) {
  find_zones(powercap);
  if (gpus) find_gpus();
}
EnergyMeter::~EnergyMeter() = default;

void EnergyMeter::find_zones(const std::string& powercap) {
  // Packages, and memory where it is a zone of its own; core and uncore are parts of their package.
  const std::vector<std::string> packages = rapl_folders(powercap, 1);
  if (packages.empty()) {
    sources_.push_back({"rapl", powercap + " has no intel-rapl zone (a virtual machine, or no driver)"});
    return;
  }
  const auto add = [&](const std::string& folder, const std::string& label) {
    std::string why;
    const auto value = read_counter(folder + "/energy_uj", why);
    const auto range = value ? read_counter(folder + "/max_energy_range_uj", why) : std::nullopt;
    if (range) zones_.push_back({folder + "/energy_uj", *range, *value, 0});
    sources_.push_back({label, why});
  };
  for (const std::string& package : packages) {
    const std::string folder = powercap + "/" + package, label = read_word(folder + "/name");
    if (label == "psys") continue;  // contains the packages
    add(folder, label);
    for (const std::string& zone : rapl_folders(folder, 2)) {
      if (read_word(folder + "/" + zone + "/name") == "dram") add(folder + "/" + zone, "dram of " + label);
    }
  }
}

void EnergyMeter::find_gpus() {
  auto nvml = std::make_unique<Nvml>();
  nvml->library = ::dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
  if (nvml->library == nullptr) {
    sources_.push_back({"nvml", "libnvidia-ml.so.1 is not installed"});
    return;
  }
  const bool bound = nvml->bind(nvml->init, "nvmlInit_v2") && nvml->bind(nvml->shutdown, "nvmlShutdown") &&
                     nvml->bind(nvml->count, "nvmlDeviceGetCount_v2") &&
                     nvml->bind(nvml->handle, "nvmlDeviceGetHandleByIndex_v2") &&
                     nvml->bind(nvml->name, "nvmlDeviceGetName") &&
                     nvml->bind(nvml->energy, "nvmlDeviceGetTotalEnergyConsumption");
  if (!bound) {
    sources_.push_back({"nvml", "libnvidia-ml.so.1 lacks a function that is needed"});
    return;
  }
  unsigned count = 0;
  if (const int code = nvml->init(); code != 0) {
    sources_.push_back({"nvml", "nvmlInit fails with code " + std::to_string(code)});
    return;
  }
  nvml->started = true;
  if (nvml->count(&count) != 0 || count == 0) {
    sources_.push_back({"nvml", "no GPU"});
    return;
  }
  for (unsigned i = 0; i < count; ++i) {
    void* device = nullptr;
    char text[96] = "?";
    unsigned long long mj = 0;
    std::string label = "gpu " + std::to_string(i);
    if (nvml->handle(i, &device) != 0) {
      sources_.push_back({label, "no handle"});
      continue;
    }
    if (nvml->name(device, text, sizeof text) == 0) label += std::string(" (") + text + ")";
    if (const int code = nvml->energy(device, &mj); code != 0) {
      sources_.push_back({label, "no energy counter, code " + std::to_string(code)});
      continue;
    }
    gpus_.push_back({device, mj});
    sources_.push_back({label, ""});
  }
  nvml_ = std::move(nvml);
}

std::optional<double> EnergyMeter::joules() {
  if (!available() || failed_) return std::nullopt;
  double sum = 0;
  std::string why;
  for (Zone& zone : zones_) {
    const auto now = read_counter(zone.path, why);
    if (!now) {
      failed_ = true;
      sources_.push_back({zone.path, why});
      return std::nullopt;
    }
    zone.total += *now >= zone.last ? *now - zone.last : *now + zone.range - zone.last;
    zone.last = *now;
    sum += static_cast<double>(zone.total) * 1e-6;
  }
  for (const Gpu& gpu : gpus_) {
    unsigned long long mj = 0;
    if (nvml_->energy(gpu.device, &mj) != 0 || mj < gpu.first) {
      failed_ = true;
      sources_.push_back({"nvml", "the energy counter failed"});
      return std::nullopt;
    }
    sum += static_cast<double>(mj - gpu.first) * 1e-3;
  }
  return sum;
}

std::string EnergyMeter::why_not() const {
  if (available() && !failed_) return {};
  std::string text;
  for (const PowerSource& source : sources_) {
    if (source.reason.empty()) continue;
    text += (text.empty() ? "" : "; ") + source.name + ": " + source.reason;
  }
  return text;
}

}  // namespace mete
