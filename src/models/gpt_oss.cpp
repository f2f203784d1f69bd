// gpt-oss: grouped-query attention with biases and attention sinks, every second layer with a sliding window,
// YaRN; routed experts with biases and a clamped SwiGLU, weighted by a softmax over the chosen.
#include <cmath>

#include "models/decoder.h"
#include "ops/elementwise.h"

namespace mete {
namespace {

class GptOss final : public Decoder {
 public:
  explicit GptOss(const GgufFile& file);
  void forward(Context& ctx, const Batch& batch, KvAccess& kv, Outputs& outputs) noexcept override;

 private:
  struct Layer {
    const float* attn_norm;  // [d_model]
    const float* sinks;      // [heads]
    AttentionWeights attn;
    MoeLayer moe;
  };
  void start(const LoadOptions& options) override;

  std::vector<Layer> layers_;
  RopeConfig rope_config_;
  std::unique_ptr<RopeTable> rope_;
  float scale_;  // of q.k
};

GptOss::GptOss(const GgufFile& file) : Decoder(file, "gpt-oss", {"expert_count"}) {
  rope_config_ = read_rope(keys_, config_, RopeKind::kNeox);
  rope_config_.yarn_truncate = false;
  config_.windows = read_windows(keys_, config_.layers, 2);
  scale_ = static_cast<float>(1.0 / std::sqrt(static_cast<double>(config_.head_dim)));
  use_experts(false);
  router_.gate = RouterGate::kSoftmaxOfTop;
  expert_activation_ = swiglu_clamped;
  config_.ffn = config_.experts.ffn;
  layers_.resize(static_cast<size_t>(config_.layers));
  for (int64_t i = 0; i < config_.layers; ++i) {
    Layer& layer = layers_[static_cast<size_t>(i)];
    declare_norm(i, "attn_norm.weight", config_.d_model, &layer.attn_norm);
    declare_attention(i, &layer.attn);
    weights_.vector(fmt::format("blk.{}.attn_sinks.weight", i), config_.heads, &layer.sinks);
    declare_norm(i, "post_attention_norm.weight", config_.d_model, &layer.moe.norm);
    declare_experts(i, &layer.moe);
  }
  finish_declaration();
}

void GptOss::start(const LoadOptions&) { rope_ = std::make_unique<RopeTable>(rope_config_); }

void GptOss::forward(Context& ctx, const Batch& batch, KvAccess& kv, Outputs& outputs) noexcept {
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
    rope(ctx, q_, rows, heads, head_dim, *rope_);
    rope(ctx, k_, rows, kv_heads, head_dim, *rope_);
    kv.store(ctx, layer, k_, v_);
    if (nothing_wanted(batch, layer)) return;

    AttentionParams attention{};
    attention.heads = heads;
    attention.scale = scale_;
    attention.window = config_.windows[static_cast<size_t>(layer)];
    attention.sinks = w.sinks;
    kv.attend(ctx, layer, q_, attention, attended_);                  // [rows][heads * head_dim]
    rows = keep_wanted_rows(batch, layer, rows, attended_, q_width);  // last layer only
    matmul(ctx, attended_, rows, q_width, w.attn.output, y_, d);      // [rows][d]
    add_in_place(ctx, x_, y_, rows, d);

    rms_norm(ctx, x_, w.moe.norm, eps_, rows, d, normed_);
    const MoeLayer* next =
        layer + 1 < config_.layers ? &layers_[static_cast<size_t>(layer) + 1].moe : nullptr;
    if (!run_experts(ctx, w.moe, next, rows, outputs)) return;  // y_ [rows][d]
    add_in_place(ctx, x_, y_, rows, d);
    tap(batch, layer, outputs);
  }
  finish(ctx, batch, rows, outputs);  // logits [wanted][vocab]
}

}  // namespace

std::unique_ptr<Decoder> make_gpt_oss(const GgufFile& file) { return std::make_unique<GptOss>(file); }

}  // namespace mete
