#include "models/moe.h"

#include <algorithm>

#include "base/error.h"
#include "ops/elementwise.h"

namespace mete {
namespace {

constexpr int kPlannedThreads = 64;  // each takes 144 bytes of a grouped matmul's work list

int64_t round_up_16(int64_t n) { return (n + 15) / 16 * 16; }

}  // namespace

Moe::Moe(const ExpertDeclaration& experts, const RouterParams& router, GatedActivation activation, float eps)
    : d_(experts.d_model), ffn_(experts.ffn), router_(router), activation_(activation), eps_(eps) {
  METE_CHECK(router.experts == experts.experts && router.used == experts.used);
  METE_CHECK(router.used <= kMaxExpertsUsed);
  for (const ExpertLayer& layer : experts.layers) {
    if (layer.gate != nullptr) outer_kinds_[static_cast<int>(activation_kind(layer.gate->type))] = true;
    outer_kinds_[static_cast<int>(activation_kind(layer.up->type))] = true;
    inner_kinds_[static_cast<int>(activation_kind(layer.down->type))] = true;
  }
}

int64_t Moe::activation_floats(int64_t max_rows) const {
  const int64_t slots = max_rows * router_.used;
  return round_up_16(max_rows * router_.experts) + 2 * round_up_16(slots * ffn_) + round_up_16(slots * d_);
}

int64_t Moe::bytes(int64_t max_rows) const {
  const int64_t slots = max_rows * router_.used;
  int64_t bytes = activation_floats(max_rows) * 4;
  for (const ActivationKind kind : {ActivationKind::kQ8_16, ActivationKind::kQ8_K}) {
    const int i = static_cast<int>(kind);
    if (outer_kinds_[i]) bytes += max_rows * static_cast<int64_t>(activation_row_bytes(kind, d_));
    if (inner_kinds_[i]) bytes += slots * static_cast<int64_t>(activation_row_bytes(kind, ffn_));
  }
  bytes += static_cast<int64_t>(
      matmul_grouped_bytes(kPlannedThreads, 2 * router_.experts, slots, gathered_row_bytes()));
  return bytes + slots * 8 * 4;  // the lists
}

size_t Moe::gathered_row_bytes() const {
  size_t bytes = 0;
  for (const ActivationKind kind : {ActivationKind::kF32, ActivationKind::kQ8_16, ActivationKind::kQ8_K}) {
    if (outer_kinds_[static_cast<int>(kind)]) bytes += activation_row_bytes(kind, d_);
  }
  return bytes;
}

void Moe::allocate(Context& ctx, int64_t max_rows) {
  const int64_t slots = max_rows * router_.used;
  activations_ = AlignedBuffer(static_cast<size_t>(activation_floats(max_rows)) * 4, true);
  float* next = activations_.as<float>();
  const auto take = [&next](int64_t n) {
    float* place = next;
    next += round_up_16(n);
    return place;
  };
  logits_ = take(max_rows * router_.experts);
  gate_ = take(slots * ffn_);
  up_ = take(slots * ffn_);
  down_ = take(slots * d_);
  guess_normed_ = down_;  // looked ahead before the first wave
  for (const ActivationKind kind : {ActivationKind::kQ8_16, ActivationKind::kQ8_K}) {
    if (outer_kinds_[static_cast<int>(kind)]) input_.reserve(kind, max_rows, d_);
    if (inner_kinds_[static_cast<int>(kind)]) inner_.reserve(kind, slots, ffn_);
  }
  const size_t gathered = ctx.mode == NumericMode::kReference ? activation_row_bytes(ActivationKind::kF32, d_)
                                                              : gathered_row_bytes();
  ctx.gathered.get(matmul_grouped_bytes(ctx.pool.size(), 2 * router_.experts, slots, gathered));
  for (std::vector<int32_t>* list : {&ids_, &guess_ids_, &rows_of_, &places_of_, &slot_of_, &slots_}) {
    list->resize(static_cast<size_t>(slots));
  }
  for (std::vector<float>* list : {&weights_, &guess_weights_}) list->resize(static_cast<size_t>(slots));
  for (size_t i = 0; i < slots_.size(); ++i) slots_[i] = static_cast<int32_t>(i);
  first_.resize(static_cast<size_t>(router_.experts) + 1);
  for (std::vector<ExpertDemand>* list : {&demands_, &guesses_}) {
    list->reserve(static_cast<size_t>(router_.experts));
  }
  guess_ranks_.reserve(static_cast<size_t>(router_.experts));
  groups_.reserve(2 * static_cast<size_t>(router_.experts));
}

void Moe::group(int64_t rows) noexcept {
  const int64_t slots = rows * router_.used;
  std::fill(first_.begin(), first_.end(), 0);
  for (int64_t i = 0; i < slots; ++i) ++first_[static_cast<size_t>(ids_[static_cast<size_t>(i)]) + 1];
  demands_.clear();
  for (size_t e = 0; e + 1 < first_.size(); ++e) {
    if (first_[e + 1] > 0) demands_.push_back({static_cast<int32_t>(e), first_[e + 1]});
    first_[e + 1] += first_[e];
  }
  for (int64_t i = 0; i < slots; ++i) {
    const auto place = static_cast<size_t>(first_[static_cast<size_t>(ids_[static_cast<size_t>(i)])]++);
    rows_of_[place] = static_cast<int32_t>(i / router_.used);
    places_of_[place] = static_cast<int32_t>(i);
  }
  // Each start has moved to the next expert's.
  for (size_t e = first_.size() - 1; e > 0; --e) first_[e] = first_[e - 1];
  first_[0] = 0;
}

void Moe::look_ahead(Context& ctx, ExpertSource& source, const MoeCall& call) noexcept {
  const MoeLayer& next = *call.next;
  rms_norm(ctx, call.x, next.norm, eps_, call.rows, d_, guess_normed_);
  matmul(ctx, guess_normed_, call.rows, d_, next.router, logits_, router_.experts);
  route(ctx, router_, logits_, next.selection_bias, call.rows, guess_ids_.data(), guess_weights_.data());
  guesses_.resize(static_cast<size_t>(router_.experts));
  for (size_t e = 0; e < guesses_.size(); ++e) guesses_[e] = {static_cast<int32_t>(e), 0};
  guess_ranks_.assign(guesses_.size(), static_cast<int32_t>(router_.used));
  for (int64_t i = 0; i < call.rows * router_.used; ++i) {
    const auto expert = static_cast<size_t>(guess_ids_[static_cast<size_t>(i)]);
    ++guesses_[expert].rows;
    guess_ranks_[expert] = std::min(guess_ranks_[expert], static_cast<int32_t>(i % router_.used));
  }
  std::erase_if(guesses_, [](const ExpertDemand& guess) { return guess.rows == 0; });
  // Best first: chosen by most rows, then by the best rank in any row.
  std::sort(guesses_.begin(), guesses_.end(), [this](const ExpertDemand& a, const ExpertDemand& b) {
    if (a.rows != b.rows) return a.rows > b.rows;
    const int32_t rank_a = guess_ranks_[static_cast<size_t>(a.expert)];
    const int32_t rank_b = guess_ranks_[static_cast<size_t>(b.expert)];
    return rank_a != rank_b ? rank_a < rank_b : a.expert < b.expert;
  });
  source.hint(next.index, guesses_);
}

int64_t Moe::run_wave(Context& ctx, std::span<const ExpertSource::Ready> wave, int64_t slot) noexcept {
  const int64_t begin = slot;
  groups_.clear();
  for (const ExpertSource::Ready& ready : wave) {
    const auto expert = static_cast<size_t>(demands_[static_cast<size_t>(ready.demand)].expert);
    const auto first = static_cast<size_t>(first_[expert]);
    const size_t count = static_cast<size_t>(first_[expert + 1]) - first;
    const std::span<const int32_t> rows(rows_of_.data() + first, count);
    groups_.push_back({&ready.weights.gate, rows, gate_ + slot * ffn_, ffn_});
    groups_.push_back({&ready.weights.up, rows, up_ + slot * ffn_, ffn_});
    for (size_t i = 0; i < count; ++i) {
      slot_of_[static_cast<size_t>(places_of_[first + i])] =
          static_cast<int32_t>(slot) + static_cast<int32_t>(i);
    }
    slot += static_cast<int64_t>(count);
  }
  matmul_grouped(ctx, input_, groups_);  // gate_, up_ [slots][ffn]
  activation_(ctx, gate_ + begin * ffn_, up_ + begin * ffn_, slot - begin, ffn_, gate_ + begin * ffn_);

  inner_.reset(gate_ + begin * ffn_, slot - begin, ffn_);
  groups_.clear();
  int64_t at = 0;
  for (const ExpertSource::Ready& ready : wave) {
    const auto count = static_cast<size_t>(demands_[static_cast<size_t>(ready.demand)].rows);
    groups_.push_back({&ready.weights.down, {slots_.data() + at, count}, down_ + (begin + at) * d_, d_});
    at += static_cast<int64_t>(count);
  }
  matmul_grouped(ctx, inner_, groups_);  // down_ [slots][d_model]
  return slot;
}

Status Moe::forward(Context& ctx, ExpertSource& source, const MoeCall& call, RoutingTap* tap) noexcept {
  const int64_t used = router_.used;
  matmul(ctx, call.normed, call.rows, d_, call.layer->router, logits_, router_.experts);
  route(ctx, router_, logits_, call.layer->selection_bias, call.rows, ids_.data(), weights_.data());
  if (tap != nullptr) tap->routed(call.layer->index, call.rows, used, ids_.data(), weights_.data());
  group(call.rows);
  source.begin(call.layer->index, demands_);
  if (call.next != nullptr && source.wants_hints()) look_ahead(ctx, source, call);

  input_.reset(call.normed, call.rows, d_);
  int64_t slot = 0;
  while (slot < call.rows * used) {
    ctx.enter(Part::kExpertWait);
    const Result<std::span<const ExpertSource::Ready>> wave = source.next();
    if (!wave) {
      source.end();
      return wave.error();
    }
    METE_CHECK(!(*wave).empty());
    slot = run_wave(ctx, *wave, slot);
  }
  source.end();

  ctx.enter(Part::kExperts);
  ctx.pool.parallel_for(
      call.rows, std::max<int64_t>(1, 16384 / (d_ * used)), [&](int64_t begin, int64_t end, int) {
        const float* outputs[kMaxExpertsUsed];
        for (int64_t r = begin; r < end; ++r) {
          for (int64_t rank = 0; rank < used; ++rank) {
            outputs[rank] = down_ + slot_of_[static_cast<size_t>(r * used + rank)] * d_;
          }
          ctx.kernels.floats.weighted_sum(outputs, weights_.data() + r * used, used, d_, call.out + r * d_);
        }
      });
  return {};
}

}  // namespace mete
