#include "models/decoder.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "ops/elementwise.h"

namespace mete {
namespace {

std::string layer_name(int64_t layer, std::string_view name) { return fmt::format("blk.{}.{}", layer, name); }

/// Moves rows `wanted` (ascending) of x [..][width] to the front.
void compact_rows(float* x, int64_t width, std::span<const int32_t> wanted) {
  for (size_t i = 0; i < wanted.size(); ++i) {
    if (static_cast<size_t>(wanted[i]) == i) continue;
    std::memcpy(x + static_cast<int64_t>(i) * width, x + wanted[i] * width, static_cast<size_t>(width) * 4);
  }
}

int64_t packed_bytes(const Linear& linear) {
  return panel_count(linear.rows) * static_cast<int64_t>(linear.stride());
}

}  // namespace

Decoder::Decoder(const GgufFile& file, const char* arch) : keys_(file.metadata(), arch), weights_(file) {
  config_ = read_shape(keys_);
  eps_ = read_rms_epsilon(keys_);
  weights_.matrix("token_embd.weight", config_.vocab, config_.d_model, &embedding_);
  weights_.vector("output_norm.weight", config_.d_model, &output_norm_);
  tied_ = !weights_.optional_matrix("output.weight", config_.vocab, config_.d_model, &output_);
}

void Decoder::declare_attention(int64_t layer, AttentionWeights* w) {
  const int64_t q = config_.heads * config_.head_dim, kv = config_.kv_heads * config_.head_dim;
  const auto name = [layer](std::string_view text) { return layer_name(layer, text); };
  if (weights_.has(name("attn_qkv.weight"))) {
    const MatrixPart parts[] = {{q, &w->q}, {kv, &w->k}, {kv, &w->v}};
    weights_.matrix_parts(name("attn_qkv.weight"), config_.d_model, parts);
    const VectorPart biases[] = {{q, &w->q.bias}, {kv, &w->k.bias}, {kv, &w->v.bias}};
    weights_.optional_vector_parts(name("attn_qkv.bias"), biases);
  } else {
    weights_.matrix(name("attn_q.weight"), q, config_.d_model, &w->q);
    weights_.matrix(name("attn_k.weight"), kv, config_.d_model, &w->k);
    weights_.matrix(name("attn_v.weight"), kv, config_.d_model, &w->v);
  }
  weights_.optional_vector(name("attn_q.bias"), q, &w->q.bias);
  weights_.optional_vector(name("attn_k.bias"), kv, &w->k.bias);
  weights_.optional_vector(name("attn_v.bias"), kv, &w->v.bias);
  weights_.matrix(name("attn_output.weight"), config_.d_model, q, &w->output);
  weights_.optional_vector(name("attn_output.bias"), config_.d_model, &w->output.bias);
}

void Decoder::declare_ffn(int64_t layer, FfnWeights* w) {
  const auto name = [layer](std::string_view text) { return layer_name(layer, text); };
  weights_.matrix(name("ffn_gate.weight"), config_.ffn, config_.d_model, &w->gate);
  weights_.matrix(name("ffn_up.weight"), config_.ffn, config_.d_model, &w->up);
  weights_.matrix(name("ffn_down.weight"), config_.d_model, config_.ffn, &w->down);
  weights_.optional_vector(name("ffn_gate.bias"), config_.ffn, &w->gate.bias);
  weights_.optional_vector(name("ffn_up.bias"), config_.ffn, &w->up.bias);
  weights_.optional_vector(name("ffn_down.bias"), config_.d_model, &w->down.bias);
}

void Decoder::declare_norm(int64_t layer, std::string_view name, int64_t n, const float** weight) {
  weights_.vector(layer_name(layer, name), n, weight);
}

void Decoder::finish_declaration() {
  weights_.check_all_claimed();
  const int64_t table = config_.vocab * config_.d_model;
  config_.weight_bytes = weights_.bytes();
  config_.bytes_per_token = weights_.bytes() - (tied_ ? 0 : packed_bytes(embedding_));
  config_.macs_per_token = weights_.matrix_elements() - table * (tied_ ? 1 : 2);
  config_.macs_per_logits = table;
  if (config_.windows.empty()) config_.windows.assign(static_cast<size_t>(config_.layers), 0);
}

int64_t Decoder::activation_floats(int64_t rows) const {
  const int64_t attention = 2 * (config_.heads + config_.kv_heads) * config_.head_dim;
  return rows * (3 * config_.d_model + std::max(attention, 2 * config_.ffn)) + 16 * 9;
}

void Decoder::load(Context& ctx, const LoadOptions& options) {
  max_rows_ = options.max_rows;
  if (max_rows_ < 1 || max_rows_ > 1 << 20) {
    throw bad_usage("batch size is {} rows, expected 1 to {}", max_rows_, 1 << 20);
  }
  const int64_t bytes = activation_floats(max_rows_) * 4;
  ReadOptions read;
  read.drop_cache = options.drop_cache;
  read.progress = options.progress;
  read.progress_user = options.progress_user;
  weights_.load(ctx, bytes, read);
  if (tied_) output_ = embedding_;

  activations_ = AlignedBuffer(static_cast<size_t>(bytes), true);
  float* next = activations_.as<float>();
  const auto take = [&next, this](int64_t width) {
    float* place = next;
    next += (max_rows_ * width + 15) / 16 * 16;
    return place;
  };
  for (float** place : {&x_, &normed_, &y_}) *place = take(config_.d_model);
  float* shared = next;
  for (float** place : {&q_, &attended_}) *place = take(config_.heads * config_.head_dim);
  for (float** place : {&k_, &v_}) *place = take(config_.kv_heads * config_.head_dim);
  next = shared;
  for (float** place : {&gate_, &up_}) *place = take(config_.ffn);
  tokens_.reserve(static_cast<size_t>(max_rows_));
  positions_.reserve(static_cast<size_t>(max_rows_));
  start(options);
}

void Decoder::begin(Context& ctx, const Batch& batch) noexcept {
  METE_CHECK(batch.rows.size() <= static_cast<size_t>(max_rows_));
  rows_ = batch.rows.size();
  tokens_.clear();
  positions_.clear();
  for (const Row& row : batch.rows) {
    METE_CHECK(row.token >= 0 && row.token < config_.vocab);
    tokens_.push_back(row.token);
    positions_.push_back(row.position);
  }
  embed(ctx, embedding_, tokens_, x_);
}

void Decoder::tap(const Batch& batch, int64_t layer, Outputs& outputs) noexcept {
  const auto& layers = batch.tap_layers;
  const auto found = std::lower_bound(layers.begin(), layers.end(), layer);
  if (found == layers.end() || *found != layer) return;
  const auto floats = static_cast<int64_t>(rows_) * config_.d_model;
  std::memcpy(outputs.taps + (found - layers.begin()) * floats, x_, static_cast<size_t>(floats) * 4);
}

bool Decoder::last_tapped(const Batch& batch) const noexcept {
  return !batch.tap_layers.empty() && batch.tap_layers.back() == config_.layers - 1;
}

bool Decoder::nothing_wanted(const Batch& batch, int64_t layer) const noexcept {
  return layer == config_.layers - 1 && batch.logits_rows.empty() && !last_tapped(batch);
}

int64_t Decoder::keep_wanted_rows(const Batch& batch, int64_t layer, int64_t rows, float* attended,
                                  int64_t width) const noexcept {
  if (layer != config_.layers - 1 || last_tapped(batch)) return rows;
  compact_rows(x_, config_.d_model, batch.logits_rows);
  compact_rows(attended, width, batch.logits_rows);
  return static_cast<int64_t>(batch.logits_rows.size());
}

void Decoder::finish(Context& ctx, const Batch& batch, int64_t rows, Outputs& outputs) noexcept {
  const auto wanted = static_cast<int64_t>(batch.logits_rows.size());
  if (wanted == 0) return;
  const PartScope part(ctx.ledger, Part::kLogits);
  if (rows != wanted) compact_rows(x_, config_.d_model, batch.logits_rows);
  rms_norm(ctx, x_, output_norm_, eps_, wanted, config_.d_model, normed_);
  matmul(ctx, normed_, wanted, config_.d_model, output_, outputs.logits, config_.vocab);
  if (final_softcap_ > 0) softcap_in_place(ctx, outputs.logits, final_softcap_, wanted, config_.vocab);
  if (batch.want_stats) row_stats(ctx, outputs.logits, wanted, config_.vocab, outputs.stats);
}

std::vector<float> check_rope_factors(const char* name, const float* factors, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    if (!(factors[i] >= 0.5f && factors[i] <= 1e9f)) {  // angles must stay below 2^22
      throw bad_model("tensor \"{}\" has element {} = {}, expected 0.5 to 1e9", name, i, factors[i]);
    }
  }
  return {factors, factors + n};
}

}  // namespace mete
