// A model: its configuration and one forward for everything (docs/architecture.md, "Life of a token").
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "format/gguf.h"
#include "ops/context.h"
#include "request/batch.h"
#include "request/kv_access.h"
#include "weights/experts.h"
#include "weights/row_store.h"

namespace mete {

/// A table of which a token takes one row and nothing else: it may stay on the drive.
struct RowTableDeclaration {
  const GgufTensor* tensor;  ///< of the file
  int64_t bytes;             ///< in memory, part of weight_bytes
};

/// What the engine needs to know of any model.
struct ModelConfig {
  std::string arch;  ///< general.architecture
  int64_t layers = 0, d_model = 0, vocab = 0;
  int64_t heads = 0, kv_heads = 0, head_dim = 0,
          ffn = 0;               ///< kv_heads and head_dim as the KV cache sees them
  int64_t value_dim = 0;         ///< of values in the KV cache
  bool value_in_key = false;     ///< a key's first value_dim elements are its value (MLA)
  int64_t context_train = 0;     ///< context length the model was trained with
  int64_t kv_layers = 0;         ///< layers that own KV; model layer i < kv_layers uses KV layer i
  std::vector<int32_t> windows;  ///< per layer: sliding window in tokens, 0 = none
  ExpertDeclaration experts;     ///< no layers: a dense model. Points into the file
  std::vector<RowTableDeclaration> row_tables;
  int64_t weight_bytes = 0;     ///< packed weights, those of all routed experts included
  int64_t expert_bytes = 0;     ///< the part of all routed experts
  int64_t bytes_per_token = 0;  ///< weight bytes that decoding one token reads: of the experts, the used ones
  int64_t macs_per_token = 0;   ///< multiply-adds of the layers' weight matrices per token
  int64_t macs_per_logits = 0;  ///< multiply-adds of the output matrix per wanted logits row

  // Memory of a step.
  int64_t row_bytes = 0;      ///< activations, quantised ones included, per row of the largest step
  int64_t rowless_bytes = 0;  ///< of a step, however many rows
  int64_t worker_bytes = 0;   ///< kernel scratch of each thread
  int64_t unit_bytes = 0;     ///< least that the loader needs at once for a part of the weights
};

/// Sees every router decision of a step (mete inspect --routing).
class RoutingTap {
 public:
  virtual ~RoutingTap() = default;
  /// `layer` counts MoE layers from 0; ids, weights: [rows][used], in rank order (best first).
  virtual void routed(int layer, int64_t rows, int64_t used, const int32_t* ids, const float* weights) = 0;
};

/// What forward writes. The engine sizes the buffers from the batch.
struct Outputs {
  float* logits = nullptr;        ///< [batch.logits_rows][vocab]
  RowStats* stats = nullptr;      ///< [batch.logits_rows], if batch.want_stats
  float* hidden = nullptr;        ///< [batch.hidden_rows][d_model]
  float* taps = nullptr;          ///< [batch.tap_layers][batch.rows][d_model]
  RoutingTap* routing = nullptr;  ///< null: nobody looks
  /// An Error if the step failed half-way (experts could not be read); what was written is then of no use.
  Status status{};
};

struct LoadOptions;
/// Makes what serves a model's routed experts; the declaration stays where it is while the model lives.
/// Throws Error(kRuntime), or kOverBudget.
using MakeExperts = std::function<std::unique_ptr<ExpertSource>(
    Context& ctx, const GgufFile& file, const ExpertDeclaration& declaration, const LoadOptions& options)>;

struct LoadOptions {
  int64_t context = 0;                    ///< chosen context (-c); context-dependent RoPE is fixed by it
  int64_t max_rows = 512;                 ///< largest batch that forward will see
  int64_t read_bytes = int64_t{1} << 20;  ///< of one read while weights are loaded; at least a panel is read
  /// Called with bytes done and bytes in all while weights are read; may be null.
  void (*progress)(void* user, int64_t done, int64_t total) = nullptr;
  void* progress_user = nullptr;
  MakeExperts make_experts{};  ///< empty: all experts in memory (ResidentExperts)
  bool rows_on_disk = false;   ///< ModelConfig::row_tables stay on the drive
  RowStoreConfig rows{};
};

class Model {
 public:
  virtual ~Model() = default;
  const ModelConfig& config() const { return config_; }
  /// rows <= LoadOptions::max_rows. Allocates nothing after the first call with the largest batch.
  virtual void forward(Context& ctx, const Batch& batch, KvAccess& kv, Outputs& outputs) noexcept = 0;
  /// Bytes of its buffers that are in memory now.
  struct Resident {
    int64_t weights = 0, activations = 0, experts = 0, rows = 0;  ///< rows: of the stores below
  };
  virtual Resident resident() const = 0;
  /// What reads the row tables; empty if they are in memory, or there are none.
  std::span<RowStore* const> row_stores() const { return row_stores_; }

 protected:
  ModelConfig config_;
  std::vector<RowStore*> row_stores_;  // owned by the model's tables
};

/// Reads configuration and weights. Throws Error: kBadModel naming the key or tensor; kRuntime when memory or
/// the file fails.
std::unique_ptr<Model> load_model(Context& ctx, const GgufFile& file, const LoadOptions& options);

/// Only the configuration, checked; nothing is allocated. Same errors.
ModelConfig read_model_config(const GgufFile& file);

}  // namespace mete
