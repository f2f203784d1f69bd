#include "server/metrics.h"

#include <algorithm>

namespace mete {
namespace {

// Bounds in seconds and tokens, vLLM's.
constexpr double kFirstToken[] = {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75,
                                  1,     2.5,   5,    7.5,  10,   20,   40,   80,  160,  640, 2560};
constexpr double kBetweenTokens[] = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3,
                                     0.4,   0.5,    0.75,  1,    2.5,   5,    7.5,   10,  20,   40,  80};
constexpr double kRequest[] = {0.3, 0.5, 0.8, 1,  1.5, 2,   2.5, 5,   10,   15,  20,
                               30,  40,  50,  60, 120, 240, 480, 960, 1920, 7680};
constexpr double kTokens[] = {1,   2,    5,    10,   20,    50,    100,   200,
                              500, 1000, 2000, 5000, 10000, 20000, 50000, 100000};

void add(std::atomic<double>& sum, double value) { sum.store(sum.load() + value); }

/// A label value: backslash, quote and newline escaped.
std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '\\' || c == '"') out += '\\';
    out += c == '\n' ? ' ' : c;
  }
  return out;
}

class Page {
 public:
  Page(std::string prefix, std::string labels) : prefix_(std::move(prefix)), labels_(std::move(labels)) {}
  void head(const char* name, const char* type, const char* help) {
    text += fmt::format("# HELP {}{} {}\n# TYPE {}{} {}\n", prefix_, name, help, prefix_, name, type);
  }
  template <typename T>
  void sample(const char* name, T value, const std::string& more = "") {
    const std::string labels = labels_ + more;
    text += fmt::format("{}{}{} {}\n", prefix_, name, labels.empty() ? "" : "{" + labels + "}", value);
  }
  template <typename T>
  void gauge(const char* name, const char* help, T value) {
    head(name, "gauge", help);
    sample(name, value);
  }
  template <typename T>
  void counter(const char* name, const char* help, T value) {
    head(name, "counter", help);
    sample(name, value);
  }
  void histogram(const char* name, const char* help, const Histogram& values) {
    head(name, "histogram", help);
    values.write(text, prefix_ + name, labels_);
  }
  std::string text;

 private:
  std::string prefix_, labels_;
};

double share(int64_t part, int64_t whole) {
  return whole > 0 ? static_cast<double>(part) / static_cast<double>(whole) : 0.0;
}
double rate(uint64_t count, double seconds) {
  return seconds > 0 ? static_cast<double>(count) / seconds : 0.0;
}

}  // namespace

void Histogram::observe(double value) {
  const auto bucket =
      static_cast<size_t>(std::lower_bound(bounds_.begin(), bounds_.end(), value) - bounds_.begin());
  counts_[bucket].fetch_add(1, std::memory_order_relaxed);
  add(sum_, value);
}

void Histogram::write(std::string& out, const std::string& name, const std::string& labels) const {
  uint64_t total = 0;
  for (size_t i = 0; i <= bounds_.size(); ++i) {
    total += counts_[i].load(std::memory_order_relaxed);
    const std::string bound = i < bounds_.size() ? fmt::format("{}", bounds_[i]) : "+Inf";
    out += fmt::format("{}_bucket{{{},le=\"{}\"}} {}\n", name, labels, bound, total);
  }
  out += fmt::format("{}_sum{{{}}} {}\n{}_count{{{}}} {}\n", name, labels, sum_.load(), name, labels, total);
}

Metrics::Metrics()
    : time_to_first_token(kFirstToken),
      inter_token_latency(kBetweenTokens),
      e2e_latency(kRequest),
      queue_time(kRequest),
      prefill_time(kRequest),
      decode_time(kRequest),
      prompt_tokens(kTokens),
      generation_tokens(kTokens) {}

void Metrics::observe_end(FinishReason reason, const SequenceLedger& ledger, int64_t generated, double now) {
  finished[static_cast<size_t>(reason)].fetch_add(1);
  prompt_total.fetch_add(static_cast<uint64_t>(ledger.prompt_tokens));
  generation_total.fetch_add(static_cast<uint64_t>(generated));
  prompt_tokens.observe(static_cast<double>(ledger.prompt_tokens));
  generation_tokens.observe(static_cast<double>(generated));
  e2e_latency.observe(now - ledger.submitted);
  if (generated == 0) return;
  time_to_first_token.observe(ledger.ttft_s());
  queue_time.observe(std::max(0.0, ledger.ttft_s() - ledger.prefill_s));
  prefill_time.observe(ledger.prefill_s);
  decode_time.observe(ledger.decode_s());
  add(prefill_seconds, ledger.prefill_s);
  add(decode_seconds, ledger.decode_s());
}

std::string Metrics::page(const MetricsInput& in, bool llama_names) const {
  const std::string labels = fmt::format("model_name=\"{}\",engine=\"0\"", escaped(in.model));
  const EngineStats& s = in.stats;
  Page p("vllm:", labels);
  p.gauge("num_requests_running", "Sequences that share steps.", s.running);
  p.gauge("num_requests_waiting", "Sequences in the queue.", s.queued);
  p.gauge("kv_cache_usage_perc",
          "KV slots of running sequences, 0 to 1; what is kept for reuse only counts as free.",
          share(s.kv_slots_used, s.kv_slots_total));
  p.head("cache_config_info", "gauge", "Tokens of a KV page, and pages.");
  p.sample("cache_config_info", 1,
           fmt::format(",block_size=\"{}\",num_gpu_blocks=\"{}\"", s.page_slots, s.pages));
  p.counter("prefix_cache_queries_total", "Prompt tokens looked up in the prefix cache.",
            s.cache_query_tokens);
  p.counter("prefix_cache_hits_total", "Prompt tokens found there.", s.cache_hit_tokens);
  p.counter("num_preemptions_total", "Sequences that had to start anew for want of KV memory.",
            s.preemptions);
  p.counter("prompt_tokens_total", "Prompt tokens of ended sequences.", prompt_total.load());
  p.counter("generation_tokens_total", "Generated tokens.", s.generated_tokens);
  p.head("request_success_total", "counter", "Ended sequences.");
  for (size_t i = 1; i < finished.size(); ++i) {
    p.sample("request_success_total", finished[i].load(),
             fmt::format(",finished_reason=\"{}\"", name(static_cast<FinishReason>(i))));
  }
  p.histogram("time_to_first_token_seconds", "From arrival to the first token.", time_to_first_token);
  p.histogram("inter_token_latency_seconds", "Between two tokens of a sequence.", inter_token_latency);
  p.histogram("e2e_request_latency_seconds", "From arrival to the end.", e2e_latency);
  p.histogram("request_queue_time_seconds", "Before the first step of a sequence.", queue_time);
  p.histogram("request_prefill_time_seconds", "Steps up to the first token.", prefill_time);
  p.histogram("request_decode_time_seconds", "From the first token to the last.", decode_time);
  p.histogram("request_prompt_tokens", "Prompt tokens of a sequence.", prompt_tokens);
  p.histogram("request_generation_tokens", "Generated tokens of a sequence.", generation_tokens);

  Page own("mete_", labels);
  own.counter("http_requests_total", "Requests.", http_requests.load());
  own.counter("http_errors_total", "Responses of status 400 and above.", http_errors.load());
  own.counter("rejected_total", "Requests refused because the queue was full.", rejected.load());
  own.gauge("connections", "Open connections.", in.connections);
  own.gauge("kv_bytes", "Bytes of KV memory.", in.kv_bytes);
  own.gauge("resident_bytes", "Resident memory of the process.", in.rss_bytes);
  own.gauge("kv_slots_cached", "KV slots kept for reuse only.", s.kv_slots_cached);
  own.counter("steps_total", "Steps of the engine.", s.steps);
  own.counter("prefilled_tokens_total", "Rows of prompts that were computed.", s.prefilled_tokens);
  if (!llama_names) return p.text + own.text;

  Page l("llamacpp:", "");  // they have no labels
  l.counter("prompt_tokens_total", "Number of prompt tokens processed.", s.prefilled_tokens);
  l.counter("prompt_tokens_cached_total", "Prompt tokens found in the prefix cache.", s.cache_hit_tokens);
  l.counter("prompt_seconds_total", "Prompt process time.", prefill_seconds.load());
  l.counter("tokens_predicted_total", "Number of generation tokens processed.", s.generated_tokens);
  l.counter("tokens_predicted_seconds_total", "Predict process time.", decode_seconds.load());
  l.counter("n_decode_total", "Steps of the engine.", s.steps);
  l.gauge("n_busy_slots_per_decode", "Average number of busy slots per step.",
          share(s.generated_tokens, s.steps));
  l.gauge("prompt_tokens_seconds", "Average prompt throughput in tokens/s.",
          rate(static_cast<uint64_t>(s.prefilled_tokens), prefill_seconds.load()));
  l.gauge("predicted_tokens_seconds", "Average generation throughput in tokens/s.",
          rate(static_cast<uint64_t>(s.generated_tokens), decode_seconds.load()));
  l.gauge("requests_processing", "Number of requests processing.", s.running);
  l.gauge("requests_deferred", "Number of requests deferred.", s.queued);
  return p.text + own.text + l.text;
}

}  // namespace mete
