// What the dense decoder architectures share beside their forward: loading, activations, and the two ends of
// a step (embedding rows; output norm, logits and statistics of the wanted rows).
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/aligned.h"
#include "models/config.h"
#include "models/model.h"
#include "models/moe.h"
#include "ops/elementwise.h"
#include "ops/matmul.h"
#include "ops/rope.h"
#include "weights/dense.h"

namespace mete {

/// The attention projections of a layer.
struct AttentionWeights {
  Linear q, k, v, output;
};
/// The gated feed-forward network of a layer.
struct FfnWeights {
  Linear gate, up, down;
};

class Decoder : public Model {
 public:
  /// Reads the weights and allocates everything that forward writes to.
  void load(Context& ctx, const LoadOptions& options);
  Resident resident() const override;

 protected:
  /// Reads the shape and declares embedding, output norm and output matrix (tied if the file has none).
  /// `supported`: as of ArchKeys.
  Decoder(const GgufFile& file, const char* arch, std::initializer_list<std::string_view> supported = {});

  /// Floats per row that the architecture needs beside the activations below; they lie at extra_, one array
  /// after the other, each max_rows_ rows.
  virtual int64_t extra_width() const { return 0; }
  /// Called once, when the weights are in memory: builds the RoPE tables.
  virtual void start(const LoadOptions& options) = 0;

  /// Declares blk.<layer>.attn_{q,k,v,output} or attn_qkv, with biases where present.
  void declare_attention(int64_t layer, AttentionWeights* weights);
  /// Declares blk.<layer>.ffn_{gate,up,down}, with biases where present.
  void declare_ffn(int64_t layer, FfnWeights* weights);
  /// Reads the file's expert counts and the router's rules, which the architecture may then change in
  /// router_.
  void use_experts(bool normalise);
  /// Declares blk.<layer>.ffn_gate_inp and ffn_{gate,up,down}_exps (or ffn_gate_up_exps) as the next MoE
  /// layer, with biases where present.
  void declare_experts(int64_t layer, MoeLayer* moe);
  /// Declares a [rows][cols] table of which a token takes one row: the tables of config_.row_tables.
  void declare_row_table(std::string_view name, int64_t rows, int64_t cols, RowTable* table);
  void declare_norm(int64_t layer, std::string_view name, int64_t n, const float** weight);
  /// To be called last in the constructor: no tensor may be left over; fills the byte and MAC counts.
  void finish_declaration();

  /// x_ = embedding rows of the batch; tokens(), and positions() for the RoPE tables. False: rows could not
  /// be read, outputs.status says why, and forward must return.
  bool begin(Context& ctx, const Batch& batch, Outputs& outputs) noexcept;
  std::span<const int32_t> tokens() const { return tokens_; }
  std::span<const int32_t> positions() const { return {positions_.data(), rows_}; }
  /// y_ = the routed experts of `layer` on normed_, both [rows][d_model]; x_ holds the residual. `next`: the
  /// MoE layer after it, or null. False: they could not be read, outputs.status says why, and forward must
  /// return.
  bool run_experts(Context& ctx, const MoeLayer& layer, const MoeLayer* next, int64_t rows,
                   Outputs& outputs) noexcept;
  /// Copies x_ to the taps if `layer` is wanted.
  void tap(const Batch& batch, int64_t layer, Outputs& outputs) noexcept;
  /// True from the last layer with a KV store on if nothing after that store is wanted.
  bool nothing_wanted(const Batch& batch, int64_t layer) const noexcept;
  /// In the last layer, after attention: keeps only the rows whose logits or states are wanted in x_ and in
  /// `attended` ([rows][width]), unless the layer is tapped. Returns the number of rows left.
  int64_t keep_wanted_rows(const Batch& batch, int64_t layer, int64_t rows, float* attended,
                           int64_t width) const noexcept;
  /// States, logits and statistics of the wanted rows from x_ [rows][d_model], as left by keep_wanted_rows.
  void finish(Context& ctx, const Batch& batch, int64_t rows, Outputs& outputs) noexcept;

  ArchKeys keys_;
  DenseWeights weights_;
  RouterParams router_;  ///< of models with routed experts
  GatedActivation expert_activation_ = silu_mul;
  float eps_ = 0;
  float final_softcap_ = 0;  ///< > 0: logits = cap * tanh(logits / cap)
  int64_t max_rows_ = 0;

  // Activations, [max_rows][...].
  float *x_ = nullptr, *normed_ = nullptr, *y_ = nullptr;                   // [d_model]
  float *q_ = nullptr, *attended_ = nullptr, *k_ = nullptr, *v_ = nullptr;  // [heads or kv_heads * head_dim]
  float *gate_ = nullptr, *up_ = nullptr;  // [ffn]; share memory with q_ .. v_
  float* extra_ = nullptr;                 // [extra_width()], 64-byte aligned

 private:
  int64_t activation_floats(int64_t rows) const;
  /// Whether this layer or one behind it is tapped.
  static bool tapped_from(const Batch& batch, int64_t layer) noexcept {
    return !batch.tap_layers.empty() && batch.tap_layers.back() >= layer;
  }

  RowTable embedding_;
  Linear output_;
  std::vector<RowTable*> row_tables_;  // that are not matrices of the forward too
  const float* output_norm_ = nullptr;
  bool tied_ = false;
  const GgufFile& file_;  // valid until load() returns
  std::optional<Moe> moe_;
  std::unique_ptr<ExpertSource> expert_source_;
  AlignedBuffer activations_;
  std::vector<int32_t> tokens_, positions_;
  std::vector<int32_t> wanted_;  // batch.logits_rows and batch.hidden_rows, ascending
  std::vector<int32_t> picked_;  // indices into wanted_
  size_t rows_ = 0;
};

/// Checks divisors of RoPE frequencies read from tensor `name`. Throws Error(kBadModel).
std::vector<float> check_rope_factors(const char* name, const float* factors, int64_t n);

// One per architecture (factory.cpp).
std::unique_ptr<Decoder> make_llama(const GgufFile& file);
std::unique_ptr<Decoder> make_llama_moe(const GgufFile& file);
std::unique_ptr<Decoder> make_qwen2(const GgufFile& file);
std::unique_ptr<Decoder> make_qwen3(const GgufFile& file);
std::unique_ptr<Decoder> make_qwen2moe(const GgufFile& file);
std::unique_ptr<Decoder> make_qwen3moe(const GgufFile& file);
std::unique_ptr<Decoder> make_olmoe(const GgufFile& file);
std::unique_ptr<Decoder> make_gemma3(const GgufFile& file);
std::unique_ptr<Decoder> make_gemma3n(const GgufFile& file);
std::unique_ptr<Decoder> make_phi3(const GgufFile& file);
std::unique_ptr<Decoder> make_deepseek2(const GgufFile& file);
std::unique_ptr<Decoder> make_gpt_oss(const GgufFile& file);

}  // namespace mete
