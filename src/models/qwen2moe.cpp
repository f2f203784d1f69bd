// Qwen1.5-MoE and Qwen2-MoE: Qwen2's attention; routed experts (softmax over all, the best few, weights not
// normalised) and a shared expert that every token passes through, scaled by the sigmoid of its own gate.
#include <cmath>

#include "models/decoder.h"
#include "ops/elementwise.h"

namespace mete {
namespace {

class Qwen2Moe final : public Decoder {
 public:
  explicit Qwen2Moe(const GgufFile& file);
  void forward(Context& ctx, const Batch& batch, KvAccess& kv, Outputs& outputs) noexcept override;

 private:
  struct Layer {
    const float* attn_norm;  // [d_model]
    AttentionWeights attn;
    MoeLayer moe;
    FfnWeights shared;   // [shared ffn]
    Linear shared_gate;  // [1][d_model]
  };
  void start(const LoadOptions& options) override;
  const MoeLayer* next_moe(int layer) const {
    return layer + 1 < config_.layers ? &layers_[static_cast<size_t>(layer) + 1].moe : nullptr;
  }

  std::vector<Layer> layers_;
  RopeConfig rope_config_;
  std::unique_ptr<RopeTable> rope_;
  float scale_;                      // of q.k
  std::vector<float> shared_gates_;  // [rows]
};

Qwen2Moe::Qwen2Moe(const GgufFile& file) : Decoder(file, "qwen2moe", {"expert_count"}) {
  refuse_sliding_window(keys_);
  rope_config_ = read_rope(keys_, config_, RopeKind::kNeox);
  const double standard = 1.0 / std::sqrt(static_cast<double>(config_.head_dim));
  scale_ = static_cast<float>(keys_.number_or("attention.scale", standard, 1e-6, 1e3));
  use_experts(false);
  config_.ffn = keys_.integer_or("expert_shared_feed_forward_length", config_.ffn, 1, 1 << 20);
  layers_.resize(static_cast<size_t>(config_.layers));
  for (int64_t i = 0; i < config_.layers; ++i) {
    Layer& layer = layers_[static_cast<size_t>(i)];
    declare_norm(i, "attn_norm.weight", config_.d_model, &layer.attn_norm);
    declare_attention(i, &layer.attn);
    declare_norm(i, "ffn_norm.weight", config_.d_model, &layer.moe.norm);
    declare_experts(i, &layer.moe);
    const auto name = [i](const char* text) { return fmt::format("blk.{}.ffn_{}_shexp.weight", i, text); };
    weights_.matrix(name("gate_inp"), 1, config_.d_model, &layer.shared_gate);
    weights_.matrix(name("gate"), config_.ffn, config_.d_model, &layer.shared.gate);
    weights_.matrix(name("up"), config_.ffn, config_.d_model, &layer.shared.up);
    weights_.matrix(name("down"), config_.d_model, config_.ffn, &layer.shared.down);
  }
  finish_declaration();
}

void Qwen2Moe::start(const LoadOptions& options) {
  rope_ = std::make_unique<RopeTable>(rope_config_);
  shared_gates_.resize(static_cast<size_t>(options.max_rows));
}

void Qwen2Moe::forward(Context& ctx, const Batch& batch, KvAccess& kv, Outputs& outputs) noexcept {
  const int64_t d = config_.d_model, ffn = config_.ffn, heads = config_.heads, kv_heads = config_.kv_heads;
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
    const MatmulTarget shared[] = {
        {&w.shared.gate, gate_, ffn}, {&w.shared.up, up_, ffn}, {&w.shared_gate, shared_gates_.data(), 1}};
    matmul(ctx, normed_, rows, d, shared);  // gate_, up_ [rows][ffn], shared_gates_ [rows]
    silu_mul(ctx, gate_, up_, rows, ffn, gate_);
    matmul(ctx, gate_, rows, ffn, w.shared.down, normed_, d);  // [rows][d]
    scale_by_sigmoid(ctx, normed_, shared_gates_.data(), rows, d);
    add_in_place(ctx, y_, normed_, rows, d);
    add_in_place(ctx, x_, y_, rows, d);
    tap(batch, layer, outputs);
  }
  finish(ctx, batch, rows, outputs);  // logits [wanted][vocab]
}

}  // namespace

std::unique_ptr<Decoder> make_qwen2moe(const GgufFile& file) { return std::make_unique<Qwen2Moe>(file); }

}  // namespace mete
