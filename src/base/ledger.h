// The one ledger: where the engine's wall time went, and what it moved and counted meanwhile.
//
// The engine's thread is in exactly one Part at any time. Changing parts reads the clock once, so the parts
// add up to wall time by construction. Only the engine's thread may report; background readers leave their
// figures where that thread picks them up.
#pragma once

#include <x86intrin.h>

#include <array>
#include <cstddef>
#include <cstdint>

namespace mete {

enum class Part : uint8_t {
  kIdle,         ///< outside the engine: waiting for requests, text work, output
  kSchedule,     ///< forming batches, KV slots, bookkeeping of sequences
  kEmbed,        ///< rows of embedding tables
  kElementwise,  ///< norms, RoPE, activation functions, residuals
  kMatmul,       ///< linear layers outside the three below
  kKvStore,      ///< K and V rows through the codec into pages
  kAttention,    ///< reading K and V
  kRecurrent,    ///< state of layers that recur instead of attending
  kRouter,       ///< choosing experts
  kExperts,      ///< routed experts' matrices
  kExpertWait,   ///< waiting for experts to be read from the drive
  kEmbedWait,    ///< waiting for rows of embedding tables to be read from the drive
  kLogits,       ///< output norm and output matrix
  kSample,       ///< hashing logits, choosing tokens
  kDraft,        ///< proposing tokens
};
inline constexpr size_t kPartCount = 15;
const char* name(Part part);

enum class Counter : uint8_t {
  kSteps,
  kRows,             ///< rows of all steps
  kPromptTokens,     ///< prompt rows computed (not taken from the KV cache)
  kGeneratedTokens,  ///< tokens sampled
  kKvBytesWritten,
  kDiskBytes,  ///< of experts, read from the drive after loading
  kDiskReads,
  kExpertHits,
  kExpertMisses,
  kEmbedDiskBytes,  ///< of embedding tables, read from the drive after loading
  kEmbedDiskReads,
  kEmbedHits,  ///< distinct rows of a step that were in the row cache
  kEmbedMisses,
  kDraftsProposed,
  kDraftsAccepted,
};
inline constexpr size_t kCounterCount = 15;
const char* name(Counter counter);

/// A point in time: all totals so far. Two of them make a report.
struct LedgerMark {
  std::array<int64_t, kPartCount> ticks{};
  std::array<int64_t, kPartCount> bytes{};
  std::array<int64_t, kCounterCount> counters{};
  int64_t switches = 0;
  int64_t clock_ns = 0;
};

/// What happened between two marks.
struct LedgerReport {
  double wall_s = 0;
  std::array<double, kPartCount> seconds{};  ///< add up to wall_s
  std::array<int64_t, kPartCount> bytes{};   ///< weights, experts or KV read from memory by the part
  std::array<int64_t, kCounterCount> counters{};
  int64_t switches = 0;  ///< reports that read the clock: what the ledger itself costs is a multiple of them

  double seconds_in(Part part) const { return seconds[static_cast<size_t>(part)]; }
  int64_t bytes_in(Part part) const { return bytes[static_cast<size_t>(part)]; }
  int64_t count(Counter counter) const { return counters[static_cast<size_t>(counter)]; }
  int64_t bytes_read() const;  ///< of all parts
  LedgerReport& operator+=(const LedgerReport& other);
};
LedgerReport between(const LedgerMark& begin, const LedgerMark& end);

class Ledger {
 public:
  /// Nanoseconds, monotonic. Null: the time-stamp counter where it runs at a constant rate (scaled to the
  /// monotonic clock when a report is made), else the monotonic clock.
  using ClockFn = int64_t (*)();
  explicit Ledger(ClockFn clock = nullptr);

  /// What follows belongs to `part`, unless a PartScope holds another.
  void enter(Part part) noexcept {
    if (part != current_ && holds_ == 0) switch_to(part);
  }
  Part current() const noexcept { return current_; }
  /// Bytes of weights or KV that the current part reads from memory.
  void read(int64_t bytes) noexcept { bytes_[static_cast<size_t>(current_)] += bytes; }
  void add(Counter counter, int64_t count) noexcept { counters_[static_cast<size_t>(counter)] += count; }
  /// The totals up to now.
  LedgerMark mark() noexcept;

 private:
  friend class PartScope;
  void switch_to(Part part) noexcept {
    const int64_t now = ticks();
    ticks_[static_cast<size_t>(current_)] += now - since_;
    since_ = now;
    current_ = part;
    ++switches_;
  }
  int64_t ticks() const noexcept { return clock_ == nullptr ? static_cast<int64_t>(__rdtsc()) : clock_(); }

  ClockFn clock_;
  Part current_ = Part::kIdle;
  int holds_ = 0;
  int64_t since_;
  std::array<int64_t, kPartCount> ticks_{}, bytes_{};
  std::array<int64_t, kCounterCount> counters_{};
  int64_t switches_ = 0;
};

/// While it lives, time belongs to `part` whatever ops enter; an inner scope wins. A null ledger: nothing.
class PartScope {
 public:
  PartScope(Ledger* ledger, Part part) noexcept : ledger_(ledger) {
    if (ledger_ == nullptr) return;
    before_ = ledger_->current_;
    ++ledger_->holds_;
    if (part != before_) ledger_->switch_to(part);
  }
  ~PartScope() {
    if (ledger_ == nullptr) return;
    --ledger_->holds_;
    if (ledger_->current_ != before_) ledger_->switch_to(before_);
  }
  PartScope(const PartScope&) = delete;
  PartScope& operator=(const PartScope&) = delete;

 private:
  Ledger* ledger_;
  Part before_ = Part::kIdle;
};

}  // namespace mete
