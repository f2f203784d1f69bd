#include "eval/logits_source.h"

#include <algorithm>

namespace mete {
namespace {}  // namespace

ModelLogits::ModelLogits(Runtime& runtime, const Windows& windows)
    : runtime_(runtime),
      windows_(windows),
      buffer_(static_cast<size_t>(runtime.logits_rows() * runtime.model_config().vocab) * sizeof(float)) {}

ModelLogits::~ModelLogits() {
  if (seq_ >= 0) runtime_.kv().release(seq_);
}

const float* ModelLogits::next() {
  while (given_ == wanted_.size()) step();
  return buffer_.as<float>() + static_cast<int64_t>(given_++) * runtime_.model_config().vocab;
}

/// Feeds the next rows of the window; those before the first scored one are not mixed with scored ones.
void ModelLogits::step() {
  const int64_t scored_end = windows_.size - 1, first_scored = windows_.first_scored();
  if (seq_ >= 0 && position_ == scored_end) {
    runtime_.kv().release(seq_);
    seq_ = -1;
    ++window_;
  }
  if (seq_ < 0) {
    METE_CHECK(window_ < windows_.count());
    seq_ = runtime_.kv().create();
    position_ = 0;
  }
  const int64_t limit =
      position_ < first_scored ? first_scored : std::min(scored_end, position_ + runtime_.logits_rows());
  const int64_t end = std::min(position_ + runtime_.max_rows(), limit);
  const std::span<const int32_t> tokens = windows_.window(window_);
  rows_.clear();
  wanted_.clear();
  given_ = 0;
  for (int64_t i = position_; i < end; ++i) {
    rows_.push_back({tokens[static_cast<size_t>(i)], static_cast<int32_t>(i), seq_});
    if (i >= first_scored) wanted_.push_back(static_cast<int32_t>(i - position_));
  }
  Batch batch;
  batch.rows = rows_;
  batch.logits_rows = wanted_;
  Outputs outputs;
  outputs.logits = buffer_.as<float>();
  runtime_.step(batch, outputs).or_throw();
  position_ = end;
}

}  // namespace mete
