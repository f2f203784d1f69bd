// Chooses the next token of one sequence from its logits row.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "request/sampling.h"
#include "sample/candidates.h"
#include "sample/dry.h"
#include "text/tokenizer.h"

namespace mete {

/// What was odd about the last row.
struct RowReport {
  int64_t nan_logits = 0;   ///< counted as -inf
  bool all_masked = false;  ///< no token had a probability; the highest logit of the row as given was taken
};

/// The chain: logit bias, the stages of `params.order`, the draw. Mirostat replaces the stages by temperature
/// and itself. The token is a function of (parameters, accepted tokens, logits, position). sample() and
/// process() leave the state alone; accept() advances it. No allocation after the first row, but for what
/// reserve() did not cover.
class Sampler {
 public:
  /// `params` validated for `vocab` token ids. `tokenizer` finds the DRY sequence breakers; with null there
  /// are none.
  Sampler(const SamplingParams& params, const Tokenizer* tokenizer, int32_t vocab);

  /// Room for a sequence of this many tokens.
  void reserve(size_t tokens);

  /// `logits`: [vocab]. `position`: index in the sequence of the token to be chosen; keys the randomness.
  /// `allowed`: a mask as text/grammar.h has it, other tokens cannot be chosen; empty: every token can.
  int32_t sample(std::span<const float> logits, uint64_t position, std::span<const uint64_t> allowed = {});

  /// The distribution that sample() draws from: at least one candidate, p adds up to 1. Valid until the next
  /// call.
  std::span<const Candidate> process(std::span<const float> logits, uint64_t position,
                                     std::span<const uint64_t> allowed = {});

  /// Adds a token to the history that penalties, DRY and mirostat see: those of the prompt, then each chosen
  /// one.
  void accept(int32_t token);

  /// Drops the last `count` accepted tokens (rejected drafts), mirostat's state with them.
  void rollback(size_t count);

  const RowReport& report() const { return report_; }
  double mirostat_mu() const { return mu_; }

 private:
  void load(std::span<const float> logits);
  void load_allowed(std::span<const float> logits, std::span<const uint64_t> allowed);
  void load_top_k(std::span<const float> logits, size_t k, std::span<const uint64_t> allowed);
  void apply(SamplerStage stage, uint64_t position);
  bool neutral(SamplerStage stage) const;
  /// k if top-k is the first stage that does anything, else 0.
  size_t leading_top_k() const;
  bool plain_greedy() const;
  void count(int32_t token, int32_t change);
  void recount();

  SamplingParams params_;
  int32_t vocab_;
  std::vector<int32_t> history_;
  std::vector<int32_t> counts_;  // [vocab] if penalties are on: occurrences in the last penalty_last_n tokens
  std::optional<Dry> dry_;
  Candidates list_;
  RowReport report_;
  bool pending_ = false;         // list_ holds the distribution of the token to be accepted
  double mu_ = 0.0;              // mirostat: allowed surprise in bits
  std::vector<double> past_mu_;  // before each accepted token
};

/// Index of the highest value, ties to the lowest index, NaN never; 0 if there is none.
int32_t argmax(std::span<const float> logits);
int64_t count_nans(std::span<const float> logits);

}  // namespace mete
