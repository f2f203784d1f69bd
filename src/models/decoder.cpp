#include "models/decoder.h"

#include <algorithm>
#include <cstring>
#include <iterator>

#include "base/error.h"
#include "ops/elementwise.h"
#include "quant/activation.h"
#include "weights/resident_experts.h"

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

Decoder::Decoder(const GgufFile& file, const char* arch, std::initializer_list<std::string_view> supported)
    : keys_(file.metadata(), arch, supported), weights_(file), file_(file) {
  config_ = read_shape(keys_);
  eps_ = read_rms_epsilon(keys_);
  constexpr const char* kTable = "token_embd.weight";
  tied_ = !weights_.optional_matrix("output.weight", config_.vocab, config_.d_model, &output_);
  if (tied_) {
    weights_.matrix(kTable, config_.vocab, config_.d_model, &embedding_.memory);
  } else {
    declare_row_table(kTable, config_.vocab, config_.d_model, &embedding_);
  }
  weights_.vector("output_norm.weight", config_.d_model, &output_norm_);
}

Decoder::Resident Decoder::resident() const {
  Resident out;
  out.weights = weights_.resident();
  out.activations = activations_.resident() + (moe_ ? moe_->resident() : 0);
  out.experts = expert_source_ ? expert_source_->resident() : 0;
  for (const RowStore* store : row_stores_) out.rows += store->resident();
  return out;
}

void Decoder::declare_row_table(std::string_view name, int64_t rows, int64_t cols, RowTable* table) {
  weights_.matrix(name, rows, cols, &table->memory);
  table->tensor = file_.find(name);
  row_tables_.push_back(table);
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

void Decoder::use_experts(bool normalise) {
  router_ = read_router(keys_, config_, normalise, &config_.experts);
  config_.experts.layers.reserve(static_cast<size_t>(config_.layers));  // biases are bound by address
}

void Decoder::declare_experts(int64_t layer, MoeLayer* moe) {
  const auto name = [layer](std::string_view text) { return layer_name(layer, text); };
  if (weights_.has(name("ffn_gate.0.weight"))) {
    throw bad_model(
        "tensor \"{}\": one tensor per expert is not supported, expected \"{}\"; convert the model again",
        name("ffn_gate.0.weight"), name("ffn_gate_exps.weight"));
  }
  moe->index = static_cast<int>(config_.experts.layers.size());
  weights_.matrix(name("ffn_gate_inp.weight"), config_.experts.experts, config_.d_model, &moe->router);
  ExpertLayer& experts = config_.experts.layers.emplace_back();
  if (weights_.has(name("ffn_gate_up_exps.weight"))) {
    experts.up = &weights_.stacked(name("ffn_gate_up_exps.weight"));
  } else {
    experts.gate = &weights_.stacked(name("ffn_gate_exps.weight"));
    experts.up = &weights_.stacked(name("ffn_up_exps.weight"));
  }
  experts.down = &weights_.stacked(name("ffn_down_exps.weight"));
  const int64_t n = config_.experts.experts, ffn = config_.experts.ffn;
  weights_.optional_vector(name("ffn_gate_inp.bias"), n, &moe->router.bias);
  weights_.optional_table(name("ffn_gate_exps.bias"), n, ffn, &experts.gate_bias);
  weights_.optional_table(name("ffn_up_exps.bias"), n, ffn, &experts.up_bias);
  weights_.optional_table(name("ffn_down_exps.bias"), n, config_.d_model, &experts.down_bias);
}

void Decoder::declare_norm(int64_t layer, std::string_view name, int64_t n, const float** weight) {
  weights_.vector(layer_name(layer, name), n, weight);
}

void Decoder::finish_declaration() {
  weights_.check_all_claimed();
  const int64_t output = config_.vocab * config_.d_model;
  int64_t table_bytes = 0, table_elements = 0;
  for (const RowTable* table : row_tables_) {
    config_.row_tables.push_back({table->tensor, packed_bytes(table->memory)});
    table_bytes += packed_bytes(table->memory);
    table_elements += table->memory.rows * table->memory.cols;
  }
  const ExpertDeclaration& experts = config_.experts;
  check_experts(experts);
  int64_t used_bytes = 0;  // of the experts that one token uses
  for (const ExpertLayer& layer : experts.layers) {
    const int64_t bytes = packed_expert_bytes(experts, layer);
    config_.expert_bytes += bytes * experts.experts;
    used_bytes += bytes * experts.used;
  }
  config_.weight_bytes = weights_.bytes() + config_.expert_bytes;
  config_.bytes_per_token = weights_.bytes() - table_bytes + used_bytes;
  config_.macs_per_token =
      weights_.matrix_elements() - table_elements - output +
      static_cast<int64_t>(experts.layers.size()) * experts.used * 3 * experts.d_model * experts.ffn;
  if (!experts.layers.empty()) moe_.emplace(experts, router_, expert_activation_, eps_);
  config_.macs_per_logits = output;
  // Beside the activations: their quantised copies, and the RoPE table's sines and cosines.
  const int64_t moe_row = moe_ ? (moe_->bytes(17) - moe_->bytes(1)) / 16 : 0;  // buffers end at 16 floats
  config_.rowless_bytes = moe_ ? moe_->bytes(1) - moe_row : 0;
  config_.row_bytes =
      moe_row + 4 * activation_floats(1) + weights_.quantised_row_bytes() + 8 * config_.head_dim;
  config_.worker_bytes = static_cast<int64_t>(round_up_64(gemm_scratch_bytes(weights_.widest_row())));
  config_.unit_bytes = weights_.least_unit_bytes();
  if (config_.windows.empty()) config_.windows.assign(static_cast<size_t>(config_.layers), 0);
}

int64_t Decoder::activation_floats(int64_t rows) const {
  const int64_t attention = 2 * (config_.heads + config_.kv_heads) * config_.head_dim;
  return rows * (3 * config_.d_model + std::max(attention, 2 * config_.ffn) + extra_width()) + 16 * 10;
}

void Decoder::load(Context& ctx, const LoadOptions& options) {
  max_rows_ = options.max_rows;
  if (max_rows_ < 1 || max_rows_ > 1 << 20) {
    throw bad_usage("batch size is {} rows, expected 1 to {}", max_rows_, 1 << 20);
  }
  const int64_t bytes = activation_floats(max_rows_) * 4;
  const int64_t moe_bytes = moe_ ? moe_->bytes(max_rows_) : 0;
  const bool resident = moe_ && !options.make_experts;
  int64_t stored_experts = 0;
  for (const ExpertLayer& layer : config_.experts.layers) {
    stored_experts += stored_expert_bytes(config_.experts, layer) * config_.experts.experts;
  }
  ReadOptions read;
  read.read_bytes = options.read_bytes;
  read.progress = options.progress;
  read.progress_user = options.progress_user;
  if (resident) read.left_after = stored_experts;
  int64_t row_bytes = 0;
  if (options.rows_on_disk) {
    for (RowTable* table : row_tables_) {
      weights_.leave_out(&table->memory);
      row_bytes += row_store_bytes(*table->tensor, options.rows, max_rows_);
    }
  }
  const int64_t dense =
      weights_.load(ctx, bytes + moe_bytes + row_bytes + (resident ? config_.expert_bytes : 0), read);
  if (tied_) output_ = embedding_.memory;
  if (options.rows_on_disk) {
    for (RowTable* table : row_tables_) {
      table->store = std::make_unique<RowStore>(file_, *table->tensor, options.rows, max_rows_);
      row_stores_.push_back(table->store.get());
    }
  }
  if (resident) {
    read.done_before = dense;
    read.left_after = 0;
    expert_source_ = std::make_unique<ResidentExperts>(ctx, file_, config_.experts, read);
  } else if (moe_) {
    expert_source_ = options.make_experts(ctx, file_, config_.experts, options);
  }
  if (moe_) moe_->allocate(ctx, max_rows_);

  activations_ = AlignedBuffer(static_cast<size_t>(bytes), true);
  float* next = activations_.as<float>();
  const auto take = [&next, this](int64_t width) {
    float* place = next;
    next += (max_rows_ * width + 15) / 16 * 16;
    return place;
  };
  for (float** place : {&x_, &normed_, &y_}) *place = take(config_.d_model);
  extra_ = take(extra_width());
  float* shared = next;
  for (float** place : {&q_, &attended_}) *place = take(config_.heads * config_.head_dim);
  for (float** place : {&k_, &v_}) *place = take(config_.kv_heads * config_.head_dim);
  next = shared;
  for (float** place : {&gate_, &up_}) *place = take(config_.ffn);
  tokens_.reserve(static_cast<size_t>(max_rows_));
  positions_.reserve(static_cast<size_t>(max_rows_));
  wanted_.reserve(2 * static_cast<size_t>(max_rows_));
  picked_.reserve(static_cast<size_t>(max_rows_));
  start(options);
}

bool Decoder::begin(Context& ctx, const Batch& batch, Outputs& outputs) noexcept {
  METE_CHECK(batch.rows.size() <= static_cast<size_t>(max_rows_));
  rows_ = batch.rows.size();
  tokens_.clear();
  positions_.clear();
  for (const Row& row : batch.rows) {
    METE_CHECK(row.token >= 0 && row.token < config_.vocab);
    tokens_.push_back(row.token);
    positions_.push_back(row.position);
  }
  wanted_.clear();
  std::set_union(batch.logits_rows.begin(), batch.logits_rows.end(), batch.hidden_rows.begin(),
                 batch.hidden_rows.end(), std::back_inserter(wanted_));
  outputs.status = embedding_.gather(ctx, tokens_, x_);
  return static_cast<bool>(outputs.status);
}

bool Decoder::run_experts(Context& ctx, const MoeLayer& layer, const MoeLayer* next, int64_t rows,
                          Outputs& outputs) noexcept {
  outputs.status =
      moe_->forward(ctx, *expert_source_, {&layer, next, x_, normed_, rows, y_}, outputs.routing);
  return static_cast<bool>(outputs.status);
}

void Decoder::tap(const Batch& batch, int64_t layer, Outputs& outputs) noexcept {
  const auto& layers = batch.tap_layers;
  const auto found = std::lower_bound(layers.begin(), layers.end(), layer);
  if (found == layers.end() || *found != layer) return;
  const auto floats = static_cast<int64_t>(rows_) * config_.d_model;
  std::memcpy(outputs.taps + (found - layers.begin()) * floats, x_, static_cast<size_t>(floats) * 4);
}

bool Decoder::nothing_wanted(const Batch& batch, int64_t layer) const noexcept {
  return layer >= config_.kv_layers - 1 && wanted_.empty() && !tapped_from(batch, layer);
}

int64_t Decoder::keep_wanted_rows(const Batch& batch, int64_t layer, int64_t rows, float* attended,
                                  int64_t width) const noexcept {
  if (layer != config_.layers - 1 || tapped_from(batch, layer)) return rows;
  compact_rows(x_, config_.d_model, wanted_);
  compact_rows(attended, width, wanted_);
  return static_cast<int64_t>(wanted_.size());
}

void Decoder::finish(Context& ctx, const Batch& batch, int64_t rows, Outputs& outputs) noexcept {
  if (wanted_.empty()) return;
  const PartScope part(ctx.ledger, Part::kLogits);
  if (rows != static_cast<int64_t>(wanted_.size())) compact_rows(x_, config_.d_model, wanted_);
  rms_norm(ctx, x_, output_norm_, eps_, static_cast<int64_t>(wanted_.size()), config_.d_model, normed_);
  for (size_t i = 0; i < batch.hidden_rows.size(); ++i) {
    const auto from =
        std::lower_bound(wanted_.begin(), wanted_.end(), batch.hidden_rows[i]) - wanted_.begin();
    std::memcpy(outputs.hidden + static_cast<int64_t>(i) * config_.d_model, normed_ + from * config_.d_model,
                static_cast<size_t>(config_.d_model) * 4);
  }
  const auto wanted = static_cast<int64_t>(batch.logits_rows.size());
  if (wanted == 0) return;
  if (!batch.hidden_rows.empty()) {
    picked_.clear();
    for (const int32_t row : batch.logits_rows) {
      picked_.push_back(
          static_cast<int32_t>(std::lower_bound(wanted_.begin(), wanted_.end(), row) - wanted_.begin()));
    }
    compact_rows(normed_, config_.d_model, picked_);
  }
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
