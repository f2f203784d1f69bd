// Gemma 3n (text; E2B, E4B): as Gemma 3, with four residual streams of which a layer computes one (AltUp), a
// low-rank path beside attention (LAuReL), a row of a per-layer embedding table that gates each layer's
// output, sparse gates in the first layers, and last layers that attend to the keys and values of earlier
// ones.
#include <cmath>

#include "models/decoder.h"
#include "ops/altup.h"
#include "ops/elementwise.h"

namespace mete {
namespace {

class Gemma3n final : public Decoder {
 public:
  explicit Gemma3n(const GgufFile& file);
  void forward(Context& ctx, const Batch& batch, KvAccess& kv, Outputs& outputs) noexcept override;

 private:
  struct Layer {
    const float *attn_norm, *post_attn_norm, *ffn_norm, *post_ffn_norm;  // [d_model]
    const float *q_norm, *k_norm;                                        // [head_dim]; k_norm: of own keys
    AttentionWeights attn;                                               // k, v: of own keys and values
    FfnWeights ffn;
    Linear laurel_left, laurel_right;          // [rank][d_model], [d_model][rank]
    const float* laurel_norm;                  // [d_model]
    Linear router, predict, correct;           // [streams][d_model], [streams^2][streams], [streams][streams]
    const float *router_norm, *correct_scale;  // [d_model]
    Linear input_gate, input_projection;       // [input_width][d_model], [d_model][input_width]
    const float* input_norm;                   // [d_model]
    int kv;                                    // the layer whose keys and values it attends to
    float sparsity;  // gates below mean + sparsity * deviation are 0; -infinity: none are
  };
  void start(const LoadOptions& options) override;
  int64_t extra_width() const override;
  void read_sparsity();
  void declare_layer(int64_t layer);
  void declare_stacked(std::string_view name, std::vector<Linear>* parts);
  bool make_layer_inputs(Context& ctx, int64_t rows, Outputs& outputs) noexcept;
  void route(Context& ctx, const Layer& w, const float* x, int64_t rows) noexcept;
  void attend_and_feed(Context& ctx, const Layer& w, const float* active, int64_t rows) noexcept;
  void correct(Context& ctx, const Layer& w, int64_t layer, int64_t rows) noexcept;
  void merge_streams(Context& ctx, int64_t rows) noexcept;

  std::vector<Layer> layers_;
  RowTable layer_embedding_;                      // [vocab][layers * input_width]
  Linear input_model_projection_;                 // [layers * input_width][d_model]
  const float* input_projection_norm_ = nullptr;  // [input_width]
  std::vector<Linear> stream_in_, stream_out_;    // streams - 1 matrices [d_model][d_model]
  RopeConfig rope_config_global_, rope_config_local_;
  std::unique_ptr<RopeTable> rope_global_, rope_local_;
  int64_t input_width_ = 0, rank_ = 0;
  int64_t active_ = 0;  // the stream that layers compute

  // Activations, [rows][...].
  AltupStreams streams_, predictions_;                               // [d_model]; streams_.at[0] is x_
  float* laurel_ = nullptr;                                          // [d_model]
  float *inputs_ = nullptr, *projected_ = nullptr;                   // [layers * input_width]
  float *input_ = nullptr, *input_gate_ = nullptr;                   // [input_width]
  float *low_ = nullptr, *modalities_ = nullptr, *coefs_ = nullptr;  // [rank], [streams], [streams^2]
};

Gemma3n::Gemma3n(const GgufFile& file) : Decoder(file, "gemma3n", {"attention.shared_kv_layers"}) {
  config_.windows = read_windows(keys_, config_.layers, 5);
  rope_config_global_ = read_rope(keys_, config_, RopeKind::kNeox);
  rope_config_local_.dim = rope_config_global_.dim;  // local layers are never scaled
  rope_config_local_.base = read_rope_base(keys_, "rope.freq_base_swa");
  final_softcap_ = static_cast<float>(keys_.number_or("final_logit_softcapping", 30.0, 0.0, 1e6));
  const int64_t count = keys_.integer("altup.num_inputs", 2, kMaxAltupStreams);
  streams_.count = predictions_.count = count;
  active_ = keys_.integer_or("altup.active_idx", 0, 0, count - 1);
  input_width_ = keys_.integer("embedding_length_per_layer_input", 1, 1 << 16);
  config_.kv_layers =
      config_.layers - keys_.integer_or("attention.shared_kv_layers", 0, 0, config_.layers - 1);
  const GgufTensor* laurel = file.find("blk.0.laurel_l.weight");
  if (laurel == nullptr) throw bad_model("tensor \"blk.0.laurel_l.weight\" is missing");
  rank_ = laurel->dims[1];
  if (rank_ > config_.d_model) {
    throw bad_model("tensor \"{}\" has {} rows, expected 1 to {}", laurel->name, rank_, config_.d_model);
  }

  const int64_t all = config_.layers * input_width_;
  declare_row_table("per_layer_token_embd.weight", config_.vocab, all, &layer_embedding_);
  weights_.matrix("per_layer_model_proj.weight", all, config_.d_model, &input_model_projection_);
  weights_.vector("per_layer_proj_norm.weight", input_width_, &input_projection_norm_);
  declare_stacked("altup_proj.weight", &stream_in_);
  declare_stacked("altup_unembd_proj.weight", &stream_out_);
  layers_.resize(static_cast<size_t>(config_.layers));
  read_sparsity();
  for (int64_t i = 0; i < config_.layers; ++i) declare_layer(i);
  finish_declaration();
}

/// Multipliers of the standard deviation, one per layer; without the key, as the released models have them.
void Gemma3n::read_sparsity() {
  constexpr const char* kKey = "activation_sparsity_scale";
  for (size_t i = 0; i < layers_.size(); ++i) {
    layers_[i].sparsity = i < 10 ? 1.6448533535003662f : -INFINITY;
  }
  if (!keys_.has(kKey)) return;
  const std::vector<float> scales = keys_.metadata().floats(keys_.key(kKey)).value();
  if (scales.size() != layers_.size()) {
    throw bad_model("key \"{}\" is an array of {}, expected one number for each of {} layers",
                    keys_.key(kKey), scales.size(), layers_.size());
  }
  for (size_t i = 0; i < layers_.size(); ++i) {
    if (!(scales[i] < 100.0f)) {
      throw bad_model("key \"{}\" holds {}, expected numbers below 100", keys_.key(kKey), scales[i]);
    }
    layers_[i].sparsity = scales[i];
  }
}

void Gemma3n::declare_layer(int64_t i) {
  Layer& layer = layers_[static_cast<size_t>(i)];
  const auto name = [i](std::string_view text) { return fmt::format("blk.{}.{}", i, text); };
  const int64_t d = config_.d_model, count = streams_.count;
  declare_norm(i, "attn_norm.weight", d, &layer.attn_norm);
  declare_norm(i, "attn_q_norm.weight", config_.head_dim, &layer.q_norm);
  layer.kv = static_cast<int>(i);
  if (i < config_.kv_layers) {
    declare_attention(i, &layer.attn);
    declare_norm(i, "attn_k_norm.weight", config_.head_dim, &layer.k_norm);
  } else {  // keys and values of the last layer of its kind that has its own
    const auto kind = [this](int64_t l) { return config_.windows[static_cast<size_t>(l)] > 0; };
    int64_t from = config_.kv_layers - 1;
    while (from >= 0 && kind(from) != kind(i)) --from;
    if (from < 0) {
      throw bad_model("key \"{}\": no layer before layer {} has keys and values of its kind",
                      keys_.key("attention.shared_kv_layers"), i);
    }
    layer.kv = static_cast<int>(from);
    weights_.matrix(name("attn_q.weight"), config_.heads * config_.head_dim, d, &layer.attn.q);
    weights_.matrix(name("attn_output.weight"), d, config_.heads * config_.head_dim, &layer.attn.output);
    for (const char* unused : {"attn_k.weight", "attn_v.weight", "attn_k_norm.weight"}) {
      weights_.claim(name(unused));
    }
  }
  declare_norm(i, "post_attention_norm.weight", d, &layer.post_attn_norm);
  declare_norm(i, "ffn_norm.weight", d, &layer.ffn_norm);
  declare_ffn(i, &layer.ffn);
  declare_norm(i, "post_ffw_norm.weight", d, &layer.post_ffn_norm);
  weights_.matrix(name("laurel_l.weight"), rank_, d, &layer.laurel_left);
  weights_.matrix(name("laurel_r.weight"), d, rank_, &layer.laurel_right);
  declare_norm(i, "laurel_post_norm.weight", d, &layer.laurel_norm);
  weights_.matrix(name("altup_router.weight"), count, d, &layer.router);
  declare_norm(i, "altup_router_norm.weight", d, &layer.router_norm);
  weights_.matrix(name("altup_predict_coef.weight"), count * count, count, &layer.predict);
  weights_.matrix(name("altup_correct_coef.weight"), count, count, &layer.correct);
  declare_norm(i, "altup_correct_scale.weight", d, &layer.correct_scale);
  weights_.matrix(name("inp_gate.weight"), input_width_, d, &layer.input_gate);
  weights_.matrix(name("proj.weight"), d, input_width_, &layer.input_projection);
  declare_norm(i, "post_norm.weight", d, &layer.input_norm);
}

/// One matrix for each stream but the first, stacked in a tensor.
void Gemma3n::declare_stacked(std::string_view name, std::vector<Linear>* parts) {
  const GgufTensor& tensor = weights_.stacked(name);
  const int64_t d = config_.d_model, n = streams_.count - 1;
  if (tensor.dims != std::array<int64_t, 4>{d, d, n, 1}) {
    throw bad_model("tensor \"{}\" is {} x {} x {} x {}, expected {} x {} x {}", name, tensor.dims[0],
                    tensor.dims[1], tensor.dims[2], tensor.dims[3], d, d, n);
  }
  parts->resize(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) weights_.stacked_part(tensor, i * d, d, &(*parts)[static_cast<size_t>(i)]);
}

int64_t Gemma3n::extra_width() const {
  const int64_t count = streams_.count;
  return (2 * count) * config_.d_model + 2 * config_.layers * input_width_ + 2 * input_width_ + rank_ +
         count + count * count;
}

void Gemma3n::start(const LoadOptions&) {
  rope_global_ = std::make_unique<RopeTable>(rope_config_global_);
  rope_local_ = std::make_unique<RopeTable>(rope_config_local_);
  float* next = extra_;
  const auto take = [&next, this](int64_t width) {
    float* place = next;
    next += max_rows_ * width;
    return place;
  };
  const int64_t count = streams_.count;
  for (int64_t i = 0; i < count; ++i) {
    streams_.at[static_cast<size_t>(i)] = i == 0 ? x_ : take(config_.d_model);
    predictions_.at[static_cast<size_t>(i)] = take(config_.d_model);
  }
  laurel_ = take(config_.d_model);
  for (float** place : {&inputs_, &projected_}) *place = take(config_.layers * input_width_);
  for (float** place : {&input_, &input_gate_}) *place = take(input_width_);
  low_ = take(rank_);
  modalities_ = take(count);
  coefs_ = take(count * count);
}

/// inputs_ = what each layer is given of the tokens: (rows of the per-layer table * sqrt(width) + normed
/// projections of the embeddings) / sqrt(2). False: rows could not be read.
bool Gemma3n::make_layer_inputs(Context& ctx, int64_t rows, Outputs& outputs) noexcept {
  const int64_t d = config_.d_model, all = config_.layers * input_width_;
  outputs.status = layer_embedding_.gather(ctx, tokens(), inputs_);
  if (!outputs.status) return false;
  scale_in_place(ctx, inputs_, std::sqrt(static_cast<float>(input_width_)), rows, all);
  matmul(ctx, x_, rows, d, input_model_projection_, projected_, all);
  scale_in_place(ctx, projected_, 1.0f / std::sqrt(static_cast<float>(d)), rows, all);
  rms_norm(ctx, projected_, input_projection_norm_, eps_, rows * config_.layers, input_width_, projected_);
  add_in_place(ctx, inputs_, projected_, rows, all);
  scale_in_place(ctx, inputs_, std::sqrt(0.5f), rows, all);
  return true;
}

/// modalities_ = tanh(router(norm(x) / d_model)).
void Gemma3n::route(Context& ctx, const Layer& w, const float* x, int64_t rows) noexcept {
  const int64_t d = config_.d_model;
  rms_norm(ctx, x, w.router_norm, eps_, rows, d, normed_);
  scale_in_place(ctx, normed_, 1.0f / static_cast<float>(d), rows, d);
  matmul(ctx, normed_, rows, d, w.router, modalities_, streams_.count);
  softcap_in_place(ctx, modalities_, 1.0f, rows, streams_.count);  // tanh
}

/// y_ = the layer's output on the active stream, from attended_ and laurel_.
void Gemma3n::attend_and_feed(Context& ctx, const Layer& w, const float* active, int64_t rows) noexcept {
  const int64_t d = config_.d_model, ffn = config_.ffn, q_width = config_.heads * config_.head_dim;
  matmul(ctx, attended_, rows, q_width, w.attn.output, y_, d);
  rms_norm(ctx, y_, w.post_attn_norm, eps_, rows, d, y_);
  add_in_place(ctx, y_, active, rows, d);
  add_in_place(ctx, y_, laurel_, rows, d);
  scale_in_place(ctx, y_, std::sqrt(0.5f), rows, d);

  rms_norm(ctx, y_, w.ffn_norm, eps_, rows, d, normed_);
  const MatmulTarget gate_up[] = {{&w.ffn.gate, gate_, ffn}, {&w.ffn.up, up_, ffn}};
  matmul(ctx, normed_, rows, d, gate_up);
  if (w.sparsity > -INFINITY) gaussian_topk(ctx, gate_, w.sparsity, rows, ffn);
  gelu_mul(ctx, gate_, up_, rows, ffn, gate_);
  matmul(ctx, gate_, rows, ffn, w.ffn.down, normed_, d);
  rms_norm(ctx, normed_, w.post_ffn_norm, eps_, rows, d, normed_);
  add_in_place(ctx, y_, normed_, rows, d);
}

/// All streams from their predictions and the layer's output y_; then the layer's input of the token, gated
/// by the active stream, goes to all but the first.
void Gemma3n::correct(Context& ctx, const Layer& w, int64_t layer, int64_t rows) noexcept {
  const int64_t d = config_.d_model, count = streams_.count;
  route(ctx, w, y_, rows);
  matmul(ctx, modalities_, rows, count, w.correct, coefs_, count);
  altup_correct(ctx, predictions_, active_, y_, coefs_, rows, d, streams_);

  mul_rows(ctx, streams_.at[static_cast<size_t>(active_)], w.correct_scale, rows, d, normed_);
  matmul(ctx, normed_, rows, d, w.input_gate, input_gate_, input_width_);
  copy_rows(ctx, inputs_ + layer * input_width_, config_.layers * input_width_, rows, input_width_, input_,
            input_width_);
  gelu_mul(ctx, input_gate_, input_, rows, input_width_, input_gate_);
  matmul(ctx, input_gate_, rows, input_width_, w.input_projection, y_, d);
  rms_norm(ctx, y_, w.input_norm, eps_, rows, d, y_);
  for (int64_t i = 1; i < count; ++i) add_in_place(ctx, streams_.at[static_cast<size_t>(i)], y_, rows, d);
}

/// x_ = mean of the streams, those but the first projected back and brought to the first one's magnitude.
void Gemma3n::merge_streams(Context& ctx, int64_t rows) noexcept {
  const int64_t d = config_.d_model;
  AltupStreams merged = predictions_;
  merged.at[0] = x_;
  for (size_t i = 1; i < static_cast<size_t>(streams_.count); ++i) {
    matmul(ctx, streams_.at[i], rows, d, stream_out_[i - 1], merged.at[i], d);
    match_magnitude(ctx, x_, rows, d, merged.at[i]);
  }
  altup_mean(ctx, merged, rows, d, x_);
}

void Gemma3n::forward(Context& ctx, const Batch& batch, KvAccess& kv, Outputs& outputs) noexcept {
  const int64_t d = config_.d_model, heads = config_.heads, kv_heads = config_.kv_heads;
  const int64_t head_dim = config_.head_dim, q_width = heads * head_dim, kv_width = kv_heads * head_dim;
  const auto rows = static_cast<int64_t>(batch.rows.size());
  if (!begin(ctx, batch, outputs)) return;  // x_ [rows][d], the first stream
  scale_in_place(ctx, x_, std::sqrt(static_cast<float>(d)), rows, d);
  if (!make_layer_inputs(ctx, rows, outputs)) return;
  for (size_t i = 1; i < static_cast<size_t>(streams_.count); ++i) {
    matmul(ctx, x_, rows, d, stream_in_[i - 1], streams_.at[i], d);
    match_magnitude(ctx, x_, rows, d, streams_.at[i]);
  }
  rope_global_->prepare(ctx, positions());
  rope_local_->prepare(ctx, positions());
  for (int layer = 0; layer < config_.layers; ++layer) {
    const Layer& w = layers_[static_cast<size_t>(layer)];
    const int32_t window = config_.windows[static_cast<size_t>(layer)];
    const RopeTable& table = window > 0 ? *rope_local_ : *rope_global_;
    const float* active = predictions_.at[static_cast<size_t>(active_)];
    route(ctx, w, streams_.at[static_cast<size_t>(active_)], rows);
    matmul(ctx, modalities_, rows, streams_.count, w.predict, coefs_, streams_.count * streams_.count);
    altup_predict(ctx, streams_, coefs_, rows, d, predictions_);

    rms_norm(ctx, active, w.attn_norm, eps_, rows, d, normed_);  // [rows][d]
    const bool own = layer < config_.kv_layers;
    const MatmulTarget first[] = {{&w.laurel_left, low_, rank_},
                                  {&w.attn.q, q_, q_width},
                                  {&w.attn.k, k_, kv_width},
                                  {&w.attn.v, v_, kv_width}};
    matmul(ctx, normed_, rows, d, std::span(first).first(own ? 4 : 2));
    rms_norm(ctx, q_, w.q_norm, eps_, rows * heads, head_dim, q_);
    rope(ctx, q_, rows, heads, head_dim, table);
    if (own) {
      rms_norm(ctx, k_, w.k_norm, eps_, rows * kv_heads, head_dim, k_);
      rope(ctx, k_, rows, kv_heads, head_dim, table);
      rms_norm(ctx, v_, nullptr, eps_, rows * kv_heads, head_dim, v_);
      kv.store(ctx, layer, k_, v_);
    }
    if (nothing_wanted(batch, layer)) return;
    matmul(ctx, low_, rows, rank_, w.laurel_right, laurel_, d);
    rms_norm(ctx, laurel_, w.laurel_norm, eps_, rows, d, laurel_);
    add_in_place(ctx, laurel_, normed_, rows, d);

    AttentionParams attention{};
    attention.heads = heads;
    attention.scale = 1.0f;
    attention.window = window;
    kv.attend(ctx, w.kv, q_, attention, attended_);  // [rows][heads * head_dim]
    attend_and_feed(ctx, w, active, rows);
    correct(ctx, w, layer, rows);
    tap(batch, layer, outputs);  // of the first stream
  }
  merge_streams(ctx, rows);
  finish(ctx, batch, rows, outputs);  // logits [wanted][vocab]
}

}  // namespace

std::unique_ptr<Decoder> make_gemma3n(const GgufFile& file) { return std::make_unique<Gemma3n>(file); }

}  // namespace mete
