// The KV cache: sequences of slots on pages, one page list per (sequence, layer, KV head). Layers with a
// sliding window give back the pages that no later row can see.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "kv/page_pool.h"
#include "ops/attend.h"
#include "ops/kv_store.h"
#include "request/batch.h"
#include "request/kv_access.h"

namespace mete {

/// Names a block of KvCache.
using BlockId = int32_t;

struct KvConfig {
  int64_t kv_layers = 0, kv_heads = 0, head_dim = 0;
  KvType key_codec = KvType::kF16, value_codec = KvType::kF16;
  int64_t page_slots = 32;    ///< 16 or 32
  int64_t max_slots = 0;      ///< capacity, tokens of all sequences together
  bool poison = false;        ///< fill free pages with NaN (tests)
  int64_t value_dim = 0;      ///< 0: head_dim
  bool value_in_key = false;  ///< as KvLayout::value_in_key
  /// Per layer: sliding window in tokens, 0: all is attended to; empty: no layer slides. What no later row
  /// can see is freed.
  std::vector<int32_t> windows{};
  int64_t sequence_slots = 0;  ///< tokens up to which a sequence grows without allocating; 0: max_slots
  /// Sliding layers get pages for the windows of so many sequences and the rows of a step, if that is less
  /// than max_slots; 0: pages for max_slots, as the others.
  int64_t window_sequences = 0, step_rows = 0;
};

/// "f16", "bf16", "q8_0".
std::optional<KvType> parse_kv_codec(std::string_view text);
const char* kv_codec_name(KvType type);

/// Bytes that a cache of this configuration takes when it is full.
size_t kv_cache_bytes(const KvConfig& config);
/// Bytes of its tables with so many sequences that are each as long as the cache can hold, and of a prefix
/// cache's.
size_t kv_table_bytes(const KvConfig& config, int64_t sequences);
KvLayout kv_layout(const KvConfig& config);

/// One step: begin_step, then KvAccess calls for every layer, then end_step. A slot is a token's place in its
/// sequence, 0 .. length - 1; every layer and head uses the same slot numbers, but a list may have dropped
/// slots of its own. All calls come from one thread.
class KvCache {
 public:
  /// Throws Error: kUsage if the configuration cannot be, kRuntime if memory cannot be had.
  explicit KvCache(const KvConfig& config);
  ~KvCache();
  KvCache(const KvCache&) = delete;
  KvCache& operator=(const KvCache&) = delete;

  SeqId create();
  void release(SeqId seq);
  /// A new sequence with the same contents. Pages are shared until either writes to them.
  SeqId fork(SeqId seq);

  /// Gives every row its slot and allocates pages. Errors (nothing has changed then): rows or mask that make
  /// no sense; a row that sees two keys with one position; too few free pages, naming slots needed and free.
  /// What sliding layers held for taking back the step before is freed first.
  Status begin_step(const Batch& batch);
  /// Reads and writes for the rows of the open step.
  KvAccess& access();
  /// Drops the rows written as kScratch, and frees pages of sliding layers that a row at the step's first
  /// appended position does not see, nor one a little before it.
  void end_step();

  int64_t length(SeqId seq) const;
  /// Drops the slots from `length` on. An Error if sliding layers have freed what the next row would see.
  Status truncate(SeqId seq, int64_t length);
  /// The longest length up to `length` that truncate accepts: `length`, or 0.
  int64_t reusable(SeqId seq, int64_t length) const;
  /// Keeps, of the slots that the last step appended, only these (absolute numbers, ascending): they move
  /// down to follow each other. Before end_step, kScratch slots may be kept too.
  Status compact(SeqId seq, std::span<const int32_t> kept_slots);
  /// Makes these slots invisible to one layer's KV head; pages without visible slots are freed.
  Status drop(SeqId seq, int64_t layer, int64_t kv_head, std::span<const int32_t> slots);

  /// Nothing that is written will be taken back: frees pages of sliding layers that the next row does not
  /// see, nor one a little before it.
  void settle(SeqId seq);
  /// Pages that a settled sequence of so many tokens holds at most.
  int64_t sequence_pages(int64_t tokens) const;

  // Blocks: the pages of all lists at one page index, kept beyond their sequence and shared read-only. A
  // sequence that writes to a shared page gets a copy first. A block may lose its pages of sliding layers: it
  // is then good for sequences that go on more than a window behind it.

  /// Holds the pages at index `page`, of which the sequence has written at least one slot. -1 if a list has
  /// dropped slots there or freed its page.
  BlockId share(SeqId seq, int64_t page);
  /// Begins an empty sequence with the first `length` slots of `blocks`, positions 0 .. length - 1. The
  /// blocks that a row at `length` sees through a window must be whole.
  void attach(SeqId seq, std::span<const BlockId> blocks, int64_t length);
  /// Replaces the sequence's pages at index `page` by the block's, which hold the same.
  void adopt(SeqId seq, int64_t page, BlockId block);
  void drop_block(BlockId block);
  bool whole(BlockId block) const;  ///< it has its pages of sliding layers
  void thin(BlockId block);         ///< gives up its pages of sliding layers
  void complete(BlockId block,
                BlockId from);  ///< takes over pages that it lacks from one that holds the same
  int64_t thin_blocks() const { return thin_blocks_; }
  int64_t max_blocks() const { return (config_.max_slots + config_.page_slots - 1) / config_.page_slots; }
  int64_t full_lists() const { return lists() - sliding_lists_; }  ///< lists of layers that do not slide
  int64_t widest_window() const { return widest_window_; }         ///< tokens; 0: no layer slides
  bool block_left() const;                                         ///< fewer than max_blocks() are held
  /// Blocks that end a prefix, with those above it, through which a row at its end or a little before sees.
  int64_t window_blocks() const;
  size_t block_bytes() const { return static_cast<size_t>(lists()) * layout_.page_bytes(); }
  /// Copies the block's pages, in order of the lists, to `out` of block_bytes(); zeros for those it lacks.
  void read_block(BlockId block, std::span<uint8_t> out) const;
  /// A new block from what read_block gave, `whole` or without the pages of sliding layers; -1 if the pool
  /// has no room.
  BlockId write_block(std::span<const uint8_t> bytes, bool whole = true);

  const KvConfig& config() const { return config_; }
  const KvLayout& layout() const { return layout_; }
  size_t bytes() const;                                  ///< of pages in use
  size_t peak_bytes() const;                             ///< of pages in use at once, at most so far
  size_t capacity_bytes() const;                         ///< of all pages
  int64_t resident() const { return pool_.resident(); }  ///< bytes of pages that are in memory now
  int64_t free_slots() const;                            ///< tokens that whole free pages could hold
  int64_t lists() const { return config_.kv_layers * config_.kv_heads; }  ///< page lists of a sequence
  int64_t total_pages() const { return pool_.pages(); }
  int64_t free_pages() const { return pool_.free_pages(); }
  /// Pages that a step takes which appends `rows` rows to the sequence.
  int64_t append_pages(SeqId seq, int64_t rows) const;

 private:
  struct PageList {
    std::vector<uint8_t*> pages;       // null: no visible slot
    std::vector<uint32_t> valid;       // bit masks per page; empty: all valid
    int64_t dropped_from = INT64_MAX;  // lowest dropped slot
    int64_t hidden = 0;                // leading pages that a sliding layer has freed
  };
  struct Sequence {
    bool live = false;
    int64_t length = 0;              // committed slots
    int64_t step_begin = 0;          // length before the last step
    std::vector<int32_t> positions;  // per slot, rows of an open step included
    int64_t dense = 0;               // leading slots with position == slot
    int64_t hidden_slots = 0;        // leading slots that some list has freed as hidden
    int64_t lowest = 0;              // rows below this position would see them
    std::vector<PageList> lists;     // [layer * kv_heads + head]
  };
  struct StepSequence {
    SeqId seq;
    int64_t appended = 0, scratch = 0;
    int64_t tail_begin = 0;                   // lowest new slot
    int64_t slots = 0;                        // with the new ones
    int64_t first_position = 0;               // lowest of an appended row
    int64_t lowest_position = 0;              // of any row
    std::vector<int32_t> rows;                // batch indices
    std::vector<int64_t> overwritten, pages;  // ascending; pages written
    std::vector<QueryRow> queries;
    std::vector<uint64_t> tails;
  };
  class Access;

  Status check_rows(const Batch& batch) const;
  void group_rows(const Batch& batch);
  void build_queries(const Batch& batch, StepSequence& step) const;
  Status check_positions(const Batch& batch, const StepSequence& step);
  int64_t pages_needed(const StepSequence& step) const;
  void commit_step(const Batch& batch, const StepSequence& step);
  Status check_sequence(SeqId seq) const;
  bool writable(const PageList& list, int64_t page) const;
  void make_writable(PageList& list, int64_t page);
  void cut(Sequence& s, int64_t slots);
  void free_hidden(Sequence& s, int64_t position);

  bool slides(size_t list) const;
  uint8_t** block_pages(BlockId block) const;
  BlockId make_block();

  KvConfig config_;
  KvLayout layout_;
  PagePool pool_;
  AlignedBuffer blocks_;  // [max_blocks][lists] pages
  std::vector<BlockId> free_blocks_;
  int64_t thin_blocks_ = 0;
  int64_t sliding_lists_ = 0, widest_window_ = 0;
  size_t first_sliding_ = 0;  // list
  std::vector<Sequence> sequences_;
  std::vector<StepSequence> steps_;
  size_t step_count_ = 0;       // used entries of steps_
  std::vector<int32_t> slots_;  // per batch row
  std::vector<int32_t> step_of_sequence_;
  std::vector<uint32_t> stamps_;  // by position, for check_positions
  uint32_t stamp_ = 0;
  bool open_ = false;
  std::unique_ptr<Access> access_;
};

}  // namespace mete
