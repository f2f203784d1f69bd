// Gemma 3 (text): norms before and after each block (the file's norm weights include the +1), RMSNorm of each
// q and k head, local layers with a sliding window and a RoPE base of their own, GELU-gated feed-forward
// network, embeddings scaled by sqrt(d_model).
#include <cmath>

#include "models/decoder.h"
#include "ops/elementwise.h"

namespace mete {
namespace {

class Gemma3 final : public Decoder {
 public:
  explicit Gemma3(const GgufFile& file);
  void forward(Context& ctx, const Batch& batch, KvAccess& kv, Outputs& outputs) noexcept override;

 private:
  struct Layer {
    const float *attn_norm, *post_attn_norm, *ffn_norm, *post_ffn_norm;  // [d_model]
    const float *q_norm, *k_norm;                                        // [head_dim]
    AttentionWeights attn;
    FfnWeights ffn;
  };
  void start(const LoadOptions& options) override;

  std::vector<Layer> layers_;
  RopeConfig rope_config_global_, rope_config_local_;
  std::unique_ptr<RopeTable> rope_global_, rope_local_;
  float scale_;  // of q.k
  float attention_softcap_, embedding_scale_;
};

Gemma3::Gemma3(const GgufFile& file) : Decoder(file, "gemma3") {
  config_.windows = read_windows(keys_, config_.layers, 6);
  rope_config_global_ = read_rope(keys_, config_, RopeKind::kNeox);
  rope_config_local_.dim = rope_config_global_.dim;  // local layers are never scaled
  rope_config_local_.base = read_rope_base(keys_, "rope.freq_base_swa");
  // 27B, known by its depth, scales by the width per head; the file has no key for it.
  const int64_t width = config_.layers == 62 ? config_.d_model / config_.heads : config_.head_dim;
  const double standard = 1.0 / std::sqrt(static_cast<double>(width));
  scale_ = static_cast<float>(keys_.number_or("attention.scale", standard, 1e-6, 1e3));
  attention_softcap_ = static_cast<float>(keys_.number_or("attn_logit_softcapping", 0.0, 0.0, 1e6));
  final_softcap_ = static_cast<float>(keys_.number_or("final_logit_softcapping", 0.0, 0.0, 1e6));
  embedding_scale_ = std::sqrt(static_cast<float>(config_.d_model));
  layers_.resize(static_cast<size_t>(config_.layers));
  for (int64_t i = 0; i < config_.layers; ++i) {
    Layer& layer = layers_[static_cast<size_t>(i)];
    declare_norm(i, "attn_norm.weight", config_.d_model, &layer.attn_norm);
    declare_attention(i, &layer.attn);
    declare_norm(i, "attn_q_norm.weight", config_.head_dim, &layer.q_norm);
    declare_norm(i, "attn_k_norm.weight", config_.head_dim, &layer.k_norm);
    declare_norm(i, "post_attention_norm.weight", config_.d_model, &layer.post_attn_norm);
    declare_norm(i, "ffn_norm.weight", config_.d_model, &layer.ffn_norm);
    declare_ffn(i, &layer.ffn);
    declare_norm(i, "post_ffw_norm.weight", config_.d_model, &layer.post_ffn_norm);
  }
  finish_declaration();
}

void Gemma3::start(const LoadOptions&) {
  rope_global_ = std::make_unique<RopeTable>(rope_config_global_);
  rope_local_ = std::make_unique<RopeTable>(rope_config_local_);
}

void Gemma3::forward(Context& ctx, const Batch& batch, KvAccess& kv, Outputs& outputs) noexcept {
  const int64_t d = config_.d_model, ffn = config_.ffn, heads = config_.heads, kv_heads = config_.kv_heads;
  const int64_t head_dim = config_.head_dim, q_width = heads * head_dim, kv_width = kv_heads * head_dim;
  auto rows = static_cast<int64_t>(batch.rows.size());
  if (!begin(ctx, batch, outputs)) return;  // x_ [rows][d]
  scale_in_place(ctx, x_, embedding_scale_, rows, d);
  rope_global_->prepare(ctx, positions());
  rope_local_->prepare(ctx, positions());
  for (int layer = 0; layer < config_.layers; ++layer) {
    const Layer& w = layers_[static_cast<size_t>(layer)];
    const int32_t window = config_.windows[static_cast<size_t>(layer)];
    const RopeTable& table = window > 0 ? *rope_local_ : *rope_global_;
    rms_norm(ctx, x_, w.attn_norm, eps_, rows, d, normed_);  // [rows][d]
    const MatmulTarget qkv[] = {
        {&w.attn.q, q_, q_width}, {&w.attn.k, k_, kv_width}, {&w.attn.v, v_, kv_width}};
    matmul(ctx, normed_, rows, d, qkv);  // q_ [rows][heads * head_dim], k_ and v_ [rows][kv_heads * head_dim]
    rms_norm(ctx, q_, w.q_norm, eps_, rows * heads, head_dim, q_);
    rms_norm(ctx, k_, w.k_norm, eps_, rows * kv_heads, head_dim, k_);
    rope(ctx, q_, rows, heads, head_dim, table);
    rope(ctx, k_, rows, kv_heads, head_dim, table);
    kv.store(ctx, layer, k_, v_);
    if (nothing_wanted(batch, layer)) return;

    AttentionParams attention{};
    attention.heads = heads;
    attention.scale = scale_;
    attention.window = window;
    attention.softcap = attention_softcap_;
    kv.attend(ctx, layer, q_, attention, attended_);                  // [rows][heads * head_dim]
    rows = keep_wanted_rows(batch, layer, rows, attended_, q_width);  // last layer only
    matmul(ctx, attended_, rows, q_width, w.attn.output, y_, d);      // [rows][d]
    rms_norm(ctx, y_, w.post_attn_norm, eps_, rows, d, y_);
    add_in_place(ctx, x_, y_, rows, d);

    rms_norm(ctx, x_, w.ffn_norm, eps_, rows, d, normed_);
    const MatmulTarget gate_up[] = {{&w.ffn.gate, gate_, ffn}, {&w.ffn.up, up_, ffn}};
    matmul(ctx, normed_, rows, d, gate_up);  // [rows][ffn]
    gelu_mul(ctx, gate_, up_, rows, ffn, gate_);
    matmul(ctx, gate_, rows, ffn, w.ffn.down, y_, d);  // [rows][d]
    rms_norm(ctx, y_, w.post_ffn_norm, eps_, rows, d, y_);
    add_in_place(ctx, x_, y_, rows, d);
    tap(batch, layer, outputs);
  }
  finish(ctx, batch, rows, outputs);  // logits [wanted][vocab]
}

}  // namespace

std::unique_ptr<Decoder> make_gemma3(const GgufFile& file) { return std::make_unique<Gemma3>(file); }

}  // namespace mete
