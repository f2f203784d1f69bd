#include "format/hub_cache.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <vector>

namespace mete {
namespace {

namespace fs = std::filesystem;

const char* environment(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0' ? value : nullptr;
}

/// Empty if there is no home directory either.
fs::path cache_directory() {
  if (const char* cache = environment("HF_HUB_CACHE")) return cache;
  if (const char* home = environment("HF_HOME")) return fs::path(home) / "hub";
  if (const char* cache = environment("XDG_CACHE_HOME")) return fs::path(cache) / "huggingface" / "hub";
  if (const char* home = environment("HOME")) return fs::path(home) / ".cache" / "huggingface" / "hub";
  return {};
}

/// "org/name": one slash, and characters that the hub allows, so that no path leaves the cache.
bool is_repository(const std::string& text) {
  if (std::count(text.begin(), text.end(), '/') != 1 || text.find("..") != std::string::npos) return false;
  if (text.front() == '/' || text.back() == '/' || text.front() == '.') return false;
  return std::all_of(text.begin(), text.end(), [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '/' || c == '-' || c == '_' || c == '.';
  });
}

std::string lower(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

bool is_later_part(const std::string& file) {
  const size_t at = file.rfind("-of-");
  return at != std::string::npos && at >= 5 && file.size() == at + 14 &&
         file.compare(at - 5, 5, "00001") != 0;
}

/// The snapshot that refs/main names, else the only one, else nothing.
fs::path find_snapshot(const fs::path& repository) {
  std::error_code ignored;
  std::string revision;
  std::ifstream(repository / "refs" / "main") >> revision;
  const bool plain = !revision.empty() && std::all_of(revision.begin(), revision.end(),
                                                      [](unsigned char c) { return std::isxdigit(c) != 0; });
  if (plain && fs::is_directory(repository / "snapshots" / revision, ignored))
    return repository / "snapshots" / revision;
  std::vector<fs::path> snapshots;
  for (const auto& entry : fs::directory_iterator(repository / "snapshots", ignored))
    snapshots.push_back(entry.path());
  return snapshots.size() == 1 ? snapshots[0] : fs::path();
}

/// Paths, relative to the snapshot, of its GGUF models; of a split model only the first part. Sorted.
std::vector<std::string> list_models(const fs::path& snapshot) {
  std::vector<std::string> models;
  std::error_code error;
  for (fs::recursive_directory_iterator it(snapshot, error), end; !error && it != end; it.increment(error)) {
    const std::string file = it->path().lexically_relative(snapshot).string();
    std::error_code ignored;
    if (it->path().extension() == ".gguf" && it->is_regular_file(ignored) && !is_later_part(file))
      models.push_back(file);
  }
  std::sort(models.begin(), models.end());
  return models;
}

std::vector<std::string> select(const std::vector<std::string>& models, const std::string& which) {
  std::vector<std::string> chosen;
  for (const std::string& model : models) {
    if (model == which || fs::path(model).filename() == which) return {model};
    if (lower(model).find(lower(which)) != std::string::npos) chosen.push_back(model);
  }
  return chosen;
}

std::string join(const std::vector<std::string>& items) {
  std::string text;
  for (const std::string& item : items) text += (text.empty() ? "" : ", ") + item;
  return text;
}

}  // namespace

Result<std::string> resolve_model_path(const std::string& argument) {
  std::error_code ignored;
  if (fs::exists(argument, ignored)) return argument;
  const size_t colon = argument.find(':');
  const std::string name = argument.substr(0, colon);
  const std::string which = colon == std::string::npos ? "" : argument.substr(colon + 1);
  if (name.empty() || !is_repository(name)) return run_failure("{}: no such file", argument);
  const fs::path cache = cache_directory();
  if (cache.empty()) return run_failure("{}: no such file, and no hub cache: HOME is not set", argument);
  const fs::path repository = cache / ("models--" + std::string(name).replace(name.find('/'), 1, "--"));
  if (!fs::is_directory(repository, ignored)) {
    return run_failure("{}: no such file, and not in the hub cache: no directory {}", argument,
                       repository.string());
  }
  const fs::path snapshot = find_snapshot(repository);
  if (snapshot.empty()) {
    return run_failure("{}: the hub cache has no snapshot for it: {} names none", argument,
                       (repository / "refs" / "main").string());
  }
  const std::vector<std::string> models = list_models(snapshot);
  const std::vector<std::string> chosen = select(models, which);
  if (chosen.size() == 1) return (snapshot / chosen[0]).string();
  if (chosen.empty()) {
    return run_failure("{}: no GGUF file{} in {}, which has: {}", argument,
                       which.empty() ? "" : " named " + which, snapshot.string(),
                       models.empty() ? "none" : join(models));
  }
  return bad_usage("{}: {} GGUF files fit in {}, expected one; name one as {}:FILE: {}", argument,
                   chosen.size(), snapshot.string(), name, join(chosen));
}

}  // namespace mete
