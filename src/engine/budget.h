// The memory of the whole process, planned before anything big is allocated (docs/memory.md).
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "format/gguf.h"
#include "kv/kv_cache.h"
#include "models/model.h"
#include "weights/expert_store.h"

namespace mete {

/// Who takes memory; one line of the plan and of the receipt each.
enum class MemoryItem {
  kWeights,      ///< dense weights in panels, vectors
  kKv,           ///< pages for the context, and their tables
  kPrefixCache,  ///< pages kept for prefixes beyond the context
  kExperts,      ///< arena of routed experts, or all of them
  kEmbeddings,   ///< row caches and read buffers of embedding tables that stay on the drive
  kActivations,  ///< activations and the kernels' scratch
  kLogits,       ///< logits rows and samplers
  kText,         ///< metadata, tokenizer, grammars, prompt text
  kStacks,
  kMalloc,  ///< what the allocator holds beyond what is in use
  kIo,      ///< read buffers and rings
  kPageTables,
  kBinary,   ///< binary and libraries
  kSockets,  ///< sockets and HTTP buffers
  kPageCache,
  kCount
};
inline constexpr size_t kMemoryItems = static_cast<size_t>(MemoryItem::kCount);
const char* name(MemoryItem item);  ///< "weights", "kv", ... as in JSON

using MemoryLines = std::array<int64_t, kMemoryItems>;  ///< bytes, by MemoryItem
int64_t total(const MemoryLines& lines);

/// Where embedding tables are that the forward needs rows of and nothing else (ModelConfig::row_tables).
enum class EmbeddingPlace {
  kAuto,  ///< in memory, unless the ceiling is better met without
  kMemory,
  kDisk
};

/// What the plan follows from beside the model.
struct MemoryDemand {
  int64_t budget = 0;    ///< bytes; 0: no ceiling
  int64_t context = 0;   ///< tokens; 0: the caller has no wish (at most the trained length)
  int64_t max_rows = 0;  ///< of a step; lowered if it must be
  int64_t max_seqs = 1;
  int64_t logits_rows = 1;      ///< of a step
  int64_t kv_tokens = 0;        ///< that KV memory holds in all; 0: max_seqs * context
  int64_t slots_per_layer = 0;  ///< experts of a layer in memory; 0: what fits
  int64_t text_bytes = 0;       ///< of prompts that are held
  int64_t prefix_slots = 0;     ///< tokens of KV beyond the context
  int64_t socket_bytes = 0;
  int threads = 1;
  ExpertStoreConfig store;  ///< for the buffers that it takes beside slots
  EmbeddingPlace embeddings = EmbeddingPlace::kAuto;
  RowStoreConfig rows;  ///< of embedding tables on the drive
  KvConfig kv;          ///< codecs, page_slots and shape; max_slots is set by the plan
};

struct MemoryPlan {
  int64_t budget = 0;  ///< 0: no ceiling
  MemoryLines lines{};
  int64_t floor = 0;  ///< the least budget with which this demand can be met
  int64_t context = 0, max_rows = 0;
  int64_t slots_per_layer = 0;        ///< experts of a layer that fit; 0: no experts
  bool rows_on_disk = false;          ///< embedding tables stay on the drive
  int64_t read_bytes = 0;             ///< of one read while weights are loaded
  int64_t attention_split_bytes = 0;  ///< for Context
  std::vector<std::string> choices;   ///< what was made smaller than asked or usual, a sentence each
  /// "memory: ceiling 112.0 MiB, floor 98.1 MiB; weights ...".
  std::string summary() const;
  std::string lines_text() const;  ///< "weights 92.1, kv 22.5, ... MiB": lines that are not 0
};

/// The KV cache of a model: its shape and windows; codecs, page_slots and sizes are still to be set.
KvConfig kv_shape(const ModelConfig& model);

/// Windows for which sliding layers have KV pages: as many kept prefixes as sequences that run.
int64_t window_sequences(int64_t max_seqs);

/// The trained context, as far as the engine can go, if `asked` is 0. Error (kUsage) beyond that limit.
Result<int64_t> choose_context(int64_t asked, const ModelConfig& model);

/// Error: kOverBudget naming the floor; kUsage for a context that cannot be, or tables that cannot stay on
/// the drive.
Result<MemoryPlan> plan_memory(const GgufFile& file, const ModelConfig& model, const MemoryDemand& demand);

/// What `--memory` asks for in bytes. "auto": what the system and the memory cgroups leave, minus a margin of
/// 1/16 and at least 64 MiB. Error(kUsage): not a size; larger than the machine's memory.
Result<int64_t> parse_memory(std::string_view text);

}  // namespace mete
