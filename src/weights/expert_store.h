// Routed experts under a ceiling: a fixed arena of slots, filled by asynchronous direct reads from the model
// file or from its expert pack. ExpertCache decides; this class reads, packs and gives. Hits are given first,
// while misses are read; slots that a layer needs are never overwritten before they were given and computed.
#pragma once

#include <array>
#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/aligned.h"
#include "format/direct_reader.h"
#include "format/expert_pack.h"
#include "ops/context.h"
#include "weights/expert_cache.h"
#include "weights/expert_layout.h"
#include "weights/experts.h"

namespace mete {

/// Sees what a store is told and what it decides (mete inspect --routing).
class ExpertStoreLog {
 public:
  virtual ~ExpertStoreLog() = default;
  virtual void demanded(int layer, std::span<const ExpertDemand> demands,
                        std::span<const ExpertCache::Item> plan) noexcept = 0;
  virtual void hinted(int layer, std::span<const ExpertDemand> demands) noexcept = 0;
};

struct ExpertStoreConfig {
  int64_t slots = 0;    ///< of all layers
  bool shared = false;  ///< one pool for all layers
  int32_t guesses = 0;  ///< slots for experts read ahead on a hint; 0: no prefetch
  double guess_threshold = ExpertCacheConfig{}.guess_threshold;
  ReplaceConfig replace;
  ReadWay way = ReadWay::kAuto;
  bool direct = true;
  int depth = 4;          ///< experts of a layer being read at a time; as many wait, read, for the caller
  int threads = 4;        ///< of ReadWay::kThreads
  int retries = 3;        ///< of a failing read
  std::string pack_path;  ///< expert pack; empty: straight from the model file
  /// For tests: wraps the reader.
  std::function<std::unique_ptr<AsyncReader>(std::unique_ptr<AsyncReader>)> wrap_reader;
};

struct ExpertStoreStats {
  ExpertCounts counts;
  int64_t reads = 0;
  int64_t disk_bytes = 0;
  int64_t retries = 0;
  double stall_s = 0;  ///< time in which the caller waited for a read
};

/// Bytes of one slot.
int64_t expert_slot_bytes(const ExpertDeclaration& declaration);
/// What the store allocates besides slots: the slots of guesses, read buffers, ring.
int64_t expert_store_fixed_bytes(const ExpertDeclaration& declaration, const ExpertStoreConfig& config);
/// The least `slots` that a store of this shape takes: one per layer, or one token's experts in a shared
/// pool.
int64_t expert_store_floor_slots(const ExpertDeclaration& declaration, bool shared);
/// The least bytes with which a store can work: fixed bytes and floor slots.
int64_t expert_store_floor_bytes(const ExpertDeclaration& declaration, const ExpertStoreConfig& config);

/// The decisions of a store of this configuration, as replay makes them. Throws Error(kUsage) below the
/// floor.
ExpertCacheConfig expert_cache_config(const ExpertDeclaration& declaration, const ExpertStoreConfig& config);

class ExpertStore final : public ExpertSource {
 public:
  /// `declaration` must outlive the store. Throws Error: kRuntime for files that cannot be opened or memory
  /// that cannot be had, kBadModel for a pack that does not fit the model, kUsage for a number of slots below
  /// the floor. More slots than experts are not used.
  ExpertStore(Context& ctx, const GgufFile& file, const ExpertDeclaration& declaration,
              const ExpertStoreConfig& config);
  ~ExpertStore() override;

  void begin(int layer, std::span<const ExpertDemand> demands) noexcept override;
  Result<std::span<const Ready>> next() noexcept override;
  void end() noexcept override;
  void hint(int layer, std::span<const ExpertDemand> demands) noexcept override;
  bool wants_hints() const noexcept override { return cache_.config().guesses > 0; }

  /// Another number of slots, between steps: never changes a bit. kUsage below the floor or above what was
  /// reserved (all experts).
  Status resize(int64_t slots);
  /// Error if the model file or the pack is not what it was when it was opened.
  Status check_files() const { return files_.check_unchanged(); }

  int64_t resident() const override;
  int64_t buffers_resident() const { return staging_.resident(); }

  ExpertStoreStats stats() const;
  int64_t slots() const { return cache_.slots(); }
  int layers() const { return cache_.config().layers; }
  std::string policy() const;  ///< "lru", or "lru, shared pool"
  /// How experts are read: "io_uring, direct, expert pack" and the like.
  std::string how() const;
  int64_t reads_under_way() const { return reads_under_way_; }
  void set_log(ExpertStoreLog* log) { log_ = log; }  ///< null: none

 private:
  enum class State : uint8_t { kEmpty, kQueued, kReading, kArrived, kReady, kFailed };
  struct Slot {
    int layer = 0;
    int32_t expert = -1;
    State state = State::kEmpty;
    bool guess = false;    // nobody waits for it yet
    bool restart = false;  // the read under way is of another expert: read again when it ends
    bool failed = false;   // a piece could not be read
    int staging = -1;
    int reads_left = 0;
    int attempts = 0;
    int error = 0;                   // errno of the last failure; 0: wrong checksum
    std::array<uint64_t, 3> done{};  // bytes read of each piece
  };
  struct Extent {
    int file;
    uint64_t offset, bytes;  // aligned
    uint64_t needed;         // bytes of it that must arrive
    uint8_t* out;
  };

  void open_pack(const GgufFile& file);
  void advise_arena();
  void touch_arena();
  void stop_touching();
  void load(int32_t slot, int32_t expert, bool guess);
  void forget_stale_guesses();
  void start_reads();
  bool layer_waits() const;
  int demands_reading() const;
  bool start(int32_t slot);
  Extent extent(int32_t slot, int piece) const;
  int pieces(int32_t slot) const;
  void submit(int32_t slot, int piece);
  void collect(bool wait);
  void take(const ReadDone& done);
  int buffers() const { return 2 * config_.depth; }
  void finish_arrived(bool guesses);
  void finish(std::span<const int32_t> arrived);
  void release_staging(int32_t slot);
  const uint8_t* piece_data(int32_t slot, int piece) const;
  Error read_error(const Slot& slot) const;
  Slot& at(int32_t slot) { return slots_[static_cast<size_t>(slot)]; }
  const Slot& at(int32_t slot) const { return slots_[static_cast<size_t>(slot)]; }
  uint8_t* memory(int32_t slot) const;

  Context& ctx_;
  const ExpertDeclaration& declaration_;
  ExpertStoreConfig config_;
  ExpertLayout layout_;
  ExpertCache cache_;
  DirectFiles files_;
  ExpertPackDirectory pack_;  // layers == 0: none
  std::string remake_;        // what to do about a broken pack
  uint8_t* arena_ = nullptr;  // all experts' slots reserved; only those in use are ever touched
  size_t arena_bytes_ = 0;
  std::thread toucher_;  // lets the kernel clear the arena's pages before reads need them
  static constexpr int32_t kStopTouching = INT32_MAX;
  std::atomic<int32_t> taken_{0};  // slots that were ever taken, or kStopTouching
  size_t staging_bytes_ = 0;       // of one buffer
  AlignedBuffer staging_;
  std::vector<int> free_staging_;
  std::vector<Slot> slots_;
  std::vector<int32_t> demand_queue_, guess_queue_;  // slots to read, in order
  std::vector<int32_t> guess_slots_;                 // slots that were read on a hint
  std::vector<int32_t> arrived_;                     // scratch
  // The open layer.
  bool open_ = false;
  int layer_ = -1;
  std::vector<ExpertDemand> demands_;
  std::vector<ExpertCache::Item> plan_;
  struct Chunk {  // panels of one piece, packed by one worker
    int32_t slot;
    const ExpertPiece* piece;
    const uint8_t* source;
    int64_t begin, count;
  };
  std::vector<Chunk> chunks_;  // scratch
  enum class Given : uint8_t { kNotStarted, kStarted, kGiven, kComputed };
  std::vector<Given> given_;      // by plan index
  std::vector<int32_t> follows_;  // by plan index: the item that takes over its slot, or -1
  std::vector<Ready> ready_;
  int32_t ungiven_ = 0;
  int reading_ = 0;        // slots that are being read
  int reading_limit_ = 0;  // of the open layer's demands
  int64_t reads_under_way_ = 0, reads_ = 0, disk_bytes_ = 0, retries_ = 0;
  double stall_s_ = 0;
  ExpertStoreLog* log_ = nullptr;
  std::unique_ptr<AsyncReader> reader_;  // last: it ends its reads before memory goes
};

}  // namespace mete
