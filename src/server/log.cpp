#include "server/log.h"

#include <cstdio>
#include <ctime>

namespace mete {
namespace {

std::string timestamp() {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  std::tm parts{};
  ::gmtime_r(&now.tv_sec, &parts);
  char text[32];
  const size_t size = std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &parts);
  return fmt::format("{}.{:03}Z", std::string_view(text, size), now.tv_nsec / 1000000);
}

}  // namespace

void Log::write(const char* event, const Json& fields) {
  std::string line;
  if (json_) {
    Json out = {{"time", timestamp()}, {"event", event}};
    for (const auto& [key, value] : fields.items()) out[key] = value;
    line = to_text(out);
  } else {
    line = fmt::format("{} {}", timestamp(), event);
    // JSON text of a string has no control characters.
    for (const auto& [key, value] : fields.items()) {
      const std::string text = to_text(value);
      const bool plain =
          value.is_string() && text.find_first_of(" \\=") == std::string::npos && text.size() > 2;
      line += fmt::format(" {}={}", key, plain ? text.substr(1, text.size() - 2) : text);
    }
  }
  line += '\n';
  const std::lock_guard lock(mutex_);
  std::fwrite(line.data(), 1, line.size(), stderr);
}

}  // namespace mete
