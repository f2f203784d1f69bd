#include "weights/row_store.h"

#include <algorithm>
#include <cstring>

#include "quant/dequant.h"

namespace mete {
namespace {

constexpr size_t kWays = 8;                  // cached rows of a set, the least recently used gives way
constexpr uint64_t kLeastBuffer = 16 << 10;  // so that neighbouring rows are one read

size_t bytes_of_row(const GgufTensor& table) { return row_bytes(table.type, table.cols()); }

size_t bytes_of_buffer(const GgufTensor& table) {
  return std::max(round_up_read(bytes_of_row(table)) + kReadAlign, kLeastBuffer);
}

/// Sets of the row cache.
size_t cache_sets(const GgufTensor& table, const RowStoreConfig& config) {
  int64_t bytes = config.cache_bytes;
  if (bytes == 0) {
    bytes = std::clamp<int64_t>(static_cast<int64_t>(table.bytes) / 16, 256 << 10, 4 << 20);
  }
  const auto rows = std::min(static_cast<uint64_t>(bytes) / bytes_of_row(table),
                             static_cast<uint64_t>(table.rows()) + kWays - 1);
  return std::max<size_t>(1, rows / kWays);
}

}  // namespace

RowStoreStats& RowStoreStats::operator+=(const RowStoreStats& other) {
  hits += other.hits, misses += other.misses;
  reads += other.reads, disk_bytes += other.disk_bytes, retries += other.retries;
  return *this;
}

int64_t row_store_bytes(const GgufTensor& table, const RowStoreConfig& config, int64_t max_rows) {
  constexpr size_t kRing = 16 << 10;  // submissions and completions
  const size_t rows = cache_sets(table, config) * kWays;
  const size_t buffers = static_cast<size_t>(config.depth) * bytes_of_buffer(table);
  return static_cast<int64_t>(round_up_read(rows * bytes_of_row(table)) + rows * 16 + buffers + kRing) +
         max_rows * 48;
}

RowStore::RowStore(const GgufFile& file, const GgufTensor& table, const RowStoreConfig& config,
                   int64_t max_rows)
    : table_(table),
      config_(config),
      row_bytes_(bytes_of_row(table)),
      buffer_bytes_(bytes_of_buffer(table)),
      cache_(cache_sets(table, config) * kWays * row_bytes_),
      buffers_(static_cast<size_t>(config.depth) * buffer_bytes_),
      cached_(cache_sets(table, config) * kWays),
      reads_(static_cast<size_t>(config.depth)) {
  static_assert(sizeof(Cached) == 16 && sizeof(Wanted) + sizeof(Missed) + sizeof(Copy) == 48);
  files_.open(file, config_.direct).or_throw();
  for (int i = config_.depth - 1; i >= 0; --i) free_buffers_.push_back(i);
  wanted_.reserve(static_cast<size_t>(max_rows));
  missed_.reserve(static_cast<size_t>(max_rows));
  copies_.reserve(static_cast<size_t>(max_rows));
  reader_ = make_reader(files_, {config_.way, config_.direct, config_.depth, config_.threads}).value();
  if (config_.wrap_reader) reader_ = config_.wrap_reader(std::move(reader_));
}

RowStore::Cached* RowStore::find(int32_t id) {
  Cached* set = &cached_[static_cast<size_t>(id) % (cached_.size() / kWays) * kWays];
  Cached* found = std::find_if(set, set + kWays, [id](const Cached& c) { return c.id == id; });
  return found == set + kWays ? nullptr : found;
}

/// The row takes a place in the cache; its bytes follow when they arrive.
void RowStore::admit(int32_t id) {
  Cached* set = &cached_[static_cast<size_t>(id) % (cached_.size() / kWays) * kWays];
  Cached* oldest =
      std::min_element(set, set + kWays, [](const Cached& a, const Cached& b) { return a.used < b.used; });
  *oldest = {id, ++tick_};
}

/// Cached rows into copies_, others into missed_, ascending. What the cache does follows from the ids alone.
void RowStore::look_up(std::span<const int32_t> ids) {
  wanted_.clear(), missed_.clear(), copies_.clear();
  for (size_t i = 0; i < ids.size(); ++i) {
    METE_CHECK(ids[i] >= 0 && ids[i] < table_.rows());
    wanted_.push_back({ids[i], static_cast<int32_t>(i)});
  }
  std::sort(wanted_.begin(), wanted_.end());
  for (size_t begin = 0, end; begin < wanted_.size(); begin = end) {
    const int32_t id = wanted_[begin].id;
    for (end = begin; end < wanted_.size() && wanted_[end].id == id;) ++end;
    Cached* cached = find(id);
    if (cached == nullptr) {
      missed_.push_back({id, static_cast<int64_t>(begin), static_cast<int64_t>(end)});
      continue;
    }
    cached->used = ++tick_;
    for (size_t i = begin; i < end; ++i) copies_.push_back({cached_row(cached), wanted_[i].position});
    ++stats_.hits;
  }
  stats_.misses += static_cast<int64_t>(missed_.size());
}

Status RowStore::gather(Context& ctx, std::span<const int32_t> ids, float* out) noexcept {
  METE_CHECK(ids.size() <= wanted_.capacity());
  ctx.enter(Part::kEmbed, static_cast<int64_t>(ids.size() * row_bytes_));
  look_up(ids);
  dequantise(ctx, out);
  if (missed_.empty()) return {};
  Status status = read_missed(ctx, out);
  if (!status) {  // places in the cache whose bytes may not have come
    for (const Missed& m : missed_) {
      if (Cached* cached = find(m.id)) *cached = {};
    }
  }
  return status;
}

Status RowStore::read_missed(Context& ctx, float* out) {
  Status status;
  size_t next = 0;
  while ((status && next < missed_.size()) || under_way_ > 0) {
    while (status && next < missed_.size() && !free_buffers_.empty()) next = start_read(next);
    ctx.enter(Part::kEmbedWait);
    ReadDone done[32];
    const size_t n = reader_->collect(done, true);
    ctx.enter(Part::kEmbed);
    copies_.clear();
    int arrived[32];
    size_t arrivals = 0;
    for (size_t i = 0; i < n; ++i) {
      if (take(done[i], &status)) arrived[arrivals++] = static_cast<int>(done[i].tag);
    }
    dequantise(ctx, out);
    for (size_t i = 0; i < arrivals; ++i) free_buffers_.push_back(arrived[i]);
  }
  return status;
}

/// Starts one read of the missed rows from `first` on whose pages are adjacent; the first row after them.
size_t RowStore::start_read(size_t first) {
  const uint64_t begin = round_down_read(row_at(missed_[first].id));
  uint64_t end = row_at(missed_[first].id) + row_bytes_;
  admit(missed_[first].id);
  size_t last = first + 1;
  for (; last < missed_.size(); ++last) {
    const uint64_t at = row_at(missed_[last].id);
    if (round_down_read(at) > round_up_read(end) || round_up_read(at + row_bytes_) - begin > buffer_bytes_)
      break;
    end = at + row_bytes_;
    admit(missed_[last].id);
  }
  const int index = free_buffers_.back();
  free_buffers_.pop_back();
  reads_[static_cast<size_t>(index)] = {
      first, last - first, begin, round_up_read(end) - begin, end - begin, 0, 0};
  submit(index);
  return last;
}

void RowStore::submit(int index) {
  const Read& r = reads_[static_cast<size_t>(index)];
  ++under_way_;
  reader_->submit({table_.part, r.offset + r.done, r.bytes - r.done, buffer(index) + r.done,
                   static_cast<uint64_t>(index)});
}

/// A read has ended. True if its buffer is no longer needed once copies_ have been made.
bool RowStore::take(const ReadDone& done, Status* status) {
  const auto index = static_cast<int>(done.tag);
  Read& r = reads_[static_cast<size_t>(index)];
  --under_way_;
  ++stats_.reads;
  stats_.disk_bytes += std::max<int64_t>(0, done.result);
  int error = 0;
  const ReadState state = advance_read(done.result, r.needed, &r.done, &error);
  if (state != ReadState::kComplete) {
    if (state == ReadState::kAgain || r.attempts++ < config_.retries) {
      ++stats_.retries;
      submit(index);
      return false;
    }
    *status =
        run_failure("{}: cannot read row {} of tensor \"{}\": {} ({} attempts)", files_.path(table_.part),
                    missed_[r.first].id, table_.name, std::strerror(error), r.attempts);
    return true;
  }
  for (size_t i = r.first; i < r.first + r.count; ++i) {
    const Missed& m = missed_[i];
    const uint8_t* row = buffer(index) + (row_at(m.id) - r.offset);
    if (const Cached* cached = find(m.id)) std::memcpy(cached_row(cached), row, row_bytes_);
    for (int64_t w = m.begin; w < m.end; ++w) {
      copies_.push_back({row, wanted_[static_cast<size_t>(w)].position});
    }
  }
  return true;
}

Status RowTable::gather(Context& ctx, std::span<const int32_t> ids, float* out) noexcept {
  if (store != nullptr) return store->gather(ctx, ids, out);
  embed(ctx, memory, ids, out);
  return {};
}

void RowStore::dequantise(Context& ctx, float* out) {
  const int64_t cols = table_.cols();
  ctx.pool.parallel_for(static_cast<int64_t>(copies_.size()), 8, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const Copy& copy = copies_[static_cast<size_t>(i)];
      dequantize_row(table_.type, copy.row, out + copy.position * cols, cols);
    }
  });
}

}  // namespace mete
