// A table [rows][cols] of a GGUF file that stays on the drive: rows are read when a step needs them, by
// asynchronous direct reads, through a small cache of rows. For tables of which a token takes one row and
// nothing else: token embeddings, per-layer embeddings.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/aligned.h"
#include "format/direct_reader.h"
#include "format/gguf.h"
#include "ops/context.h"
#include "ops/matmul.h"

namespace mete {

struct RowStoreConfig {
  int64_t cache_bytes = 0;  ///< of rows kept; 0: a sixteenth of the table, 256 KiB to 4 MiB
  ReadWay way = ReadWay::kAuto;
  bool direct = true;
  int depth = 32;   ///< reads under way at most; each has a buffer
  int threads = 4;  ///< of ReadWay::kThreads
  int retries = 3;  ///< of a failing read
  /// For tests: wraps the reader.
  std::function<std::unique_ptr<AsyncReader>(std::unique_ptr<AsyncReader>)> wrap_reader;
};

struct RowStoreStats {
  int64_t hits = 0, misses = 0;  ///< distinct rows of each gather
  int64_t reads = 0, disk_bytes = 0, retries = 0;
  RowStoreStats& operator+=(const RowStoreStats& other);
};

/// What a store for `table` allocates: row cache, read buffers, lists of a step of up to `max_rows` rows.
int64_t row_store_bytes(const GgufTensor& table, const RowStoreConfig& config, int64_t max_rows);

class RowStore {
 public:
  /// Throws Error(kRuntime) for a file that cannot be opened, or has changed since `file` was opened, or
  /// memory that cannot be had.
  RowStore(const GgufFile& file, const GgufTensor& table, const RowStoreConfig& config, int64_t max_rows);

  /// out[i][cols] = row ids[i], dequantised: the bits of embed() on the table in memory. Up to max_rows ids,
  /// each in [0, rows). Error(kRuntime) naming the row that could not be read; the store lives on.
  Status gather(Context& ctx, std::span<const int32_t> ids, float* out) noexcept;

  /// Error if a file is not what it was when it was opened.
  Status check_files() const { return files_.check_unchanged(); }
  const RowStoreStats& stats() const { return stats_; }
  const GgufTensor& table() const { return table_; }
  int64_t cached_rows() const { return static_cast<int64_t>(cached_.size()); }  ///< rows that the cache holds
  std::string how() const { return reader_->how(); }  ///< "io_uring, direct" and the like
  int64_t resident() const { return cache_.resident() + buffers_.resident(); }

 private:
  struct Wanted {
    int32_t id, position;  // in `ids`
    bool operator<(const Wanted& o) const { return id != o.id ? id < o.id : position < o.position; }
  };
  struct Missed {  // wanted_[begin, end) want this row
    int32_t id;
    int64_t begin, end;
  };
  struct Read {  // of missed_[first, first + count): their pages are adjacent
    size_t first, count;
    uint64_t offset, bytes;  // of whole pages
    uint64_t needed;         // bytes that must arrive
    uint64_t done;
    int attempts;
  };
  struct Cached {
    int32_t id = -1;
    uint64_t used = 0;  // tick of the last use
  };
  struct Copy {
    const uint8_t* row;
    int32_t position;
  };

  uint64_t row_at(int64_t id) const { return table_.offset + static_cast<uint64_t>(id) * row_bytes_; }
  Cached* find(int32_t id);
  void admit(int32_t id);
  uint8_t* cached_row(const Cached* c) {
    return cache_.data() + static_cast<size_t>(c - cached_.data()) * row_bytes_;
  }
  void look_up(std::span<const int32_t> ids);
  Status read_missed(Context& ctx, float* out);
  size_t start_read(size_t first);
  void submit(int buffer);
  bool take(const ReadDone& done, Status* status);
  void dequantise(Context& ctx, float* out);
  uint8_t* buffer(int index) { return buffers_.data() + static_cast<size_t>(index) * buffer_bytes_; }

  const GgufTensor table_;
  RowStoreConfig config_;
  size_t row_bytes_, buffer_bytes_;
  DirectFiles files_;
  AlignedBuffer cache_, buffers_;
  std::vector<Cached> cached_;  // sets of kWays; row `id` lies in set id % sets
  uint64_t tick_ = 0;
  std::vector<Read> reads_;  // by buffer
  std::vector<int> free_buffers_;
  int64_t under_way_ = 0;
  RowStoreStats stats_;
  // Of the running gather; reserved once.
  std::vector<Wanted> wanted_;
  std::vector<Missed> missed_;
  std::vector<Copy> copies_;
  std::unique_ptr<AsyncReader> reader_;  // last: it ends its reads before memory goes
};

/// A table whose rows are looked up by id: in memory, or on the drive.
struct RowTable {
  const GgufTensor* tensor = nullptr;  ///< of the file
  Linear memory;                       ///< its panels, unless there is a store
  std::unique_ptr<RowStore> store;

  /// out[i][cols] = row ids[i], dequantised. An Error as RowStore::gather().
  Status gather(Context& ctx, std::span<const int32_t> ids, float* out) noexcept;
};

}  // namespace mete
