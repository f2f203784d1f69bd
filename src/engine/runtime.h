// A loaded model with everything a forward step needs: threads, kernels, tokenizer, KV memory.
#pragma once

#include <memory>
#include <string>

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
};

class Runtime {
 public:
  /// Loads the model. Throws Error as load_model does, and kUsage for a context the model cannot have.
  explicit Runtime(const RuntimeConfig& config);

  Context& context() { return context_; }
  Ledger& ledger() { return ledger_; }
  const Model& model() const { return *model_; }
  const ModelConfig& model_config() const { return model_->config(); }
  const Tokenizer& tokenizer() const { return *tokenizer_; }
  const GgufFile& file() const { return file_; }
  KvCache& kv() { return *kv_; }
  const KvCache& kv() const { return *kv_; }
  int64_t max_context() const { return max_context_; }
  int64_t max_rows() const { return config_.max_rows; }
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
  Status check_files() const { return expert_store_ == nullptr ? Status() : expert_store_->check_files(); }

  /// One step: allocates KV for the batch, runs the model, drops scratch rows. An Error value if the KV pool
  /// is full; the batch has then had no effect.
  Status step(const Batch& batch, Outputs& outputs) noexcept;

 private:
  RuntimeConfig config_;
  KernelTable kernels_;
  ThreadPool pool_;
  Ledger ledger_;
  Context context_;
  GgufFile file_;
  std::unique_ptr<Tokenizer> tokenizer_;
  LearnedRule expert_rule_;
  ExpertStore* expert_store_ = nullptr;  // owned by the model
  ExpertStoreStats reported_;            // to the ledger
  std::unique_ptr<Model> model_;
  std::unique_ptr<KvCache> kv_;
  int64_t max_context_ = 0;
  double load_seconds_ = 0;
};

/// Peak resident set of this process in bytes (VmHWM).
int64_t peak_rss_bytes();

/// Starts peak_rss_bytes() anew from what is resident now; false if the system does not allow it.
bool reset_peak_rss();

}  // namespace mete
