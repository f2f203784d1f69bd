// Runs a Python program that nobody has read: under bubblewrap in its own namespaces, without network, with a
// read-only /usr and a private /tmp and nothing else of the file system, as nobody, with no new processes or
// threads (seccomp), and with limits of time, memory and file size.
#pragma once

#include <string>

#include "base/error.h"

namespace mete {

struct SandboxLimits {
  double wall_s = 15;
  int cpu_s = 10;
  int64_t memory_bytes = int64_t{1} << 30;  ///< address space
  int64_t file_bytes = int64_t{16} << 20;   ///< of one file; /tmp holds four times as much
  size_t output_bytes = size_t{1} << 16;    ///< kept of stdout and stderr together; the rest is dropped
};

struct SandboxRun {
  bool timed_out = false;
  int exit_code = -1;  ///< 128 + n: ended by signal n; -1: timed out
  std::string output;  ///< stdout and stderr
};

class Sandbox {
 public:
  /// Looks for bwrap and python3 and runs a program that checks every promise of this file. An error
  /// (kRuntime) says what is missing or which promise is not kept; then nothing may be run.
  static Result<Sandbox> open(const SandboxLimits& limits = {});

  /// An error only if the program could not be started.
  Result<SandboxRun> run_python(const std::string& program) const;

 private:
  explicit Sandbox(const SandboxLimits& limits) : limits_(limits) {}
  SandboxLimits limits_;
};

}  // namespace mete
