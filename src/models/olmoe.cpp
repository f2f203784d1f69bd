// OLMoE: rotary embedding of half-split pairs, RMSNorm of q and k over their whole width, routed experts.
// Softmax over all experts, the best few, weights not normalised.
#include <cmath>

#include "models/decoder.h"
#include "ops/elementwise.h"

namespace mete {
namespace {

class Olmoe final : public Decoder {
 public:
  explicit Olmoe(const GgufFile& file);
  void forward(Context& ctx, const Batch& batch, KvAccess& kv, Outputs& outputs) noexcept override;

 private:
  struct Layer {
    const float* attn_norm;        // [d_model]
    const float *q_norm, *k_norm;  // [heads or kv_heads * head_dim]
    AttentionWeights attn;
    MoeLayer moe;
  };
  void start(const LoadOptions& options) override;
  const MoeLayer* next_moe(int layer) const {
    return layer + 1 < config_.layers ? &layers_[static_cast<size_t>(layer) + 1].moe : nullptr;
  }

  std::vector<Layer> layers_;
  RopeConfig rope_config_;
  std::unique_ptr<RopeTable> rope_;
  float scale_;  // of q.k
};

Olmoe::Olmoe(const GgufFile& file) : Decoder(file, "olmoe", {"expert_count"}) {
  refuse_sliding_window(keys_);
  rope_config_ = read_rope(keys_, config_, RopeKind::kNeox);
  const double standard = 1.0 / std::sqrt(static_cast<double>(config_.head_dim));
  scale_ = static_cast<float>(keys_.number_or("attention.scale", standard, 1e-6, 1e3));
  use_experts(false);
  config_.ffn = config_.experts.ffn;
  layers_.resize(static_cast<size_t>(config_.layers));
  for (int64_t i = 0; i < config_.layers; ++i) {
    Layer& layer = layers_[static_cast<size_t>(i)];
    declare_norm(i, "attn_norm.weight", config_.d_model, &layer.attn_norm);
    declare_attention(i, &layer.attn);
    declare_norm(i, "ffn_norm.weight", config_.d_model, &layer.moe.norm);
    declare_experts(i, &layer.moe);
    declare_norm(i, "attn_q_norm.weight", config_.heads * config_.head_dim, &layer.q_norm);
    declare_norm(i, "attn_k_norm.weight", config_.kv_heads * config_.head_dim, &layer.k_norm);
  }
  finish_declaration();
}

void Olmoe::start(const LoadOptions&) { rope_ = std::make_unique<RopeTable>(rope_config_); }

void Olmoe::forward(Context& ctx, const Batch& batch, KvAccess& kv, Outputs& outputs) noexcept {
  const int64_t d = config_.d_model, heads = config_.heads, kv_heads = config_.kv_heads;
  const int64_t head_dim = config_.head_dim, q_width = heads * head_dim, kv_width = kv_heads * head_dim;
  auto rows = static_cast<int64_t>(batch.rows.size());
  if (!begin(ctx, batch, outputs)) return;  // x_ [rows][d]
  rope_->prepare(ctx, positions());
  for (int layer = 0; layer < config_.layers; ++layer) {
    const Layer& w = layers_[static_cast<size_t>(layer)];
    rms_norm(ctx, x_, w.attn_norm, eps_, rows, d, normed_);  // [rows][d]
    const MatmulTarget qkv[] = {
        {&w.attn.q, q_, q_width}, {&w.attn.k, k_, kv_width}, {&w.attn.v, v_, kv_width}};
    matmul(ctx, normed_, rows, d, qkv);  // q_ [rows][heads * head_dim], k_ and v_ [rows][kv_heads * head_dim]
    rms_norm(ctx, q_, w.q_norm, eps_, rows, q_width, q_);
    rms_norm(ctx, k_, w.k_norm, eps_, rows, kv_width, k_);
    rope(ctx, q_, rows, heads, head_dim, *rope_);
    rope(ctx, k_, rows, kv_heads, head_dim, *rope_);
    kv.store(ctx, layer, k_, v_);
    if (nothing_wanted(batch, layer)) return;

    AttentionParams attention{};
    attention.heads = heads;
    attention.scale = scale_;
    attention.window = config_.windows[static_cast<size_t>(layer)];
    kv.attend(ctx, layer, q_, attention, attended_);                  // [rows][heads * head_dim]
    rows = keep_wanted_rows(batch, layer, rows, attended_, q_width);  // last layer only
    matmul(ctx, attended_, rows, q_width, w.attn.output, y_, d);      // [rows][d]
    add_in_place(ctx, x_, y_, rows, d);

    rms_norm(ctx, x_, w.moe.norm, eps_, rows, d, normed_);
    if (!run_experts(ctx, w.moe, next_moe(layer), rows, outputs)) return;  // y_ [rows][d]
    add_in_place(ctx, x_, y_, rows, d);
    tap(batch, layer, outputs);
  }
  finish(ctx, batch, rows, outputs);  // logits [wanted][vocab]
}

}  // namespace

std::unique_ptr<Decoder> make_olmoe(const GgufFile& file) { return std::make_unique<Olmoe>(file); }

}  // namespace mete
