#include "engine/budget.h"

#include <algorithm>

#include "base/aligned.h"
#include "base/process_memory.h"
#include "base/size.h"
#include "text/tokenizer.h"

namespace mete {
namespace {

constexpr int64_t kMiB = int64_t{1} << 20;
constexpr int64_t kReadBytes = kMiB;
constexpr int64_t kLeastRead = 256 << 10;
constexpr int64_t kLeastRows = 8;         // of a step, however tight the ceiling
constexpr int64_t kComfortableRows = 64;  // below this prefill loses much
constexpr int64_t kLeastContext = 256;    // where the caller has no wish
constexpr int64_t kComfortableContext = 4096;
constexpr int64_t kStackTouched = 96 << 10;  // of a thread: measured 40 to 70 KiB
constexpr int64_t kMainStack = 256 << 10;
constexpr int64_t kMallocSlack = 2 * kMiB;
constexpr int64_t kKernelObjects =
    640 << 10;  // files, inodes, VMAs, socket buffers of the kernel: measured 0.4 MiB
constexpr int64_t kKernelPerThread =
    (16 << 10) + (256 << 10);          // stack; what a memory cgroup charges ahead per CPU
constexpr int64_t kTensorEntry = 320;  // directory entry of a tensor with its name and index
constexpr int64_t kPage = 4096;

int64_t& line(MemoryLines& lines, MemoryItem item) { return lines[static_cast<size_t>(item)]; }

int64_t to_pages(int64_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }

/// Metadata and directory of the file as the reader holds them.
int64_t metadata_bytes(const GgufFile& file) {
  int64_t bytes = static_cast<int64_t>(file.tensors().size()) * kTensorEntry + 64 * 1024;
  for (const auto& [key, value] : file.metadata().all()) {
    bytes += static_cast<int64_t>(sizeof(GgufValue) + key.size() + value.bytes.size() + 96);
    for (const std::string_view text : value.strings) {
      bytes += static_cast<int64_t>(text.size() + sizeof(std::string_view));
    }
  }
  return bytes;
}

class Planner {
 public:
  Planner(const GgufFile& file, const ModelConfig& model, const MemoryDemand& demand)
      : model_(model), demand_(demand) {
    text_ = metadata_bytes(file) + tokenizer_bytes(file.metadata()) + demand.text_bytes;
    binary_ = mapped_file_bytes() + kMiB / 2;  // the second: relocated and zero-filled data
    header_ = std::min<int64_t>(static_cast<int64_t>(file.file_bytes()), 256 << 10);
    const ExpertDeclaration& experts = model.experts;
    layers_ = static_cast<int64_t>(experts.layers.size());
    if (layers_ > 0) {
      slot_ = expert_slot_bytes(experts);
      store_ = expert_store_fixed_bytes(experts, demand.store);
    }
    for (const RowTableDeclaration& table : model.row_tables) tables_ += table.bytes;
  }

  Result<MemoryPlan> run();

 private:
  MemoryLines lines(const MemoryPlan& plan) const;
  void fill(MemoryPlan& plan) const { plan.lines = lines(plan); }
  int64_t need(const MemoryPlan& plan) const { return total(lines(plan)); }
  bool fits(const MemoryPlan& plan) const { return need(plan) <= plan.budget; }
  int64_t slots(int64_t per_layer) const { return per_layer * layers_ * slot_; }
  int64_t least_slots() const;
  int64_t row_stores(const MemoryPlan& plan) const;
  bool may_go_to_disk(const MemoryPlan& plan) const;
  void shrink(MemoryPlan& plan) const;
  void shrink_comfortably(MemoryPlan& plan) const;
  void shrink_context(MemoryPlan& plan, int64_t least) const;
  void shrink_rows(MemoryPlan& plan, int64_t least) const;
  void grow_experts(MemoryPlan& plan) const;
  void say_tables(MemoryPlan& plan) const;

  const ModelConfig& model_;
  const MemoryDemand& demand_;
  int64_t text_ = 0, binary_ = 0, header_ = 0;
  int64_t tables_ = 0;  // bytes of row tables in memory
  int64_t layers_ = 0, slot_ = 0,
          store_ = 0;  // layers with experts, bytes of a slot and of the store beside them
};

MemoryLines Planner::lines(const MemoryPlan& plan) const {
  MemoryLines out{};
  const int64_t threads = demand_.threads;
  line(out, MemoryItem::kWeights) =
      to_pages(model_.weight_bytes - model_.expert_bytes - (plan.rows_on_disk ? tables_ : 0));
  line(out, MemoryItem::kEmbeddings) = plan.rows_on_disk ? to_pages(row_stores(plan)) : 0;
  KvConfig kv = demand_.kv;
  const auto kv_bytes = [&](int64_t slots) {
    kv.max_slots = slots;
    kv.sequence_slots = plan.context;
    kv.window_sequences = window_sequences(demand_.max_seqs);
    kv.step_rows = plan.max_rows;
    return static_cast<int64_t>(kv_cache_bytes(kv) + kv_table_bytes(kv, demand_.max_seqs));
  };
  const int64_t slots_of_context =
      demand_.kv_tokens > 0 ? demand_.kv_tokens : plan.context * demand_.max_seqs;
  line(out, MemoryItem::kKv) = kv_bytes(slots_of_context);
  if (demand_.prefix_slots > 0) {
    line(out, MemoryItem::kPrefixCache) =
        kv_bytes(slots_of_context + demand_.prefix_slots) - line(out, MemoryItem::kKv);
  }
  line(out, MemoryItem::kExperts) = slots(plan.slots_per_layer);
  line(out, MemoryItem::kActivations) =
      to_pages(model_.row_bytes * plan.max_rows + model_.rowless_bytes) + threads * model_.worker_bytes +
      attend_scratch_bytes(
          {kv_layout(kv), model_.heads, demand_.kv.kv_heads, plan.max_rows, plan.context, demand_.threads},
          plan.attention_split_bytes);
  // A sampler: candidates of 16 bytes, two counters per token; its history.
  line(out, MemoryItem::kLogits) =
      demand_.logits_rows * model_.vocab * 4 + demand_.max_seqs * (model_.vocab * 24 + plan.context * 24);
  line(out, MemoryItem::kText) = text_;
  line(out, MemoryItem::kStacks) = kMainStack + threads * kStackTouched;
  line(out, MemoryItem::kMalloc) = kMallocSlack;
  line(out, MemoryItem::kBinary) = binary_;
  line(out, MemoryItem::kSockets) = demand_.socket_bytes;
  // While weights are read, a read buffer and as much page cache per thread; what comes after them is still
  // untouched.
  const int64_t later = line(out, MemoryItem::kKv) + line(out, MemoryItem::kActivations) +
                        line(out, MemoryItem::kLogits) + line(out, MemoryItem::kExperts);
  const int64_t loading = threads * 2 * std::max(plan.read_bytes, model_.unit_bytes);
  line(out, MemoryItem::kIo) = std::max<int64_t>(0, loading - later) + store_;
  line(out, MemoryItem::kPageCache) = header_;
  line(out, MemoryItem::kPageTables) = kKernelObjects + threads * kKernelPerThread;
  line(out, MemoryItem::kPageTables) += total(out) / 500;  // 8 bytes per page of 4096
  return out;
}

int64_t Planner::row_stores(const MemoryPlan& plan) const {
  int64_t bytes = 0;
  for (const RowTableDeclaration& table : model_.row_tables) {
    bytes += row_store_bytes(*table.tensor, demand_.rows, plan.max_rows);
  }
  return bytes;
}

/// Whether it is ours to choose that row tables stay on the drive, and that frees memory.
bool Planner::may_go_to_disk(const MemoryPlan& plan) const {
  return demand_.embeddings == EmbeddingPlace::kAuto && !plan.rows_on_disk && row_stores(plan) < tables_;
}

int64_t Planner::least_slots() const {
  if (layers_ == 0) return 0;
  return demand_.slots_per_layer > 0 ? demand_.slots_per_layer : 1;
}

void Planner::shrink_context(MemoryPlan& plan, int64_t least) const {
  if (demand_.context > 0) return;
  while (plan.context > least && !fits(plan)) {
    plan.context = std::max(least, (plan.context - 1) / kLeastContext * kLeastContext);
  }
}

void Planner::shrink_rows(MemoryPlan& plan, int64_t least) const {
  while (plan.max_rows > least && !fits(plan)) plan.max_rows = std::max(least, plan.max_rows / 2);
}

void Planner::shrink_comfortably(MemoryPlan& plan) const {
  shrink_context(plan, std::min(plan.context, kComfortableContext));
  shrink_rows(plan, std::min(plan.max_rows, kComfortableRows));
}

/// In this order, each as far as need be: the context, if none was asked for, down to 4096; rows of a step to
/// 64; instead of these, if they do not suffice, row tables stay on the drive, and then these; the context to
/// 256; rows to 8; the read buffers.
void Planner::shrink(MemoryPlan& plan) const {
  const MemoryPlan before = plan;
  shrink_comfortably(plan);
  if (!fits(plan) && may_go_to_disk(plan)) {
    plan = before;
    plan.rows_on_disk = true;
    shrink_comfortably(plan);
  }
  shrink_context(plan, std::min(plan.context, kLeastContext));
  shrink_rows(plan, std::min(plan.max_rows, kLeastRows));
  while (plan.read_bytes > kLeastRead && !fits(plan)) plan.read_bytes /= 2;
}

/// The arena takes what is left; but first, rows of a step shrink until they take no more than a fifth as
/// much as it, a context that nobody asked for until it takes no more than half as much, and row tables that
/// take more than a fifth as much stay on the drive.
void Planner::grow_experts(MemoryPlan& plan) const {
  const auto widest = [&] {
    const auto with_tables = [](int64_t bytes) { return bytes + bytes / 500; };  // page tables as in lines()
    const int64_t layer = with_tables(slots(1)) + 1;
    const int64_t left = plan.budget - need(plan) + with_tables(slots(plan.slots_per_layer));
    return std::clamp(left / layer, plan.slots_per_layer, model_.experts.experts);
  };
  const auto starved = [&](int64_t taken, int64_t parts) {
    const int64_t per_layer = widest();
    return per_layer < model_.experts.experts && taken * parts > slots(per_layer);
  };
  while (demand_.context == 0 && plan.context > kLeastContext &&
         starved(line(plan.lines, MemoryItem::kKv), 2)) {
    plan.context = std::max(kLeastContext, plan.context / 2);
    fill(plan);
  }
  if (may_go_to_disk(plan) && starved(tables_, 5)) {
    plan.rows_on_disk = true;
    fill(plan);
  }
  while (plan.max_rows > kComfortableRows && starved(line(plan.lines, MemoryItem::kActivations), 5)) {
    plan.max_rows = std::max(kComfortableRows, plan.max_rows / 2);
    fill(plan);
  }
  if (demand_.slots_per_layer == 0) plan.slots_per_layer = widest();
  fill(plan);
}

void Planner::say_tables(MemoryPlan& plan) const {
  if (!plan.rows_on_disk) return;
  for (const RowTableDeclaration& table : model_.row_tables) {
    plan.choices.push_back(fmt::format("{} ({}) stays on the drive, rows are read when they are needed",
                                       table.tensor->name, size_text(table.bytes)));
  }
}

Result<MemoryPlan> Planner::run() {
  MemoryPlan plan;
  const auto context = choose_context(demand_.context, model_);
  if (!context) return context.error();
  plan.budget = demand_.budget;
  plan.context = *context;
  plan.max_rows = demand_.max_rows;
  plan.read_bytes = kReadBytes;
  plan.attention_split_bytes = int64_t{64} << 20;
  plan.rows_on_disk = demand_.embeddings == EmbeddingPlace::kDisk;
  if (plan.rows_on_disk && tables_ == 0) {
    return bad_usage(
        "--embeddings disk: the model has no table that could stay on the drive (its output matrix is its "
        "embedding table)");
  }
  plan.slots_per_layer = layers_ == 0                  ? 0
                         : demand_.slots_per_layer > 0 ? demand_.slots_per_layer
                                                       : model_.experts.experts;
  if (demand_.budget == 0) {
    fill(plan);
    plan.floor = 0;
    say_tables(plan);
    return plan;
  }
  plan.attention_split_bytes = std::clamp(demand_.budget / 64, kMiB, int64_t{64} << 20);
  MemoryPlan least = plan;
  least.slots_per_layer = least_slots();
  if (demand_.context == 0) least.context = std::min(plan.context, kLeastContext);
  least.max_rows = std::min(plan.max_rows, kLeastRows);
  least.read_bytes = kLeastRead;
  least.attention_split_bytes = kMiB;
  least.rows_on_disk = plan.rows_on_disk || may_go_to_disk(least);
  plan.floor = need(least);
  if (plan.floor > plan.budget) {
    fill(least);
    return Error(
        Code::kOverBudget,
        fmt::format("--memory {}: below the floor of {} for this model with a context of {} tokens ({})",
                    size_text(plan.budget), size_text(plan.floor), least.context, least.lines_text()));
  }
  plan.slots_per_layer = least.slots_per_layer;
  fill(plan);
  shrink(plan);
  fill(plan);
  if (layers_ > 0) grow_experts(plan);
  say_tables(plan);
  if (plan.context < *context) {
    plan.choices.push_back(
        fmt::format("context {} instead of {} tokens (-c asks for more)", plan.context, *context));
  }
  if (plan.max_rows < demand_.max_rows) {
    plan.choices.push_back(fmt::format("steps of {} instead of {} rows", plan.max_rows, demand_.max_rows));
  }
  if (plan.read_bytes < kReadBytes) {
    plan.choices.push_back(
        fmt::format("reads of {} instead of {} KiB while loading", plan.read_bytes >> 10, kReadBytes >> 10));
  }
  return plan;
}

}  // namespace

KvConfig kv_shape(const ModelConfig& model) {
  KvConfig kv;
  kv.kv_layers = model.kv_layers;
  kv.kv_heads = model.kv_heads;
  kv.head_dim = model.head_dim;
  kv.value_dim = model.value_dim;
  kv.value_in_key = model.value_in_key;
  kv.windows.assign(model.windows.begin(), model.windows.begin() + model.kv_layers);
  return kv;
}

int64_t window_sequences(int64_t max_seqs) { return 2 * max_seqs; }

const char* name(MemoryItem item) {
  constexpr const char* kNames[] = {"weights",     "kv",          "prefix_cache", "experts", "embeddings",
                                    "activations", "logits",      "text",         "stacks",  "malloc",
                                    "io",          "page_tables", "binary",       "sockets", "page_cache"};
  static_assert(std::size(kNames) == kMemoryItems);
  return kNames[static_cast<size_t>(item)];
}

int64_t total(const MemoryLines& lines) {
  int64_t sum = 0;
  for (const int64_t bytes : lines) sum += bytes;
  return sum;
}

std::string MemoryPlan::lines_text() const {
  std::string text;
  for (size_t i = 0; i < kMemoryItems; ++i) {
    if (lines[i] == 0) continue;
    text += fmt::format("{}{} {:.1f}", text.empty() ? "" : ", ", name(static_cast<MemoryItem>(i)),
                        static_cast<double>(lines[i]) / 0x1p20);
  }
  return text + " MiB";
}

std::string MemoryPlan::summary() const {
  std::string text = fmt::format("memory: ceiling {}, floor {}, planned {} ({})", size_text(budget),
                                 size_text(floor), size_text(total(lines)), lines_text());
  text += fmt::format("; context {}, steps of up to {} rows", context, max_rows);
  return text;
}

Result<int64_t> choose_context(int64_t asked, const ModelConfig& model) {
  constexpr int64_t kLimit = int64_t{1} << 20;
  if (asked > kLimit) return bad_usage("context {}: at most {} tokens", asked, kLimit);
  return asked > 0 ? asked : std::min(model.context_train, kLimit);
}

Result<MemoryPlan> plan_memory(const GgufFile& file, const ModelConfig& model, const MemoryDemand& demand) {
  return Planner(file, model, demand).run();
}

Result<int64_t> parse_memory(std::string_view text) {
  if (text == "auto") {
    const auto available = static_cast<int64_t>(memory_available());
    if (available == 0)
      return bad_usage("--memory auto: the system does not say what is available; give a size");
    return std::max<int64_t>(kMiB, available - std::max(available / 16, 64 * kMiB));
  }
  const Result<int64_t> bytes = parse_size(text);
  if (!bytes) return bad_usage("--memory: {}, or auto", bytes.error().message());
  const auto machine = static_cast<int64_t>(memory_total());
  if (machine > 0 && *bytes > machine) {
    return bad_usage("--memory {}: larger than this machine's memory of {}", size_text(*bytes),
                     size_text(machine));
  }
  return bytes;
}

}  // namespace mete
