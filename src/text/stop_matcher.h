// Stop strings over streamed text: text is held back while it could still become a stop string.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace mete {

class StopMatcher {
 public:
  /// Empty strings are ignored.
  explicit StopMatcher(std::vector<std::string> stops);

  /// Appends text; returns what is now certain not to belong to a stop string. After stopped() it returns "".
  std::string put(std::string_view text);
  /// The text still held back (none if stopped).
  std::string finish();
  /// A stop string was completed: everything from its first byte on is dropped.
  bool stopped() const { return stopped_; }
  /// The stop string that was completed, or "".
  const std::string& found() const { return found_; }

 private:
  std::vector<std::string> stops_;
  std::string held_, found_;
  bool stopped_ = false;
};

}  // namespace mete
