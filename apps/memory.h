// `--memory` as the commands share it: what is said at start, in receipts, and when the ceiling changes.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "engine/runtime.h"

namespace mete {

/// One line about the ceiling, if there is one, and one for each thing that is not as usual, on stderr.
void announce_memory(const char* command, const Runtime& runtime);

/// memory_budget_bytes, memory_floor_bytes (both only under a ceiling), memory_peak_bytes, memory_lines:
/// {name:
/// {"planned", "used"}}, unnamed_bytes. The peak is of resident memory with page tables; the line page_cache
/// counts the file's pages that were not there at start, whoever read them.
void add_memory(nlohmann::ordered_json& receipt, const Runtime& runtime, const MemoryUse& use);

/// The same for people, on stderr.
void print_memory(const Runtime& runtime, const MemoryUse& use);

/// Rereads `--memory-file` at SIGUSR1.
class MemoryWatch {
 public:
  /// No effect with an empty path.
  MemoryWatch(const char* command, std::string path);
  /// Between steps: applies a ceiling that the file now holds. Says on stderr what came of it.
  void poll(Runtime& runtime);

 private:
  const char* command_;
  std::string path_;
};

}  // namespace mete
