// A loaded model with everything a forward step needs: threads, kernels, tokenizer, KV memory.
#pragma once

#include <memory>
#include <string>

#include "base/process_memory.h"
#include "engine/budget.h"
#include "engine/expert_options.h"
#include "format/gguf.h"
#include "kv/kv_cache.h"
#include "models/model.h"
#include "ops/context.h"
#include "text/tokenizer.h"

namespace mete {

struct RuntimeConfig {
  std::string model_path;
  int threads = 0;         ///< one-row steps; 0: usable_cpus()
  int threads_batch = 0;   ///< steps of several rows; 0: as threads
  int64_t context = 0;     ///< longest sequence in tokens; 0: what the model was trained with
  int64_t max_rows = 512;  ///< rows of one step
  int64_t max_seqs = 1;    ///< sequences that run at once (-np)
  int64_t kv_tokens = 0;   ///< tokens that KV memory holds in all, at least `context`; 0: max_seqs * context
  KvType key_codec = KvType::kF16;
  KvType value_codec = KvType::kF16;
  int page_slots = 32;
  NumericMode mode = NumericMode::kStandard;
  void (*progress)(void* user, int64_t done, int64_t total) = nullptr;  ///< bytes, while weights are read
  void* progress_user = nullptr;
  Ledger::ClockFn ledger_clock = nullptr;  ///< tests give their own
  ExpertOptions experts;                   ///< of a mixture-of-experts model

  EmbeddingPlace embeddings = EmbeddingPlace::kAuto;
  RowStoreConfig rows;  ///< of embedding tables on the drive

  int64_t memory_bytes = 0;  ///< ceiling of the whole process; 0: none
  int64_t logits_rows = 1;   ///< whose logits are kept at once; for the plan
  int64_t text_bytes = 0;    ///< of prompts that the caller holds; for the plan
  int64_t socket_bytes = 0;  ///< for the plan
};

/// What the plan of a run with this configuration follows from; threads must be set.
MemoryDemand memory_demand(const RuntimeConfig& config, const ModelConfig& model);

/// Memory as it is now, by the plan's lines.
struct MemoryUse {
  MemoryLines lines{};
  int64_t resident = 0;    ///< of the process, with page tables
  int64_t page_cache = 0;  ///< pages of the model file that were not there before it was opened
  int64_t peak = 0;        ///< of resident, since start or reset_peak_rss()
  int64_t unnamed() const { return resident + page_cache - total(lines); }
};

class Runtime {
 public:
  /// Loads the model. Throws Error as load_model does, and kUsage for a context the model cannot have,
  /// kOverBudget for a ceiling below the floor.
  explicit Runtime(const RuntimeConfig& config);

  Context& context() { return context_; }
  Ledger& ledger() { return ledger_; }
  const Model& model() const { return *model_; }
  const ModelConfig& model_config() const { return model_->config(); }
  const Tokenizer& tokenizer() const { return *tokenizer_; }
  const GgufFile& file() const { return file_; }
  KvCache& kv() { return *kv_; }
  const KvCache& kv() const { return *kv_; }
  int64_t max_context() const { return plan_.context; }
  int64_t max_rows() const { return config_.max_rows; }
  int64_t logits_rows() const { return config_.logits_rows; }
  int64_t max_seqs() const { return config_.max_seqs; }
  int threads() const { return config_.threads; }
  int threads_batch() const { return config_.threads_batch; }
  CpuTier tier() const { return kernels_.tier; }
  /// Threads of later steps, one-row and batched alike; at most the larger number asked for at start.
  void set_threads(int threads) { config_.threads = config_.threads_batch = threads; }
  double load_seconds() const { return load_seconds_; }
  /// What reads the routed experts; null if there are none or all are in memory.
  ExpertStore* expert_store() { return expert_store_; }
  /// Error if a file that is read while running is not what it was when it was opened.
  Status check_files() const;
  /// What reads embedding tables that stay on the drive; empty if there are none.
  std::span<RowStore* const> row_stores() const { return model_->row_stores(); }

  const MemoryPlan& memory_plan() const { return plan_; }
  /// A new ceiling for the whole process, from the next step on; never changes a bit. An Error (kOverBudget)
  /// naming the floor if it is below what this runtime needs: the old one then stays.
  Status set_memory(int64_t bytes);
  /// Counts pages: not for every step. `logits_bytes`: of buffers that the caller holds.
  MemoryUse memory_use(int64_t logits_bytes) const;

  /// One step: allocates KV for the batch, runs the model, drops scratch rows. An Error value if the KV pool
  /// is full; the batch has then had no effect.
  Status step(const Batch& batch, Outputs& outputs) noexcept;

 private:
  RuntimeConfig config_;
  KernelTable kernels_;
  ThreadPool pool_;
  Ledger ledger_;
  Context context_;
  int64_t cached_before_;  // bytes of the file in the page cache before it was opened
  GgufFile file_;
  std::unique_ptr<Tokenizer> tokenizer_;
  LearnedRule expert_rule_;
  ExpertStore* expert_store_ = nullptr;  // owned by the model
  ExpertStoreStats reported_;            // to the ledger
  RowStoreStats rows_reported_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<KvCache> kv_;
  MemoryPlan plan_;
  double load_seconds_ = 0;
};

}  // namespace mete
