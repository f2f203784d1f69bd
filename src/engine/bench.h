// Timed runs over a loaded model: prompts in steps of many rows, then tokens one by one, for one or several
// sequences at once. Bypasses sampling; the tokens are those of a text, so that routing and tokenizer see
// language.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/clock.h"
#include "base/energy.h"
#include "base/machine_limits.h"
#include "engine/runtime.h"

namespace mete {

/// `prompt` tokens in steps of up to max_rows, then `gen` steps of one token, both for each of `sequences`
/// sequences, after `depth` tokens each that are not timed.
struct BenchTest {
  int64_t prompt = 0, gen = 0, depth = 0;
  int sequences = 1;
  int threads = 1;

  int64_t tokens() const { return (prompt + gen) * sequences; }
};

struct BenchPhase {
  double seconds = 0;
  LedgerReport ledger;
};
/// One timed run.
struct BenchSample {
  BenchPhase prompt, gen;        ///< prompt.seconds is the time to the first token (of all sequences)
  std::optional<double> joules;  ///< nullopt: no counter can be read

  double seconds() const { return prompt.seconds + gen.seconds; }
};

class BenchRunner {
 public:
  using ClockFn = double (*)();
  /// `text`: token ids, at least one; each run starts at another place of it. `meter` may be null.
  BenchRunner(Runtime& runtime, std::vector<int32_t> text, EnergyMeter* meter, ClockFn clock = now_seconds);

  /// Throws Error(kRuntime) if the KV pool is too small. `rotation` chooses the place in the text.
  BenchSample run(const BenchTest& test, int64_t rotation);

 private:
  void go_to_depth(const BenchTest& test);
  void feed_prompt(int seq, int64_t count, bool logits);
  void feed_one_each();
  int32_t token(int seq, int64_t position) const;

  Runtime& runtime_;
  std::vector<int32_t> text_;
  EnergyMeter* meter_;
  ClockFn clock_;
  int64_t rotation_ = 0;
  std::vector<SeqId> seqs_;
  std::vector<int64_t> positions_;  // tokens in each sequence
  int64_t depth_ = -1;              // that all sequences can be cut back to
  AlignedBuffer logits_;
  std::vector<Row> rows_;
  std::vector<int32_t> logits_rows_;
};

/// What the samples of one test say.
struct BenchFigures {
  Spread tokens_per_s;
  double mean = 0, deviation = 0;  ///< of tokens/s; sample standard deviation
  Spread first_token_s;            ///< all 0 without a prompt
  double bytes_per_token = 0;      ///< weights and KV read from memory
  double bytes_per_s = 0, ops_per_s = 0;
  std::optional<double> joules_per_token;  ///< nullopt too if the samples took less than a second together
  LedgerReport ledger;                     ///< of all samples together
  double ledger_share = 0;                 ///< of the time: what the ledger's own reports cost
  /// Least seconds that memory and arithmetic of the phases need at the limits, over the seconds taken; 0 if
  /// the limits are not known.
  double share_of_limit = 0;
  bool bound_by_memory = false;  ///< which limit binds for most of that time
};

/// Multiply-adds of one row through the layers and of one row of logits, and the peak they are held against.
struct BenchCost {
  double macs_per_row = 0, macs_per_logits = 0;
  double ops_per_s = 0, read_bytes_per_s = 0;  ///< limits
  double report_s = 0;                         ///< of one report to the ledger
};

BenchFigures figures_of(const BenchTest& test, std::span<const BenchSample> samples, const BenchCost& cost);

/// Seconds of one change of part, measured.
double measure_report_seconds();

/// Ratio of two medians and a bound on its noise.
struct Ratio {
  double value = 0;
  double noise = 0;  ///< relative half-width: each median's 95 % notch, 1.57 IQR / sqrt(n) (McGill, Tukey and
                     ///< Larsen 1978), added in squares
  bool within_noise() const { return value >= 1 - noise && value <= 1 + noise; }
};
Ratio ratio_of(const std::vector<double>& a, const std::vector<double>& b);

}  // namespace mete
