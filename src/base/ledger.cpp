#include "base/ledger.h"

#include <cpuid.h>

#include <chrono>

namespace mete {
namespace {

int64_t monotonic_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

/// CPUID 0x80000007, EDX bit 8: the time-stamp counter runs at one rate in all states of the CPU.
bool constant_rate_tsc() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(0x80000007, &a, &b, &c, &d) != 0 && ((d >> 8) & 1u) != 0;
}

Ledger::ClockFn choose_clock(Ledger::ClockFn clock) {
  if (clock != nullptr) return clock;
  return constant_rate_tsc() ? nullptr : monotonic_ns;
}

}  // namespace

const char* name(Part part) {
  static constexpr const char* kNames[kPartCount] = {
      "idle",   "schedule", "embed",       "elementwise", "matmul", "kv_store", "attention", "recurrent",
      "router", "experts",  "expert_wait", "embed_wait",  "logits", "sample",   "draft"};
  return kNames[static_cast<size_t>(part)];
}

const char* name(Counter counter) {
  static constexpr const char* kNames[kCounterCount] = {"steps",
                                                        "rows",
                                                        "prompt_tokens",
                                                        "generated_tokens",
                                                        "kv_bytes_written",
                                                        "disk_bytes",
                                                        "disk_reads",
                                                        "expert_hits",
                                                        "expert_misses",
                                                        "embed_disk_bytes",
                                                        "embed_disk_reads",
                                                        "embed_hits",
                                                        "embed_misses",
                                                        "drafts_proposed",
                                                        "drafts_accepted"};
  return kNames[static_cast<size_t>(counter)];
}

int64_t LedgerReport::bytes_read() const {
  int64_t sum = 0;
  for (const int64_t b : bytes) sum += b;
  return sum;
}

LedgerReport& LedgerReport::operator+=(const LedgerReport& other) {
  wall_s += other.wall_s;
  for (size_t i = 0; i < kPartCount; ++i) {
    seconds[i] += other.seconds[i];
    bytes[i] += other.bytes[i];
  }
  for (size_t i = 0; i < kCounterCount; ++i) counters[i] += other.counters[i];
  switches += other.switches;
  return *this;
}

LedgerReport between(const LedgerMark& begin, const LedgerMark& end) {
  LedgerReport report;
  report.wall_s = static_cast<double>(end.clock_ns - begin.clock_ns) * 1e-9;
  int64_t total = 0;
  for (size_t i = 0; i < kPartCount; ++i) total += end.ticks[i] - begin.ticks[i];
  const double scale = total > 0 ? report.wall_s / static_cast<double>(total) : 0;
  for (size_t i = 0; i < kPartCount; ++i) {
    report.seconds[i] = static_cast<double>(end.ticks[i] - begin.ticks[i]) * scale;
    report.bytes[i] = end.bytes[i] - begin.bytes[i];
  }
  for (size_t i = 0; i < kCounterCount; ++i) report.counters[i] = end.counters[i] - begin.counters[i];
  report.switches = end.switches - begin.switches;
  return report;
}

Ledger::Ledger(ClockFn clock) : clock_(choose_clock(clock)), since_(ticks()) {}

LedgerMark Ledger::mark() noexcept {
  switch_to(current_);
  return {ticks_, bytes_, counters_, switches_, clock_ == nullptr ? monotonic_ns() : since_};
}

}  // namespace mete
