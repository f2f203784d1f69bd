// The rows that `mete bench` prints: as JSON objects with llama-bench's field names, CSV, a Markdown table.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "apps/bench_options.h"

namespace mete {

/// What all rows of a run share.
struct BenchSetting {
  std::string model_hash;      ///< "xxh3:..." of the file's bytes
  std::string power;           ///< why there are no joules; empty if there are
  std::string text;            ///< "built-in" or the text file
  int64_t params = 0;          ///< weights in the file
  bool float_weights = false;  ///< most bytes are F32, F16 or BF16: prefill is held against the float peak
  double report_s = 0;         ///< measure_report_seconds()
};

/// A test with everything measured for it.
struct BenchRow {
  BenchTest test;
  std::vector<BenchSample> samples;
  MachineLimits limits;  ///< measured right after the samples, with as many threads
  MemoryUse memory;
  int64_t peak_rss = 0;
};

nlohmann::ordered_json row_json(const BenchRow& row, const Runtime& runtime, const BenchOptions& options,
                                const BenchSetting& setting);

/// Seconds to load the model, with the page cache cold or warm.
struct LoadRow {
  bool cold = false;
  std::string note;  ///< why a cold load could not be measured; the samples are then empty
  std::vector<double> seconds;
  double drive_bytes_per_s = 0;  ///< sequential direct reads of the file, measured beside; 0 if not possible
  int64_t file_bytes = 0;
  int64_t peak_rss = 0;
};
nlohmann::ordered_json load_json(const LoadRow& row, const BenchOptions& options,
                                 const BenchSetting& setting);

/// Table of rows made by row_json and load_json, with what they share below.
std::string markdown(const nlohmann::ordered_json& rows);
std::string csv(const nlohmann::ordered_json& rows);

/// Ratios of `rows` to those of the same test and threads in an earlier run. Throws Error(kRuntime) if `path`
/// is no array of rows.
std::string compare(const nlohmann::ordered_json& rows, const std::string& path);

/// "xxh3:<16 hex digits>" over the bytes of a file, or over a 1 MiB piece of every 64 MiB ("xxh3/64:") of
/// files above 4 GiB. Throws Error(kRuntime).
std::string file_hash(const std::string& path);

/// What is fed when no text is given.
extern const char* const kBenchText;

}  // namespace mete
