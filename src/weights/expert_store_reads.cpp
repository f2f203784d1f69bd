// The reading side of the expert store: queues, retries, packing of what has arrived.
#include <xxhash.h>

#include <algorithm>
#include <cstring>

#include "weights/expert_store.h"

namespace mete {

/// The slot is to hold this expert of layer at(slot).layer (a guess) or of the open layer.
void ExpertStore::load(int32_t index, int32_t expert, bool guess) {
  Slot& slot = at(index);
  std::erase(guess_queue_, index);
  std::erase(demand_queue_, index);
  if (index >= taken_.load(std::memory_order_relaxed)) {
    taken_.store(index + 1);
    taken_.notify_one();
  }
  if (!guess) slot.layer = layer_;
  slot.expert = expert;
  slot.guess = guess;
  if (slot.state == State::kReading) {  // of a guess that came to nothing
    slot.restart = true;
    return;
  }
  if (slot.state == State::kArrived) release_staging(index);
  slot.state = State::kQueued;
  slot.attempts = 0;
  (guess ? guess_queue_ : demand_queue_).push_back(index);
}

/// Starts what the reader has room for: what a layer waits for, and guesses once all that has arrived. Drives
/// may answer what is queued together all at once, so that a guess beside a demand would delay it.
void ExpertStore::start_reads() {
  size_t n = 0;
  for (int room = reading_limit_ - demands_reading(); room > 0 && n < demand_queue_.size(); --room) {
    if (!start(demand_queue_[n])) break;
    ++n;
  }
  demand_queue_.erase(demand_queue_.begin(), demand_queue_.begin() + static_cast<std::ptrdiff_t>(n));
  if (guess_queue_.empty() || layer_waits()) return;
  n = 0;
  while (n < guess_queue_.size()) {
    const int32_t index = guess_queue_[n];
    Slot& slot = at(index);
    const bool wanted = cache_.slot_of(slot.layer, slot.expert) == index;
    if (!wanted) slot.state = State::kEmpty;
    if (wanted && !start(index)) break;
    ++n;
  }
  guess_queue_.erase(guess_queue_.begin(), guess_queue_.begin() + static_cast<std::ptrdiff_t>(n));
}

/// Whether an expert that the open layer needs has not arrived yet.
bool ExpertStore::layer_waits() const {
  const bool unstarted = std::find(given_.begin(), given_.end(), Given::kNotStarted) != given_.end();
  return !demand_queue_.empty() || unstarted || demands_reading() > 0;
}

int ExpertStore::demands_reading() const {
  int count = 0;
  for (size_t i = 0; i < plan_.size(); ++i) {
    count += given_[i] == Given::kStarted && at(plan_[i].slot).state == State::kReading ? 1 : 0;
  }
  return count;
}

int ExpertStore::pieces(int32_t slot) const {
  if (pack_.layers > 0) return 1;
  return static_cast<int>(layout_.layers[static_cast<size_t>(at(slot).layer)].pieces.size());
}

ExpertStore::Extent ExpertStore::extent(int32_t index, int piece) const {
  const Slot& slot = at(index);
  if (pack_.layers > 0) {
    const int64_t record = slot.layer * declaration_.experts + slot.expert;
    return {0, pack_.offset(record), pack_.record_bytes, pack_.record_bytes, memory(index)};
  }
  const ExpertLayerLayout& layer = layout_.layers[static_cast<size_t>(slot.layer)];
  uint8_t* out = const_cast<uint8_t*>(staging_.data()) + static_cast<size_t>(slot.staging) * staging_bytes_;
  for (int i = 0; i < piece; ++i)
    out += round_up_read(layer.pieces[static_cast<size_t>(i)].bytes) + kReadAlign;
  const ExpertPiece& p = layer.pieces[static_cast<size_t>(piece)];
  const uint64_t begin = p.offset + static_cast<uint64_t>(slot.expert) * p.bytes;
  const uint64_t needed = begin - round_down_read(begin) + p.bytes;
  return {p.part, round_down_read(begin), round_up_read(needed), needed, out};
}

/// Where the piece's own bytes start.
const uint8_t* ExpertStore::piece_data(int32_t index, int piece) const {
  const Extent e = extent(index, piece);
  const ExpertPiece& p =
      layout_.layers[static_cast<size_t>(at(index).layer)].pieces[static_cast<size_t>(piece)];
  return e.out + (e.needed - p.bytes);
}

bool ExpertStore::start(int32_t index) {
  Slot& slot = at(index);
  if (reading_ >= buffers()) return false;
  if (pack_.layers == 0) {
    if (free_staging_.empty() && !slot.guess) finish_arrived(true);
    if (free_staging_.empty()) return false;
    slot.staging = free_staging_.back();
    free_staging_.pop_back();
  }
  slot.state = State::kReading;
  ++reading_;
  slot.failed = false;
  slot.done = {};
  slot.reads_left = pieces(index);
  for (int piece = 0; piece < slot.reads_left; ++piece) submit(index, piece);
  return true;
}

void ExpertStore::submit(int32_t index, int piece) {
  const Extent e = extent(index, piece);
  const uint64_t done = at(index).done[static_cast<size_t>(piece)];
  ++reads_under_way_;
  reader_->submit({e.file, e.offset + done, e.bytes - done, e.out + done,
                   static_cast<uint64_t>(index) * 4 + static_cast<uint64_t>(piece)});
}

void ExpertStore::collect(bool wait) {
  METE_CHECK(!wait || reads_under_way_ > 0);
  ReadDone done[32];
  const size_t n = reader_->collect(done, wait);
  for (size_t i = 0; i < n; ++i) take(done[i]);
}

void ExpertStore::release_staging(int32_t index) {
  if (at(index).staging < 0) return;
  free_staging_.push_back(at(index).staging);
  at(index).staging = -1;
}

void ExpertStore::take(const ReadDone& done) {
  const auto index = static_cast<int32_t>(done.tag / 4);
  const auto piece = static_cast<size_t>(done.tag % 4);
  Slot& slot = at(index);
  --reads_under_way_;
  ++reads_;
  disk_bytes_ += std::max<int64_t>(0, done.result);
  if (slot.restart) {
    if (--slot.reads_left > 0) return;
    --reading_;
    release_staging(index);
    slot.restart = false;
    slot.state = State::kEmpty;
    load(index, slot.expert, slot.guess);
    return;
  }
  const Extent e = extent(index, static_cast<int>(piece));
  const ReadState state = advance_read(done.result, e.needed, &slot.done[piece], &slot.error);
  if (state != ReadState::kComplete) {
    if (state == ReadState::kAgain || slot.attempts++ < config_.retries) {
      ++retries_;
      submit(index, static_cast<int>(piece));
      return;
    }
    slot.failed = true;
  }
  if (--slot.reads_left > 0) return;
  --reading_;
  slot.state = slot.failed ? State::kFailed : State::kArrived;
  if (slot.failed) release_staging(index);
}

/// Makes ready what has arrived: what a layer waits for, or guesses too.
void ExpertStore::finish_arrived(bool guesses) {
  arrived_.clear();
  if (!guesses) {
    for (size_t i = 0; i < plan_.size(); ++i) {
      const int32_t slot = plan_[i].slot;
      if (given_[i] == Given::kStarted && at(slot).state == State::kArrived) arrived_.push_back(slot);
    }
  } else {
    for (int32_t slot = 0; slot < static_cast<int32_t>(slots_.size()); ++slot) {
      if (at(slot).state == State::kArrived) arrived_.push_back(slot);
    }
  }
  if (!arrived_.empty()) finish(arrived_);
}

void ExpertStore::finish(std::span<const int32_t> arrived) {
  if (pack_.layers > 0) {
    ctx_.pool.parallel_for(static_cast<int64_t>(arrived.size()), 1, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) {
        const int32_t index = arrived[static_cast<size_t>(i)];
        Slot& slot = at(index);
        const auto record = static_cast<size_t>(slot.layer * declaration_.experts + slot.expert);
        const uint64_t used = pack_.layer[static_cast<size_t>(slot.layer)].used_bytes;
        slot.failed = XXH3_64bits(memory(index), used) != pack_.checksums[record];
      }
    });
    for (const int32_t index : arrived) {
      Slot& slot = at(index);
      slot.state = State::kReady;
      if (!slot.failed) continue;
      slot.error = 0;
      slot.state = State::kFailed;
      if (slot.attempts++ >= config_.retries) continue;
      ++retries_;
      slot.state = State::kQueued;
      (slot.guess ? guess_queue_ : demand_queue_).push_back(index);
    }
    return;
  }
  constexpr uint64_t kChunkBytes = 16 << 10;  // of packed panels: some 5 us of work
  chunks_.clear();
  for (const int32_t index : arrived) {
    int number = 0;
    for (const ExpertPiece& piece : layout_.layers[static_cast<size_t>(at(index).layer)].pieces) {
      const uint8_t* source = piece_data(index, number++);
      const auto step =
          static_cast<int64_t>(std::max<uint64_t>(1, kChunkBytes / panel_bytes(piece.type, piece.cols)));
      for (int64_t begin = 0; begin < piece_panels(piece); begin += step) {
        chunks_.push_back({index, &piece, source, begin, std::min(step, piece_panels(piece) - begin)});
      }
    }
  }
  ctx_.pool.parallel_for(static_cast<int64_t>(chunks_.size()), 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const Chunk& c = chunks_[static_cast<size_t>(i)];
      pack_piece_panels(*c.piece, c.source, c.begin, c.count, memory(c.slot));
    }
  });
  for (const int32_t index : arrived) {
    release_staging(index);
    at(index).state = State::kReady;
  }
}

Error ExpertStore::read_error(const Slot& slot) const {
  const std::string what = fmt::format("expert {} of layer {}", slot.expert, slot.layer);
  const std::string& path = files_.path(0);
  if (slot.error == 0) {
    return run_failure("{}: {} has a wrong checksum; {}", path, what, remake_);
  }
  return run_failure("{}: cannot read {}: {} ({} attempts)", path, what, std::strerror(slot.error),
                     slot.attempts);
}

}  // namespace mete
