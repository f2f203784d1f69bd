#include "engine/bench.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace mete {

BenchRunner::BenchRunner(Runtime& runtime, std::vector<int32_t> text, EnergyMeter* meter, ClockFn clock)
    : runtime_(runtime), text_(std::move(text)), meter_(meter), clock_(clock) {
  METE_CHECK(!text_.empty());
}

int32_t BenchRunner::token(int seq, int64_t position) const {
  // Odd strides: sequences and runs see different stretches of the text.
  const int64_t place = position + rotation_ * 617 + int64_t{seq} * 1009;
  return text_[static_cast<size_t>(place % static_cast<int64_t>(text_.size()))];
}

void BenchRunner::feed_prompt(int seq, int64_t count, bool logits) {
  int64_t& position = positions_[static_cast<size_t>(seq)];
  const int64_t end = position + count;
  while (position < end) {
    const int64_t n = std::min(runtime_.max_rows(), end - position);
    rows_.clear();
    for (int64_t i = 0; i < n; ++i) {
      rows_.push_back(
          {token(seq, position + i), static_cast<int32_t>(position + i), seqs_[static_cast<size_t>(seq)]});
    }
    const auto last = static_cast<int32_t>(n) - 1;
    Batch batch;
    batch.rows = rows_;
    if (logits && position + n == end) batch.logits_rows = std::span(&last, 1);
    Outputs outputs;
    outputs.logits = logits_.as<float>();
    runtime_.step(batch, outputs).or_throw();
    position += n;
  }
}

void BenchRunner::feed_one_each() {
  rows_.clear();
  for (size_t s = 0; s < seqs_.size(); ++s) {
    const int64_t position = positions_[s]++;
    rows_.push_back({token(static_cast<int>(s), position), static_cast<int32_t>(position), seqs_[s]});
  }
  Batch batch;
  batch.rows = rows_;
  batch.logits_rows = logits_rows_;
  Outputs outputs;
  outputs.logits = logits_.as<float>();
  runtime_.step(batch, outputs).or_throw();
}

void BenchRunner::go_to_depth(const BenchTest& test) {
  bool reusable = depth_ == test.depth && seqs_.size() == static_cast<size_t>(test.sequences);
  for (size_t s = 0; reusable && s < seqs_.size(); ++s) {
    reusable = static_cast<bool>(runtime_.kv().truncate(seqs_[s], test.depth));
    positions_[s] = test.depth;
  }
  if (reusable) return;
  for (const SeqId seq : seqs_) runtime_.kv().release(seq);
  seqs_.clear();
  positions_.assign(static_cast<size_t>(test.sequences), 0);
  for (int s = 0; s < test.sequences; ++s) seqs_.push_back(runtime_.kv().create());
  for (int s = 0; s < test.sequences; ++s) feed_prompt(s, test.depth, false);
  depth_ = test.depth;
}

BenchSample BenchRunner::run(const BenchTest& test, int64_t rotation) {
  rotation_ = rotation;
  logits_rows_.resize(static_cast<size_t>(test.sequences));
  std::iota(logits_rows_.begin(), logits_rows_.end(), 0);
  const size_t bytes =
      logits_rows_.size() * static_cast<size_t>(runtime_.model_config().vocab) * sizeof(float);
  if (logits_.bytes() < bytes) logits_ = AlignedBuffer(bytes);
  runtime_.set_threads(test.threads);
  go_to_depth(test);

  BenchSample sample;
  Ledger& ledger = runtime_.ledger();
  const std::optional<double> joules = meter_ != nullptr ? meter_->joules() : std::nullopt;
  const LedgerMark begin = ledger.mark();
  const double start = clock_();
  if (test.prompt > 0) {
    for (int s = 0; s < test.sequences; ++s) feed_prompt(s, test.prompt, true);
  }
  const double middle = clock_();
  const LedgerMark between_phases = ledger.mark();
  const double again = clock_();
  for (int64_t i = 0; i < test.gen; ++i) feed_one_each();
  const double end = clock_();
  sample.prompt = {middle - start, between(begin, between_phases)};
  sample.gen = {end - again, between(between_phases, ledger.mark())};
  if (test.prompt == 0) sample.prompt = {};
  if (test.gen == 0) sample.gen = {};
  if (joules) {
    if (const std::optional<double> now = meter_->joules()) sample.joules = *now - *joules;
  }
  return sample;
}

namespace {

constexpr double kEnergySeconds = 1.0;  // counters advance in steps of up to 0.1 s

/// Seconds that a phase needs at least by memory and by arithmetic.
struct Bound {
  double memory = 0, arithmetic = 0;
  double seconds() const { return std::max(memory, arithmetic); }
};

double operations(const BenchPhase& phase, double logits_rows, const BenchCost& cost) {
  const auto rows = static_cast<double>(phase.ledger.count(Counter::kRows));
  return 2 * (rows * cost.macs_per_row + logits_rows * cost.macs_per_logits);
}

Bound bound_of(const BenchPhase& phase, double ops, const BenchCost& cost) {
  return {static_cast<double>(phase.ledger.bytes_read()) / cost.read_bytes_per_s, ops / cost.ops_per_s};
}

}  // namespace

BenchFigures figures_of(const BenchTest& test, std::span<const BenchSample> samples, const BenchCost& cost) {
  BenchFigures f;
  if (samples.empty()) return f;
  const auto tokens = static_cast<double>(test.tokens()), count = static_cast<double>(samples.size());
  std::vector<double> rates, firsts;
  double seconds = 0, ops = 0, joules = 0, bound = 0, memory_bound = 0;
  bool all_joules = true;
  for (const BenchSample& sample : samples) {
    rates.push_back(tokens / sample.seconds());
    if (test.prompt > 0) firsts.push_back(sample.prompt.seconds);
    seconds += sample.seconds();
    f.ledger += sample.prompt.ledger;
    f.ledger += sample.gen.ledger;
    all_joules = all_joules && sample.joules.has_value();
    joules += sample.joules.value_or(0);
    const double sequences = test.sequences;
    const double prompt_ops = operations(sample.prompt, test.prompt > 0 ? sequences : 0, cost);
    const double gen_ops = operations(sample.gen, sequences * static_cast<double>(test.gen), cost);
    ops += prompt_ops + gen_ops;
    if (cost.read_bytes_per_s <= 0 || cost.ops_per_s <= 0) continue;
    for (const Bound& b : {bound_of(sample.prompt, prompt_ops, cost), bound_of(sample.gen, gen_ops, cost)}) {
      bound += b.seconds();
      if (b.memory > b.arithmetic) memory_bound += b.seconds();
    }
  }
  f.mean = std::accumulate(rates.begin(), rates.end(), 0.0) / count;
  if (rates.size() > 1) {
    double squares = 0;
    for (const double rate : rates) squares += (rate - f.mean) * (rate - f.mean);
    f.deviation = std::sqrt(squares / (count - 1));
  }
  f.tokens_per_s = spread_of(std::move(rates));
  f.first_token_s = spread_of(std::move(firsts));
  f.bytes_per_token = static_cast<double>(f.ledger.bytes_read()) / (tokens * count);
  f.bytes_per_s = static_cast<double>(f.ledger.bytes_read()) / seconds;
  f.ops_per_s = ops / seconds;
  if (all_joules && seconds >= kEnergySeconds) f.joules_per_token = joules / (tokens * count);
  f.ledger_share = static_cast<double>(f.ledger.switches) * cost.report_s / seconds;
  f.share_of_limit = bound / seconds;
  f.bound_by_memory = memory_bound > bound / 2;
  return f;
}

double measure_report_seconds() {
  constexpr int kReports = 100000;
  Ledger ledger;
  double best = 1e30;
  for (int round = 0; round < 5; ++round) {
    const double start = now_seconds();
    for (int i = 0; i < kReports / 2; ++i) {
      ledger.enter(Part::kMatmul);
      ledger.enter(Part::kElementwise);
    }
    best = std::min(best, now_seconds() - start);
  }
  return best / kReports;
}

Ratio ratio_of(const std::vector<double>& a, const std::vector<double>& b) {
  const Spread sa = spread_of(a), sb = spread_of(b);
  Ratio ratio;
  if (sa.median <= 0 || sb.median <= 0) return ratio;
  ratio.value = sa.median / sb.median;
  const auto notch = [](const Spread& s, size_t n) {
    return 1.57 * (s.high - s.low) / (std::sqrt(static_cast<double>(n)) * s.median);
  };
  ratio.noise = std::hypot(notch(sa, a.size()), notch(sb, b.size()));
  return ratio;
}

}  // namespace mete
