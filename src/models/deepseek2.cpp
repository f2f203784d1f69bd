// DeepSeek V2 and V3 and their kin: latent attention (MLA, arXiv 2405.04434), a few leading dense layers,
// then routed experts of several groups beside shared ones. A token's one key is its latent of kv_lora_rank
// elements with a rotated part behind it; its value is the latent. The up-projections are absorbed: q is
// taken into the space of the latent head by head, and so is the output back, for one row as for many.
#include <cmath>

#include "kernels/cpu/scalar_math.h"
#include "models/decoder.h"
#include "ops/elementwise.h"

namespace mete {
namespace {

class DeepSeek2 final : public Decoder {
 public:
  explicit DeepSeek2(const GgufFile& file);
  void forward(Context& ctx, const Batch& batch, KvAccess& kv, Outputs& outputs) noexcept override;

 private:
  struct Layer {
    const float *attn_norm, *latent_norm;  // [d_model], [latent]
    const float* low_norm = nullptr;       // [low]
    Linear q, low;                         // [heads * (plain + rotated)] of d_model or of low; low of d_model
    Linear latent, rotated;                // [latent], [rotated] of d_model
    std::vector<Linear> to_latent;         // per head: [latent][plain]
    std::vector<Linear> from_latent;       // per head: [value][latent]
    Linear output;                         // [d_model][heads * value]
    const float* ffn_norm;                 // [d_model], of dense layers
    FfnWeights ffn;                        // dense layers, or the shared experts
    MoeLayer moe;                          // others
  };
  void read_widths();
  void read_routing();
  void read_rotation();
  void declare_latent_attention(int64_t i, Layer* layer);
  int64_t extra_width() const override;
  void start(const LoadOptions& options) override;
  void attend(Context& ctx, const Batch& batch, KvAccess& kv, int layer, int64_t rows) noexcept;
  /// out[r][h * out_width ..] = weights[h] * x[r][h]; x: [rows][heads][cols].
  void per_head(Context& ctx, GroupedInput& input, const float* x, int64_t rows,
                std::span<const Linear> weights, float* out, int64_t out_width) noexcept;
  bool dense(int64_t layer) const { return layer < dense_layers_; }

  std::vector<Layer> layers_;
  int64_t latent_ = 0, rotated_ = 0, plain_ = 0, value_ = 0;  // elements per head; latent_ per token
  int64_t low_ = 0;                                           // rank of q, 0: plain matrix
  int64_t dense_layers_ = 0, shared_ = 0;                     // shared_: width of the shared experts
  RopeConfig rope_config_;
  std::unique_ptr<RopeTable> rope_;
  float scale_ = 0;  // of q.k

  float *full_q_ = nullptr, *plain_q_ = nullptr,
        *values_ = nullptr;                              // [heads * (plain + rotated, plain, value)]
  float* low_q_ = nullptr;                               // [low]
  float *shared_gate_ = nullptr, *shared_up_ = nullptr;  // [shared]
  float* shared_out_ = nullptr;                          // [d_model]
  GroupedInput plain_input_, latent_input_;
  std::vector<int32_t> head_rows_;  // [heads][max_rows]: row * heads + head
  std::vector<MatmulGroup> groups_;
};

DeepSeek2::DeepSeek2(const GgufFile& file)
    : Decoder(file, "deepseek2",
              {"expert_count", "expert_group_count", "expert_group_used_count", "expert_gating_func",
               "leading_dense_block_count", "attention.q_lora_rank", "attention.kv_lora_rank"}) {
  read_widths();
  read_rotation();
  read_routing();
  layers_.resize(static_cast<size_t>(config_.layers));
  for (int64_t i = 0; i < config_.layers; ++i) {
    Layer& layer = layers_[static_cast<size_t>(i)];
    declare_norm(i, "attn_norm.weight", config_.d_model, &layer.attn_norm);
    declare_latent_attention(i, &layer);
    if (dense(i)) {
      declare_norm(i, "ffn_norm.weight", config_.d_model, &layer.ffn_norm);
      declare_ffn(i, &layer.ffn);
      continue;
    }
    declare_norm(i, "ffn_norm.weight", config_.d_model, &layer.moe.norm);
    declare_experts(i, &layer.moe);
    const auto name = [i](std::string_view text) { return fmt::format("blk.{}.{}", i, text); };
    weights_.optional_vector(name("exp_probs_b.bias"), router_.experts, &layer.moe.selection_bias);
    if (shared_ == 0) continue;
    weights_.matrix(name("ffn_gate_shexp.weight"), shared_, config_.d_model, &layer.ffn.gate);
    weights_.matrix(name("ffn_up_shexp.weight"), shared_, config_.d_model, &layer.ffn.up);
    weights_.matrix(name("ffn_down_shexp.weight"), config_.d_model, shared_, &layer.ffn.down);
  }
  finish_declaration();
  config_.macs_per_token += config_.layers * config_.heads * (plain_ + value_) * latent_;
}

void DeepSeek2::read_widths() {
  latent_ = keys_.integer("attention.kv_lora_rank", 2, 1024);
  rotated_ = keys_.integer("rope.dimension_count", 2, 512);
  // Files with kv_b taken apart give the width of a cached key as key_length, and the heads' own under _mla.
  const bool split = keys_.has("attention.key_length_mla");
  const int64_t key = keys_.integer(split ? "attention.key_length_mla" : "attention.key_length", 1, 1024);
  value_ = keys_.integer(split ? "attention.value_length_mla" : "attention.value_length", 1, 1024);
  plain_ = key - rotated_;
  if (latent_ % 2 != 0) {
    throw bad_model("key \"{}\" is {}, expected an even number", keys_.key("attention.kv_lora_rank"),
                    latent_);
  }
  if (plain_ < 1) {
    throw bad_model("key \"{}\" is {}, expected less than the key length {}",
                    keys_.key("rope.dimension_count"), rotated_, key);
  }
  config_.kv_heads = 1;
  config_.head_dim = latent_ + rotated_;
  config_.value_dim = latent_;
  config_.value_in_key = true;
  low_ = keys_.integer_or("attention.q_lora_rank", 0, 0, 1 << 16);
}

void DeepSeek2::read_routing() {
  const int64_t experts = keys_.integer_or("expert_count", 0, 0, kMaxExperts);
  dense_layers_ = keys_.integer_or("leading_dense_block_count", 0, 0, config_.layers);
  if (experts == 0) dense_layers_ = config_.layers;
  if (dense_layers_ == config_.layers) return;
  use_experts(false);
  // GLM 4.7 Flash, whose early files lack the key, is known by its depth and vocabulary.
  const bool glm = (config_.layers == 47 || config_.layers == 48) && config_.vocab == 154880;
  const int64_t gate = keys_.integer_or("expert_gating_func", glm ? 2 : 1, 0, 2);
  router_.gate = gate == 2 ? RouterGate::kSigmoid : RouterGate::kSoftmax;
  router_.groups = std::max<int64_t>(1, keys_.integer_or("expert_group_count", 1, 0, kMaxExpertGroups));
  router_.groups_used =
      std::max<int64_t>(1, keys_.integer_or("expert_group_used_count", 1, 0, router_.groups));
  // V3 ranks a group by its two best experts, V2 by its best.
  const int64_t size = router_.experts / router_.groups;
  router_.group_top = router_.gate == RouterGate::kSigmoid ? std::min<int64_t>(2, size) : 1;
  if (router_.experts % router_.groups != 0) {
    throw bad_model("key \"{}\" is {}, expected a divisor of the {} experts", keys_.key("expert_group_count"),
                    router_.groups, router_.experts);
  }
  if (router_.used > size * router_.groups_used) {
    throw bad_model("key \"{}\" is {}: {} groups of {} experts hold fewer than the {} used",
                    keys_.key("expert_group_used_count"), router_.groups_used, router_.groups_used, size,
                    router_.used);
  }
  shared_ = keys_.integer_or("expert_shared_count", 0, 0, 1024) * config_.experts.ffn;
}

/// With YaRN, a file's log multiplier is a tenth of mscale_all_dim, which scales q.k twice; cos and sin are
/// then left alone (mscale equals mscale_all_dim in every such model).
void DeepSeek2::read_rotation() {
  rope_config_ = read_rope(keys_, config_, RopeKind::kNormal);
  double scale = 1.0 / std::sqrt(static_cast<double>(plain_ + rotated_));
  const double multiplier = keys_.number_or("rope.scaling.yarn_log_multiplier", 0.0, 0.0, 10.0);
  if (rope_config_.scaling == RopeScaling::kYarn && multiplier != 0.0) {
    const double log_factor = rope_config_.factor > 1.0 ? log_double(rope_config_.factor) : 0.0;
    const double magnitude = 1.0 + multiplier * log_factor;
    scale *= magnitude * magnitude;
    if (!keys_.has("rope.scaling.yarn_attn_factor")) {
      rope_config_.yarn_attn_factor =
          rope_config_.yarn_ext_factor != 0.0 ? 1.0 / (1.0 + 0.1 * log_double(rope_config_.factor)) : 1.0;
    }
  }
  scale_ = static_cast<float>(keys_.number_or("attention.scale", scale, 1e-6, 1e3));
}

void DeepSeek2::declare_latent_attention(int64_t i, Layer* layer) {
  const auto name = [i](std::string_view text) { return fmt::format("blk.{}.{}", i, text); };
  const int64_t d = config_.d_model, heads = config_.heads, q_rows = heads * (plain_ + rotated_);
  if (low_ > 0) {
    weights_.matrix(name("attn_q_a.weight"), low_, d, &layer->low);
    weights_.vector(name("attn_q_a_norm.weight"), low_, &layer->low_norm);
    weights_.matrix(name("attn_q_b.weight"), q_rows, low_, &layer->q);
  } else {
    weights_.matrix(name("attn_q.weight"), q_rows, d, &layer->q);
  }
  const MatrixPart parts[] = {{latent_, &layer->latent}, {rotated_, &layer->rotated}};
  weights_.matrix_parts(name("attn_kv_a_mqa.weight"), d, parts);
  weights_.vector(name("attn_kv_a_norm.weight"), latent_, &layer->latent_norm);
  layer->to_latent.resize(static_cast<size_t>(heads));
  layer->from_latent.resize(static_cast<size_t>(heads));
  const auto check = [](const GgufTensor& t, int64_t cols, int64_t rows, int64_t count) {
    if (t.dims[0] == cols && t.dims[1] == rows && t.dims[2] == count && t.dims[3] == 1) return;
    throw bad_model("tensor \"{}\" is {} x {} x {}, expected {} x {} x {}", t.name, t.dims[0], t.dims[1],
                    t.dims[2] * t.dims[3], cols, rows, count);
  };
  const bool whole = weights_.has(name("attn_kv_b.weight"));
  const GgufTensor& k = weights_.stacked(name(whole ? "attn_kv_b.weight" : "attn_k_b.weight"));
  const GgufTensor& v = whole ? k : weights_.stacked(name("attn_v_b.weight"));
  if (whole) {
    check(k, latent_, heads * (plain_ + value_), 1);
  } else {
    check(k, plain_, latent_, heads);
    check(v, latent_, value_, heads);
  }
  for (int64_t h = 0; h < heads; ++h) {
    Linear& to = layer->to_latent[static_cast<size_t>(h)];
    Linear& from = layer->from_latent[static_cast<size_t>(h)];
    if (whole) {  // per head: rows of k, then of v
      const int64_t first = h * (plain_ + value_);
      weights_.transposed_part(k, first, plain_, &to);
      weights_.stacked_part(k, first + plain_, value_, &from);
    } else {
      weights_.stacked_part(k, h * latent_, latent_, &to);
      weights_.stacked_part(v, h * value_, value_, &from);
    }
  }
  weights_.matrix(name("attn_output.weight"), d, heads * value_, &layer->output);
}

int64_t DeepSeek2::extra_width() const {
  const int64_t per_head = plain_ + rotated_ + plain_ + value_;
  return config_.heads * per_head + low_ + 2 * shared_ + config_.d_model;
}

void DeepSeek2::start(const LoadOptions&) {
  rope_ = std::make_unique<RopeTable>(rope_config_);
  const int64_t heads = config_.heads;
  float* next = extra_;
  const auto take = [&next, this](int64_t width) {
    float* place = next;
    next += max_rows_ * width;
    return place;
  };
  full_q_ = take(heads * (plain_ + rotated_));
  plain_q_ = take(heads * plain_);
  values_ = take(heads * value_);
  low_q_ = take(low_);
  shared_gate_ = take(shared_);
  shared_up_ = take(shared_);
  shared_out_ = take(config_.d_model);
  for (const Layer& layer : layers_) {
    plain_input_.reserve(activation_kind(layer.to_latent[0].type), max_rows_ * heads, plain_);
    latent_input_.reserve(activation_kind(layer.from_latent[0].type), max_rows_ * heads, latent_);
  }
  head_rows_.resize(static_cast<size_t>(heads * max_rows_));
  for (int64_t i = 0; i < heads * max_rows_; ++i) {
    head_rows_[static_cast<size_t>(i)] = static_cast<int32_t>(i % max_rows_ * heads + i / max_rows_);
  }
  groups_.reserve(static_cast<size_t>(heads));
}

void DeepSeek2::per_head(Context& ctx, GroupedInput& input, const float* x, int64_t rows,
                         std::span<const Linear> weights, float* out, int64_t out_width) noexcept {
  const int64_t heads = config_.heads;
  input.reset(x, rows * heads, weights[0].cols);
  groups_.clear();
  for (int64_t h = 0; h < heads; ++h) {
    const std::span<const int32_t> of_head(head_rows_.data() + h * max_rows_, static_cast<size_t>(rows));
    groups_.push_back({&weights[static_cast<size_t>(h)], of_head, out + h * out_width, heads * out_width});
  }
  matmul_grouped(ctx, input, groups_);
}

/// attended_ [rows][heads * latent] of normed_; nothing of it in the last layer if nothing is wanted.
void DeepSeek2::attend(Context& ctx, const Batch& batch, KvAccess& kv, int layer, int64_t rows) noexcept {
  const int64_t d = config_.d_model, heads = config_.heads, key = latent_ + rotated_,
                full = plain_ + rotated_;
  const Layer& w = layers_[static_cast<size_t>(layer)];
  const MatmulTarget projections[] = {
      {&w.latent, v_, latent_},
      {&w.rotated, k_ + latent_, key},
      low_ > 0 ? MatmulTarget{&w.low, low_q_, low_} : MatmulTarget{&w.q, full_q_, heads * full}};
  matmul(ctx, normed_, rows, d, projections);
  rms_norm(ctx, v_, w.latent_norm, eps_, rows, latent_, v_);
  copy_rows(ctx, v_, latent_, rows, latent_, k_, key);
  rope(ctx, k_ + latent_, rows, 1, key, *rope_);
  kv.store(ctx, layer, k_, nullptr);  // k_ [rows][latent + rotated]
  if (nothing_wanted(batch, layer)) return;

  if (low_ > 0) {
    rms_norm(ctx, low_q_, w.low_norm, eps_, rows, low_, low_q_);
    matmul(ctx, low_q_, rows, low_, w.q, full_q_, heads * full);
  }
  copy_rows(ctx, full_q_, full, rows * heads, plain_, plain_q_, plain_);
  copy_rows(ctx, full_q_ + plain_, full, rows * heads, rotated_, q_ + latent_, key);
  rope(ctx, q_ + latent_, rows, heads, key, *rope_);
  per_head(ctx, plain_input_, plain_q_, rows, w.to_latent, q_, key);  // q_ [rows][heads][latent + rotated]
  AttentionParams attention{};
  attention.heads = heads;
  attention.scale = scale_;
  kv.attend(ctx, layer, q_, attention, attended_);
}

void DeepSeek2::forward(Context& ctx, const Batch& batch, KvAccess& kv, Outputs& outputs) noexcept {
  const int64_t d = config_.d_model, heads = config_.heads, ffn = config_.ffn;
  auto rows = static_cast<int64_t>(batch.rows.size());
  if (!begin(ctx, batch, outputs)) return;  // x_ [rows][d]
  rope_->prepare(ctx, positions());
  for (int layer = 0; layer < config_.layers; ++layer) {
    const Layer& w = layers_[static_cast<size_t>(layer)];
    rms_norm(ctx, x_, w.attn_norm, eps_, rows, d, normed_);
    attend(ctx, batch, kv, layer, rows);
    if (nothing_wanted(batch, layer)) return;
    rows = keep_wanted_rows(batch, layer, rows, attended_, heads * latent_);  // last layer only
    per_head(ctx, latent_input_, attended_, rows, w.from_latent, values_, value_);
    matmul(ctx, values_, rows, heads * value_, w.output, y_, d);  // [rows][d]
    add_in_place(ctx, x_, y_, rows, d);

    if (dense(layer)) {
      rms_norm(ctx, x_, w.ffn_norm, eps_, rows, d, normed_);
      const MatmulTarget gate_up[] = {{&w.ffn.gate, gate_, ffn}, {&w.ffn.up, up_, ffn}};
      matmul(ctx, normed_, rows, d, gate_up);  // [rows][ffn]
      silu_mul(ctx, gate_, up_, rows, ffn, gate_);
      matmul(ctx, gate_, rows, ffn, w.ffn.down, y_, d);
    } else {
      rms_norm(ctx, x_, w.moe.norm, eps_, rows, d, normed_);
      const MoeLayer* next =
          layer + 1 < config_.layers ? &layers_[static_cast<size_t>(layer) + 1].moe : nullptr;
      if (!run_experts(ctx, w.moe, next, rows, outputs)) return;  // y_ [rows][d]
      if (shared_ > 0) {
        const MatmulTarget gate_up[] = {{&w.ffn.gate, shared_gate_, shared_},
                                        {&w.ffn.up, shared_up_, shared_}};
        matmul(ctx, normed_, rows, d, gate_up);  // [rows][shared]
        silu_mul(ctx, shared_gate_, shared_up_, rows, shared_, shared_gate_);
        matmul(ctx, shared_gate_, rows, shared_, w.ffn.down, shared_out_, d);
        add_in_place(ctx, y_, shared_out_, rows, d);
      }
    }
    add_in_place(ctx, x_, y_, rows, d);
    tap(batch, layer, outputs);
  }
  finish(ctx, batch, rows, outputs);  // logits [wanted][vocab]
}

}  // namespace

std::unique_ptr<Decoder> make_deepseek2(const GgufFile& file) { return std::make_unique<DeepSeek2>(file); }

}  // namespace mete
