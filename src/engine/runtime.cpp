#include "engine/runtime.h"

#include <algorithm>
#include <fstream>
#include <future>

#include "base/clock.h"
#include "format/hub_cache.h"

namespace mete {
namespace {

RuntimeConfig with_defaults(RuntimeConfig config) {
  if (config.threads == 0) config.threads = usable_cpus();
  if (config.threads_batch == 0) config.threads_batch = config.threads;
  return config;
}

/// The context to run with: the asked one, or the trained one. Longer than trained is allowed (the position
/// limit is 2^20), since RoPE scaling may serve it.
int64_t choose_context(int64_t asked, const ModelConfig& model) {
  constexpr int64_t kLimit = int64_t{1} << 20;
  if (asked > kLimit) throw bad_usage("context {}: at most {} tokens", asked, kLimit);
  return asked > 0 ? asked : std::min(model.context_train, kLimit);
}

}  // namespace

Runtime::Runtime(const RuntimeConfig& config)
    : config_(with_defaults(config)),
      kernels_(make_kernel_table(choose_cpu_tier())),
      pool_(std::max(config_.threads, config_.threads_batch)),
      ledger_(config_.ledger_clock),
      context_{pool_, kernels_, config_.mode},
      file_(GgufFile::open(resolve_model_path(config_.model_path).value()).value()) {
  context_.ledger = &ledger_;
  const double start = now_seconds();
  const ModelConfig model = read_model_config(file_);
  if (config_.experts.slots_per_layer > 0 && model.experts.layers.empty()) {
    throw bad_usage("--expert-slots has no effect: {} has no routed experts", config_.model_path);
  }
  max_context_ = choose_context(config_.context, model);
  // Building the vocabulary takes as long as streaming a small model's weights: side by side.
  std::future<Result<std::unique_ptr<Tokenizer>>> tokenizer =
      std::async(std::launch::async, [this] { return Tokenizer::create(file_.metadata()); });
  LoadOptions load;
  load.context = max_context_;
  load.max_rows = config_.max_rows;
  load.progress = config_.progress;
  load.progress_user = config_.progress_user;
  if (config_.experts.streamed()) {
    load.make_experts = make_expert_store(config_.experts, &expert_rule_, &expert_store_);
  }
  model_ = load_model(context_, file_, load);
  tokenizer_ = tokenizer.get().value();

  KvConfig kv;
  kv.kv_layers = model.kv_layers;
  kv.kv_heads = model.kv_heads;
  kv.head_dim = model.head_dim;
  kv.value_dim = model.value_dim;
  kv.value_in_key = model.value_in_key;
  kv.windows = model.windows;
  kv.key_codec = config_.key_codec;
  kv.value_codec = config_.value_codec;
  kv.page_slots = config_.page_slots;
  kv.max_slots = config_.kv_tokens > 0 ? config_.kv_tokens : max_context_ * config_.max_seqs;
  kv.sequence_slots = max_context_;
  if (kv.max_slots < max_context_) {
    throw bad_usage("KV memory of {} tokens (--kv-tokens): expected at least the context, {} (-c)",
                    kv.max_slots, max_context_);
  }
  kv_ = std::make_unique<KvCache>(kv);
  load_seconds_ = now_seconds() - start;
}

Status Runtime::step(const Batch& batch, Outputs& outputs) noexcept {
  const Part before = ledger_.current();
  ledger_.enter(Part::kSchedule);
  if (Status begun = kv_->begin_step(batch); !begun) {
    ledger_.enter(before);
    return begun;
  }
  pool_.set_active(batch.rows.size() == 1 ? config_.threads : config_.threads_batch);
  model_->forward(context_, batch, kv_->access(), outputs);
  ledger_.enter(Part::kSchedule);
  kv_->end_step();
  if (expert_store_ != nullptr) report_experts(*expert_store_, &reported_, ledger_);
  ledger_.add(Counter::kSteps, 1);
  ledger_.add(Counter::kRows, static_cast<int64_t>(batch.rows.size()));
  ledger_.enter(before);
  return std::move(outputs.status);
}

int64_t peak_rss_bytes() {
  std::ifstream file("/proc/self/status");
  std::string key;
  while (file >> key) {
    if (key == "VmHWM:") {
      int64_t kib = 0;
      file >> kib;
      return kib * 1024;
    }
    file.ignore(1 << 20, '\n');
  }
  return 0;
}

bool reset_peak_rss() {
  std::ofstream file("/proc/self/clear_refs");
  file << 5 << std::flush;
  return file.good();
}

}  // namespace mete
