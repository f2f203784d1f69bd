#include "sample/sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "base/rng.h"
#include "kernels/cpu/scalar_math.h"
#include "sample/stages.h"
#include "text/grammar.h"

namespace mete {

namespace {

constexpr float kMasked = -std::numeric_limits<float>::infinity();
constexpr size_t kMany = 16384;  // allowed tokens beyond which a list of all costs more than a search

size_t count_allowed(std::span<const uint64_t> mask) {
  size_t count = 0;
  for (const uint64_t word : mask) count += static_cast<size_t>(std::popcount(word));
  return count;
}

}  // namespace

int64_t count_nans(std::span<const float> logits) {
  int32_t count = 0;
  for (const float logit : logits) count += logit != logit ? 1 : 0;
  return count;
}

int32_t argmax(std::span<const float> logits) {
  constexpr size_t kLanes = 16;  // independent maxima, so that the loop needs no reordering to run in SIMD
  float lanes[kLanes];
  std::fill_n(lanes, kLanes, kMasked);
  size_t i = 0;
  for (; i + kLanes <= logits.size(); i += kLanes) {
    for (size_t k = 0; k < kLanes; ++k) lanes[k] = logits[i + k] > lanes[k] ? logits[i + k] : lanes[k];
  }
  float highest = *std::max_element(lanes, lanes + kLanes);
  for (; i < logits.size(); ++i) highest = logits[i] > highest ? logits[i] : highest;
  if (highest == kMasked) return 0;
  return static_cast<int32_t>(std::find(logits.begin(), logits.end(), highest) - logits.begin());
}

Sampler::Sampler(const SamplingParams& params, const Tokenizer* tokenizer, int32_t vocab)
    : params_(params), vocab_(vocab), mu_(2.0 * params.mirostat_tau) {
  METE_CHECK(vocab > 0);
  METE_CHECK(static_cast<bool>(params.validate(vocab)));
  const size_t k = leading_top_k();
  list_.items.reserve(plain_greedy() ? 1
                      : k > 0        ? std::min(k, static_cast<size_t>(vocab))
                                     : static_cast<size_t>(vocab));
  if (!neutral(SamplerStage::kPenalties)) counts_.assign(static_cast<size_t>(vocab), 0);
  if (neutral(SamplerStage::kDry)) return;
  std::vector<DryBreaker> breakers;
  if (tokenizer) {
    breakers = find_dry_breakers(
        params.dry_sequence_breakers, std::min(vocab, tokenizer->vocab_size()),
        [&](int32_t id) { return tokenizer->piece(id); },
        [&](std::string_view text) { return tokenizer->encode(text, false); });
  }
  dry_.emplace(DrySettings{params.dry_multiplier, params.dry_base, params.dry_allowed_length},
               std::move(breakers), vocab);
}

void Sampler::reserve(size_t tokens) {
  history_.reserve(tokens);
  if (params_.mirostat != 0) past_mu_.reserve(tokens);
  if (dry_) dry_->reserve(tokens);
}

bool Sampler::neutral(SamplerStage stage) const {
  switch (stage) {
    case SamplerStage::kPenalties:
      return params_.penalty_last_n == 0 ||
             (params_.repeat_penalty == 1.0f && params_.frequency_penalty == 0.0f &&
              params_.presence_penalty == 0.0f);
    case SamplerStage::kDry:
      return params_.dry_multiplier == 0.0f || params_.dry_base < 1.0f || params_.dry_penalty_last_n == 0;
    case SamplerStage::kTopNSigma:
      return params_.top_n_sigma <= 0.0f;
    case SamplerStage::kTopK:
      return params_.top_k <= 0;
    case SamplerStage::kTypicalP:
      return params_.typical_p >= 1.0f;
    case SamplerStage::kTopP:
      return params_.top_p >= 1.0f;
    case SamplerStage::kMinP:
      return params_.min_p <= 0.0f;
    case SamplerStage::kXtc:
      return params_.xtc_probability <= 0.0f || params_.xtc_threshold > 0.5f;
    case SamplerStage::kTemperature:
      return params_.temperature == 1.0f && params_.dynatemp_range <= 0.0f;
  }
  return true;
}

size_t Sampler::leading_top_k() const {
  if (params_.mirostat != 0 || !params_.logit_bias.empty()) return 0;
  for (const SamplerStage stage : params_.order) {
    if (neutral(stage)) continue;
    return stage == SamplerStage::kTopK ? static_cast<size_t>(params_.top_k) : 0;
  }
  return 0;
}

/// The argmax of the row as given: no stage changes which token is the best.
bool Sampler::plain_greedy() const {
  if (params_.temperature > 0.0f || !params_.logit_bias.empty()) return false;
  if (params_.mirostat != 0) return true;
  return std::all_of(params_.order.begin(), params_.order.end(), [&](SamplerStage stage) {
    const bool changes_best = stage == SamplerStage::kPenalties || stage == SamplerStage::kDry ||
                              stage == SamplerStage::kTypicalP || stage == SamplerStage::kXtc;
    return !changes_best || neutral(stage);
  });
}

void Sampler::load(std::span<const float> logits) {
  report_.nan_logits = count_nans(logits);
  list_.items.resize(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) {
    list_.items[i] = {static_cast<int32_t>(i), bounded_logit(logits[i]), 0.0};
  }
  list_.sorted = false;
}

/// Only the allowed tokens, ascending by id. They are few, or nearly all.
void Sampler::load_allowed(std::span<const float> logits, std::span<const uint64_t> allowed) {
  METE_CHECK(allowed.size() == (logits.size() + 63) / 64);
  report_.nan_logits = count_nans(logits);
  list_.items.clear();
  for (size_t word = 0; word < allowed.size(); ++word) {
    for (uint64_t bits = allowed[word]; bits != 0; bits &= bits - 1) {
      const size_t i = word * 64 + static_cast<size_t>(std::countr_zero(bits));
      list_.items.push_back({static_cast<int32_t>(i), bounded_logit(logits[i]), 0.0});
    }
  }
  list_.sorted = false;
}

/// The k best of the row, or of its allowed tokens, without a list of all: a heap with the worst of the best
/// at its front.
void Sampler::load_top_k(std::span<const float> logits, size_t k, std::span<const uint64_t> allowed) {
  constexpr size_t kBlock = 16;  // skipped whole where nothing is above the worst of the best
  report_.nan_logits = count_nans(logits);
  auto& best = list_.items;
  best.clear();
  for (size_t begin = 0; begin < logits.size(); begin += kBlock) {
    const size_t end = std::min(begin + kBlock, logits.size());
    if (best.size() == k) {
      const float bound = best.front().logit;
      int above = 0;
      for (size_t i = begin; i < end; ++i) above |= logits[i] > bound ? 1 : 0;
      if (above == 0) continue;
    }
    for (size_t i = begin; i < end; ++i) {
      const Candidate candidate{static_cast<int32_t>(i), bounded_logit(logits[i]), 0.0};
      if (!allowed.empty() && !mask_allows(allowed, candidate.id)) continue;
      if (best.size() == k) {
        if (!(candidate.logit > best.front().logit)) continue;
        std::pop_heap(best.begin(), best.end(), ranks_before);
        best.pop_back();
      }
      best.push_back(candidate);
      std::push_heap(best.begin(), best.end(), ranks_before);
    }
  }
  std::sort_heap(best.begin(), best.end(), ranks_before);
  list_.sorted = true;
}

void Sampler::apply(SamplerStage stage, uint64_t position) {
  if (neutral(stage)) return;
  const SamplingParams& p = params_;
  switch (stage) {
    case SamplerStage::kPenalties:
      return apply_penalties(&list_, counts_, p.repeat_penalty, p.frequency_penalty, p.presence_penalty);
    case SamplerStage::kDry: {
      const bool whole = p.dry_penalty_last_n < 0;
      const size_t length =
          whole ? history_.size() : std::min(history_.size(), static_cast<size_t>(p.dry_penalty_last_n));
      return dry_->apply(&list_, std::span(history_).last(length));
    }
    case SamplerStage::kTopNSigma:
      return apply_top_n_sigma(&list_, p.top_n_sigma);
    case SamplerStage::kTopK:
      return apply_top_k(&list_, p.top_k);
    case SamplerStage::kTypicalP:
      return apply_typical_p(&list_, p.typical_p, p.min_keep);
    case SamplerStage::kTopP:
      return apply_top_p(&list_, p.top_p, p.min_keep);
    case SamplerStage::kMinP:
      return apply_min_p(&list_, p.min_p, p.min_keep);
    case SamplerStage::kXtc:
      return apply_xtc(&list_, p.xtc_probability, p.xtc_threshold, p.min_keep,
                       random_unit(p.seed, position, Purpose::kXtc));
    case SamplerStage::kTemperature:
      if (p.temperature > 0.0f)
        apply_temperature(&list_, p.temperature, p.dynatemp_range, p.dynatemp_exponent);
      return;
  }
}

std::span<const Candidate> Sampler::process(std::span<const float> logits, uint64_t position,
                                            std::span<const uint64_t> allowed) {
  METE_CHECK(logits.size() == static_cast<size_t>(vocab_));
  report_ = {};
  pending_ = true;
  const size_t k = leading_top_k();
  if (!allowed.empty() && (k == 0 || count_allowed(allowed) <= std::max(k, kMany))) {
    load_allowed(logits, allowed);
  } else if (k > 0 && k < logits.size()) {
    load_top_k(logits, k, allowed);
  } else {
    load(logits);
  }
  apply_logit_bias(&list_, params_.logit_bias);
  if (params_.mirostat != 0) {
    if (params_.temperature > 0.0f) apply_temperature(&list_, params_.temperature, 0.0f, 1.0f);
    if (params_.mirostat == 1) apply_mirostat_1(&list_, vocab_, mu_);
    if (params_.mirostat == 2) apply_mirostat_2(&list_, mu_);
  } else {
    for (const SamplerStage stage : params_.order) apply(stage, position);
  }
  if (params_.temperature <= 0.0f) apply_top_k(&list_, 1);
  if (!softmax(&list_)) {
    report_.all_masked = true;
    list_.items.assign(1, {argmax(logits), 0.0f, 1.0});
  }
  return list_.items;
}

int32_t Sampler::sample(std::span<const float> logits, uint64_t position, std::span<const uint64_t> allowed) {
  if (plain_greedy() && params_.mirostat == 0) {
    METE_CHECK(logits.size() == static_cast<size_t>(vocab_));
    report_ = {.nan_logits = count_nans(logits), .all_masked = false};
    const int32_t best = argmax(logits);
    report_.all_masked = !(logits[static_cast<size_t>(best)] > kMasked);
    if (allowed.empty() || report_.all_masked || mask_allows(allowed, best)) return best;
  }
  return draw(process(logits, position, allowed), random_unit(params_.seed, position, Purpose::kSample));
}

void Sampler::count(int32_t token, int32_t change) {
  if (!counts_.empty()) counts_[static_cast<size_t>(token)] += change;
}

void Sampler::accept(int32_t token) {
  METE_CHECK(token >= 0 && token < vocab_);
  if (params_.mirostat != 0) {
    past_mu_.push_back(mu_);
    const auto chosen = std::find_if(list_.items.begin(), list_.items.end(),
                                     [&](const Candidate& candidate) { return candidate.id == token; });
    if (pending_ && chosen != list_.items.end() && chosen->p > 0.0) {
      const double surprise = -log_double(chosen->p) / 0.693147180559945309417;
      mu_ -= params_.mirostat_eta * (surprise - params_.mirostat_tau);
    }
  }
  pending_ = false;
  history_.push_back(token);
  count(token, 1);
  const int32_t last_n = params_.penalty_last_n;
  if (last_n > 0 && history_.size() > static_cast<size_t>(last_n)) {
    count(history_[history_.size() - 1 - static_cast<size_t>(last_n)], -1);
  }
}

void Sampler::rollback(size_t dropped) {
  METE_CHECK(dropped <= history_.size());
  if (dropped == 0) return;
  history_.resize(history_.size() - dropped);
  if (params_.mirostat != 0) {
    mu_ = past_mu_[history_.size()];
    past_mu_.resize(history_.size());
  }
  pending_ = false;
  recount();
}

void Sampler::recount() {
  if (counts_.empty()) return;
  std::fill(counts_.begin(), counts_.end(), 0);
  const bool whole = params_.penalty_last_n < 0;
  const size_t length =
      whole ? history_.size() : std::min(history_.size(), static_cast<size_t>(params_.penalty_last_n));
  for (const int32_t token : std::span(history_).last(length)) count(token, 1);
}

}  // namespace mete
