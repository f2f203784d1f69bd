// Phi 3, 3.5 and 4: as Llama with fused projections, partial rotary embedding of half-split pairs, and
// longrope: one of two sets of frequency divisors, chosen once by the context that the model is loaded for.
//
// The sliding window of a Phi 3 file is honoured, as Hugging Face's implementation does.
#include <cmath>

#include "base/error.h"
#include "models/decoder.h"
#include "ops/elementwise.h"

namespace mete {
namespace {

class Phi3 final : public Decoder {
 public:
  explicit Phi3(const GgufFile& file);
  void forward(Context& ctx, const Batch& batch, KvAccess& kv, Outputs& outputs) noexcept override;

 private:
  struct Layer {
    const float *attn_norm, *ffn_norm;  // [d_model]
    AttentionWeights attn;
    FfnWeights ffn;
  };
  void start(const LoadOptions& options) override;

  std::vector<Layer> layers_;
  RopeConfig rope_config_;
  std::unique_ptr<RopeTable> rope_;
  float scale_;                                                     // of q.k
  const float *long_factors_ = nullptr, *short_factors_ = nullptr;  // [rope dim / 2] or null
};

Phi3::Phi3(const GgufFile& file) : Decoder(file, "phi3") {
  rope_config_ = read_rope(keys_, config_, RopeKind::kNeox, true);
  config_.windows = read_windows(keys_, config_.layers, 0);
  const double standard = 1.0 / std::sqrt(static_cast<double>(config_.head_dim));
  scale_ = static_cast<float>(keys_.number_or("attention.scale", standard, 1e-6, 1e3));
  const bool has_long =
      weights_.optional_vector("rope_factors_long.weight", rope_config_.dim / 2, &long_factors_);
  const bool has_short =
      weights_.optional_vector("rope_factors_short.weight", rope_config_.dim / 2, &short_factors_);
  if (has_long != has_short) {
    throw bad_model("tensor \"rope_factors_{}.weight\" is missing", has_long ? "short" : "long");
  }
  layers_.resize(static_cast<size_t>(config_.layers));
  for (int64_t i = 0; i < config_.layers; ++i) {
    Layer& layer = layers_[static_cast<size_t>(i)];
    declare_norm(i, "attn_norm.weight", config_.d_model, &layer.attn_norm);
    declare_attention(i, &layer.attn);
    declare_norm(i, "ffn_norm.weight", config_.d_model, &layer.ffn_norm);
    const MatrixPart gate_up[] = {{config_.ffn, &layer.ffn.gate}, {config_.ffn, &layer.ffn.up}};
    weights_.matrix_parts(fmt::format("blk.{}.ffn_up.weight", i), config_.d_model, gate_up);
    weights_.matrix(fmt::format("blk.{}.ffn_down.weight", i), config_.d_model, config_.ffn, &layer.ffn.down);
  }
  finish_declaration();
}

void Phi3::start(const LoadOptions& options) {
  if (long_factors_ != nullptr) {
    const int64_t context = options.context > 0 ? options.context : config_.context_train;
    const bool is_long = context > rope_config_.original_context;
    rope_config_.factors =
        is_long ? check_rope_factors("rope_factors_long.weight", long_factors_, rope_config_.dim / 2)
                : check_rope_factors("rope_factors_short.weight", short_factors_, rope_config_.dim / 2);
  }
  rope_ = std::make_unique<RopeTable>(rope_config_);
}

void Phi3::forward(Context& ctx, const Batch& batch, KvAccess& kv, Outputs& outputs) noexcept {
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

    rms_norm(ctx, x_, w.ffn_norm, eps_, rows, d, normed_);
    const MatmulTarget gate_up[] = {{&w.ffn.gate, gate_, ffn}, {&w.ffn.up, up_, ffn}};
    matmul(ctx, normed_, rows, d, gate_up);  // [rows][ffn]
    silu_mul(ctx, gate_, up_, rows, ffn, gate_);
    matmul(ctx, gate_, rows, ffn, w.ffn.down, y_, d);  // [rows][d]
    add_in_place(ctx, x_, y_, rows, d);
    tap(batch, layer, outputs);
  }
  finish(ctx, batch, rows, outputs);  // logits [wanted][vocab]
}

}  // namespace

std::unique_ptr<Decoder> make_phi3(const GgufFile& file) { return std::make_unique<Phi3>(file); }

}  // namespace mete
