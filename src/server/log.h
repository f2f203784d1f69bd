// Log lines on stderr, for people or as one JSON object each.
#pragma once

#include <mutex>
#include <string>

#include "server/api_error.h"

namespace mete {

class Log {
 public:
  explicit Log(bool json) : json_(json) {}
  /// One line: an event's name and its fields. From any thread.
  void write(const char* event, const Json& fields);

 private:
  bool json_;
  std::mutex mutex_;
};

}  // namespace mete
