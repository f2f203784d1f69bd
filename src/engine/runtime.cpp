#include "engine/runtime.h"

#include <algorithm>
#include <future>

#include "base/clock.h"
#include "base/size.h"
#include "format/hub_cache.h"

namespace mete {
namespace {

RuntimeConfig with_defaults(RuntimeConfig config) {
  if (config.threads == 0) config.threads = usable_cpus();
  if (config.threads_batch == 0) config.threads_batch = config.threads;
  return config;
}

std::string model_path(const RuntimeConfig& config) { return resolve_model_path(config.model_path).value(); }

KvConfig kv_config(const RuntimeConfig& config, const ModelConfig& model) {
  KvConfig kv = kv_shape(model);
  kv.key_codec = config.key_codec;
  kv.value_codec = config.value_codec;
  kv.page_slots = config.page_slots;
  return kv;
}

/// Tells the ledger what the stores did since `before`, which becomes what they have done by now.
void report_rows(std::span<RowStore* const> stores, RowStoreStats* before, Ledger& ledger) {
  if (stores.empty()) return;
  RowStoreStats now;
  for (const RowStore* store : stores) now += store->stats();
  ledger.add(Counter::kEmbedHits, now.hits - before->hits);
  ledger.add(Counter::kEmbedMisses, now.misses - before->misses);
  ledger.add(Counter::kEmbedDiskBytes, now.disk_bytes - before->disk_bytes);
  ledger.add(Counter::kEmbedDiskReads, now.reads - before->reads);
  *before = now;
}

}  // namespace

MemoryDemand memory_demand(const RuntimeConfig& config, const ModelConfig& model) {
  MemoryDemand demand;
  demand.budget = config.memory_bytes;
  demand.context = config.context;
  demand.max_rows = config.max_rows;
  demand.max_seqs = config.max_seqs;
  demand.kv_tokens = config.kv_tokens;
  demand.logits_rows = std::max(config.logits_rows, config.max_seqs);
  demand.text_bytes = config.text_bytes;
  demand.socket_bytes = config.socket_bytes;
  demand.threads = std::max(config.threads, config.threads_batch);
  demand.kv = kv_config(config, model);
  demand.slots_per_layer = config.experts.slots_per_layer;
  demand.embeddings = config.embeddings;
  demand.rows = config.rows;
  if (!model.experts.layers.empty()) {
    ExpertOptions options = config.experts;
    options.policy = ReplaceKind::kLru;  // the buffers beside the slots do not depend on it
    demand.store = expert_store_config(options, model.experts, nullptr);
  }
  return demand;
}

Runtime::Runtime(const RuntimeConfig& config)
    : config_(with_defaults(config)),
      kernels_(make_kernel_table(choose_cpu_tier())),
      pool_(std::max(config_.threads, config_.threads_batch)),
      ledger_(config_.ledger_clock),
      context_{pool_, kernels_, config_.mode},
      cached_before_(file_cache_bytes(model_path(config_))),
      file_(GgufFile::open(model_path(config_)).value()) {
  context_.ledger = &ledger_;
  const double start = now_seconds();
  const ModelConfig model = read_model_config(file_);
  if (config_.experts.slots_per_layer > 0 && model.experts.layers.empty()) {
    throw bad_usage("--expert-slots has no effect: {} has no routed experts", config_.model_path);
  }
  plan_ = plan_memory(file_, model, memory_demand(config_, model)).value();
  config_.max_rows = plan_.max_rows;
  context_.attention_split_bytes = static_cast<size_t>(plan_.attention_split_bytes);
  for (size_t i = 1; i < file_.paths().size(); ++i) cached_before_ += file_cache_bytes(file_.paths()[i]);
  if (plan_.budget > 0) {
    if (!file_.spare_cache()) plan_.choices.push_back("the file system refuses reads past the page cache");
    if (plan_.slots_per_layer < model.experts.experts)
      config_.experts.slots_per_layer = plan_.slots_per_layer;
  }
  // Building the vocabulary takes as long as streaming a small model's weights: side by side.
  std::future<Result<std::unique_ptr<Tokenizer>>> tokenizer =
      std::async(std::launch::async, [this] { return Tokenizer::create(file_.metadata()); });
  LoadOptions load;
  load.context = plan_.context;
  load.read_bytes = plan_.read_bytes;
  load.max_rows = config_.max_rows;
  load.progress = config_.progress;
  load.progress_user = config_.progress_user;
  load.rows_on_disk = plan_.rows_on_disk;
  load.rows = config_.rows;
  if (config_.experts.streamed()) {
    load.make_experts = make_expert_store(config_.experts, &expert_rule_, &expert_store_);
  }
  model_ = load_model(context_, file_, load);
  tokenizer_ = tokenizer.get().value();

  KvConfig kv = kv_config(config_, model);
  kv.max_slots = config_.kv_tokens > 0 ? config_.kv_tokens : plan_.context * config_.max_seqs;
  kv.sequence_slots = plan_.context;
  kv.window_sequences = window_sequences(config_.max_seqs);
  kv.step_rows = config_.max_rows;
  if (kv.max_slots < plan_.context) {
    throw bad_usage("KV memory of {} tokens (--kv-tokens): expected at least the context, {} (-c)",
                    kv.max_slots, plan_.context);
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
  report_rows(row_stores(), &rows_reported_, ledger_);
  ledger_.add(Counter::kSteps, 1);
  ledger_.add(Counter::kRows, static_cast<int64_t>(batch.rows.size()));
  ledger_.enter(before);
  return std::move(outputs.status);
}

Status Runtime::check_files() const {
  if (expert_store_ != nullptr) {
    if (Status unchanged = expert_store_->check_files(); !unchanged) return unchanged;
  }
  for (const RowStore* store : row_stores()) {
    if (Status unchanged = store->check_files(); !unchanged) return unchanged;
  }
  return {};
}

Status Runtime::set_memory(int64_t bytes) {
  MemoryLines lines = plan_.lines;
  int64_t& experts = lines[static_cast<size_t>(MemoryItem::kExperts)];
  int64_t least = 0, slot = 0;  // of the arena
  if (expert_store_ != nullptr) {
    const ExpertDeclaration& declaration = model_config().experts;
    slot = expert_slot_bytes(declaration) * static_cast<int64_t>(declaration.layers.size());
    least = slot;
  }
  const int64_t floor = total(lines) - experts + (slot > 0 ? least : experts);
  if (bytes < floor) {
    return Error(Code::kOverBudget, fmt::format("{} is below the floor of {} of what is loaded ({})",
                                                size_text(bytes), size_text(floor), plan_.lines_text()));
  }
  if (slot > 0) {
    const int64_t most = model_config().experts.experts;
    const int64_t slots = std::clamp<int64_t>((bytes - (total(lines) - experts)) / slot, 1, most);
    const auto layers = static_cast<int64_t>(model_config().experts.layers.size());
    if (Status resized = expert_store_->resize(slots * layers); !resized) return resized;
    plan_.slots_per_layer = slots;
    experts = slots * slot;
    plan_.lines = lines;
  }
  plan_.budget = bytes;
  plan_.floor = floor;
  return {};
}

MemoryUse Runtime::memory_use(int64_t logits_bytes) const {
  MemoryUse use;
  const auto set = [&use](MemoryItem item, int64_t bytes) { use.lines[static_cast<size_t>(item)] = bytes; };
  const ProcessMemory process = read_process_memory();
  const HeapMemory heap = read_heap_memory();
  const Model::Resident model = model_->resident();
  use.resident = process.rss + process.page_tables;
  use.peak = process.peak_rss + process.page_tables;
  for (const std::string& path : file_.paths())
    use.page_cache += std::max<int64_t>(0, file_cache_bytes(path));
  use.page_cache = std::max<int64_t>(0, use.page_cache - cached_before_);
  set(MemoryItem::kWeights, model.weights);
  set(MemoryItem::kKv, kv_->resident());
  set(MemoryItem::kExperts, model.experts);
  set(MemoryItem::kEmbeddings, model.rows);
  set(MemoryItem::kActivations, model.activations + context_.activations.resident() +
                                    context_.workers.resident() + context_.attention.resident() +
                                    context_.gathered.resident());
  set(MemoryItem::kLogits, logits_bytes);
  set(MemoryItem::kText, heap.used);
  set(MemoryItem::kMalloc, heap.free);
  set(MemoryItem::kStacks, plan_.lines[static_cast<size_t>(MemoryItem::kStacks)]);
  set(MemoryItem::kIo, expert_store_ != nullptr ? expert_store_->buffers_resident() : 0);
  set(MemoryItem::kPageTables, process.page_tables);
  set(MemoryItem::kBinary, process.file);
  set(MemoryItem::kPageCache, use.page_cache);
  return use;
}

}  // namespace mete
