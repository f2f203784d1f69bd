// Progress of long work on stderr: a line that is rewritten on a terminal, a plain line every few seconds
// elsewhere, nothing at all for work that is over in a moment.
#pragma once

#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <string>

#include "base/clock.h"

namespace mete {

class Progress {
 public:
  explicit Progress(std::string what) : what_(std::move(what)), start_(now_seconds()), last_(start_) {}
  ~Progress() { clear(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void update(int64_t done, int64_t total) {
    const double now = now_seconds();
    const double interval = terminal_ ? 0.1 : 5.0;
    if (now - start_ < 0.5 || now - last_ < interval || total <= 0) return;
    last_ = now;
    const int percent = static_cast<int>(100 * static_cast<double>(done) / static_cast<double>(total));
    std::fprintf(stderr, terminal_ ? "\r%s: %3d %%" : "%s: %d %%\n", what_.c_str(), percent);
    std::fflush(stderr);
    shown_ = true;
  }
  void clear() {
    if (shown_ && terminal_) std::fprintf(stderr, "\r%*s\r", static_cast<int>(what_.size()) + 8, "");
    shown_ = false;
  }
  /// For C-style callbacks: user is a Progress.
  static void callback(void* user, int64_t done, int64_t total) {
    static_cast<Progress*>(user)->update(done, total);
  }

 private:
  std::string what_;
  double start_, last_;
  bool terminal_ = ::isatty(STDERR_FILENO) == 1;
  bool shown_ = false;
};

}  // namespace mete
