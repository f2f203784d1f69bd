// Counters and histograms of the server, and their text in Prometheus' exposition format.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <span>
#include <string>

#include "engine/engine.h"

namespace mete {

/// Cumulative histogram; observe() from any one thread at a time, reading from any.
class Histogram {
 public:
  /// `bounds`: upper bounds in ascending order, at most 32, that outlive the histogram.
  explicit Histogram(std::span<const double> bounds) : bounds_(bounds) {}
  void observe(double value);
  /// Lines "NAME_bucket{LABELS,le="..."} N", _sum, _count.
  void write(std::string& out, const std::string& name, const std::string& labels) const;

 private:
  std::span<const double> bounds_;
  std::array<std::atomic<uint64_t>, 33> counts_{};
  std::atomic<double> sum_{0};
};

/// What the HTTP side adds when a page of metrics is written.
struct MetricsInput {
  EngineStats stats;
  std::string model;
  int64_t max_running = 0, connections = 0, kv_bytes = 0, rss_bytes = 0;
};

struct Metrics {
  Metrics();
  Histogram time_to_first_token, inter_token_latency, e2e_latency, queue_time, prefill_time, decode_time;
  Histogram prompt_tokens, generation_tokens;
  std::array<std::atomic<uint64_t>, 6> finished{};  ///< by FinishReason
  std::atomic<uint64_t> http_requests{0}, http_errors{0}, rejected{0};
  std::atomic<uint64_t> prompt_total{0}, generation_total{0};
  std::atomic<double> prefill_seconds{0}, decode_seconds{0};

  /// Of a sequence that ended; called on the engine's thread.
  void observe_end(FinishReason reason, const SequenceLedger& ledger, int64_t generated, double now);

  /// vLLM's names; with `llama_names` also those of llama-server.
  std::string page(const MetricsInput& input, bool llama_names) const;
};

}  // namespace mete
