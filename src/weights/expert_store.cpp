#include "weights/expert_store.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>

#include "base/clock.h"
#include "base/process_memory.h"
#include "weights/pack_experts.h"

namespace mete {
namespace {

/// Room for one expert of any layer as it comes from the model file: every piece with its neighbours' bytes.
size_t staging_bytes(const ExpertLayout& layout) {
  size_t most = 0;
  for (const ExpertLayerLayout& layer : layout.layers) {
    size_t bytes = 0;
    for (const ExpertPiece& piece : layer.pieces) bytes += round_up_read(piece.bytes) + kReadAlign;
    most = std::max(most, bytes);
  }
  return most;
}

constexpr size_t kTouchAhead = size_t{256} << 20;  // of the arena, beyond the slots that were ever taken

/// Huge pages: the kernel hands a drive few pieces of memory per read (measured: twice the rate).
size_t all_staging_bytes(const ExpertLayout& layout, int buffers) {
  return (staging_bytes(layout) * static_cast<size_t>(buffers) + kHugePage - 1) / kHugePage * kHugePage;
}

}  // namespace

ExpertCacheConfig expert_cache_config(const ExpertDeclaration& d, const ExpertStoreConfig& c) {
  ExpertCacheConfig out;
  out.layers = static_cast<int32_t>(d.layers.size());
  out.experts = static_cast<int32_t>(d.experts);
  out.slots = std::min(c.slots, out.layers * d.experts);
  out.shared = c.shared;
  out.guesses = c.guesses;
  out.guess_threshold = c.guess_threshold;
  out.replace = c.replace;
  const int64_t floor = expert_store_floor_slots(d, c.shared);
  if (c.slots < floor) throw bad_usage("experts: {} slots, expected at least {}", c.slots, floor);
  return out;
}

int64_t expert_slot_bytes(const ExpertDeclaration& declaration) {
  return static_cast<int64_t>(make_expert_layout(declaration).slot_bytes);
}

int64_t expert_store_floor_slots(const ExpertDeclaration& d, bool shared) {
  return shared ? d.used : static_cast<int64_t>(d.layers.size());
}

int64_t expert_store_fixed_bytes(const ExpertDeclaration& d, const ExpertStoreConfig& c) {
  const ExpertLayout layout = make_expert_layout(d);
  const size_t buffers = c.pack_path.empty() ? all_staging_bytes(layout, 2 * c.depth) : 0;
  constexpr size_t kRing = 64 << 10;  // submissions and completions, 3 reads per expert
  return static_cast<int64_t>(buffers + static_cast<size_t>(c.guesses) * layout.slot_bytes + kRing);
}

int64_t expert_store_floor_bytes(const ExpertDeclaration& d, const ExpertStoreConfig& c) {
  return expert_store_fixed_bytes(d, c) + expert_store_floor_slots(d, c.shared) * expert_slot_bytes(d);
}

ExpertStore::ExpertStore(Context& ctx, const GgufFile& file, const ExpertDeclaration& declaration,
                         const ExpertStoreConfig& config)
    : ctx_(ctx),
      declaration_(declaration),
      config_(config),
      layout_(make_expert_layout(declaration)),
      cache_(expert_cache_config(declaration, config)) {
  if (config_.pack_path.empty()) {
    files_.open(file, config_.direct).or_throw();
    staging_bytes_ = staging_bytes(layout_);
    staging_ = AlignedBuffer(all_staging_bytes(layout_, buffers()), true);
    for (int i = buffers() - 1; i >= 0; --i) free_staging_.push_back(i);
  } else {
    open_pack(file);
  }
  const ReaderConfig reader{config_.way, config_.direct, buffers() * (pack_.layers > 0 ? 1 : 3),
                            config_.threads};
  reader_ = make_reader(files_, reader).value();
  if (config_.wrap_reader) reader_ = config_.wrap_reader(std::move(reader_));

  const auto all = static_cast<size_t>(declaration.experts) * declaration.layers.size() +
                   static_cast<size_t>(config_.guesses);
  arena_bytes_ = all * layout_.slot_bytes;
  arena_ = map_huge(arena_bytes_, MAP_NORESERVE);
  if (arena_ == nullptr) {
    throw run_failure("expert arena: cannot reserve {} bytes: {}", arena_bytes_, std::strerror(errno));
  }
  slots_.resize(static_cast<size_t>(cache_.slot_count()));
  const auto experts = static_cast<size_t>(declaration.experts);
  for (std::vector<int32_t>* list : {&demand_queue_, &guess_queue_, &arrived_}) {
    list->reserve(experts + slots_.size());
  }
  demands_.reserve(experts), plan_.reserve(experts), given_.reserve(experts), follows_.reserve(experts);
  ready_.reserve(experts);
  advise_arena();
  touch_arena();
}

/// Huge pages for the slots that there are, none that would reach beyond the last of them.
void ExpertStore::advise_arena() {
  const size_t used = static_cast<size_t>(cache_.slot_count()) * layout_.slot_bytes;
  const size_t huge = used / kHugePage * kHugePage;
  ::madvise(arena_, huge, MADV_HUGEPAGE);
  ::madvise(arena_ + huge, arena_bytes_ - huge, MADV_NOHUGEPAGE);
}

/// In the background, some slots ahead of those that were ever taken. A kernel that cannot do it leaves pages
/// to be cleared when they are first written.
void ExpertStore::touch_arena() {
  const size_t bytes = static_cast<size_t>(cache_.slot_count()) * layout_.slot_bytes;
  if (bytes < kHugePage) return;  // not worth a thread
  const auto touch = [this, bytes] {
    size_t at = 0;
    while (at < bytes) {
      const int32_t taken = taken_.load();
      if (taken == kStopTouching) return;
      if (at >= static_cast<size_t>(taken) * layout_.slot_bytes + kTouchAhead) {
        taken_.wait(taken);
        continue;
      }
      const size_t step = std::min(4 * kHugePage, bytes - at);
      if (::madvise(arena_ + at, step, MADV_POPULATE_WRITE) != 0) return;
      at += step;
    }
  };
  try {
    toucher_ = std::thread(touch);
  } catch (const std::system_error&) {  // no thread to be had: as above
  }
}

void ExpertStore::stop_touching() {
  taken_.store(kStopTouching);
  taken_.notify_all();
  if (toucher_.joinable()) toucher_.join();
}

int64_t ExpertStore::resident() const { return resident_bytes(arena_, static_cast<int64_t>(arena_bytes_)); }

ExpertStore::~ExpertStore() {
  stop_touching();
  reader_.reset();
  if (arena_ != nullptr) ::munmap(arena_, arena_bytes_);
}

void ExpertStore::open_pack(const GgufFile& file) {
  pack_ = open_expert_pack(file, declaration_, config_.pack_path).value();
  remake_ = fmt::format("remake it with: mete pack -m {} -o {} --force", file.paths()[0], config_.pack_path);
  files_.open({config_.pack_path}, config_.direct).or_throw();
}

uint8_t* ExpertStore::memory(int32_t slot) const {
  return arena_ + static_cast<size_t>(slot) * layout_.slot_bytes;
}

void ExpertStore::begin(int layer, std::span<const ExpertDemand> demands) noexcept {
  METE_CHECK(!open_);
  open_ = true;
  layer_ = layer;
  const auto plan = cache_.begin(layer, demands);
  if (log_ != nullptr) log_->demanded(layer, demands, plan);
  demands_.assign(demands.begin(), demands.end());
  plan_.assign(plan.begin(), plan.end());
  given_.assign(plan.size(), Given::kNotStarted);
  follows_.assign(plan.size(), -1);
  ungiven_ = static_cast<int32_t>(plan.size());
  int missing = 0;
  for (size_t i = 0; i < plan_.size(); ++i) {
    const ExpertCache::Item& item = plan_[i];
    const int32_t expert = demands_[static_cast<size_t>(item.demand)].expert;
    if (item.after >= 0) {
      follows_[static_cast<size_t>(item.after)] = static_cast<int32_t>(i);
      continue;
    }
    given_[i] = Given::kStarted;
    Slot& slot = at(item.slot);
    if (!item.hit || slot.state == State::kFailed || (slot.guess && slot.state == State::kQueued)) {
      load(item.slot, expert, false);
      ++missing;
    }
    slot.guess = false;
  }
  // Where slots are handed on, half of them are read while the other half is computed.
  const bool handed_on = std::any_of(follows_.begin(), follows_.end(), [](int32_t f) { return f >= 0; });
  reading_limit_ = handed_on ? std::clamp(missing / 2, 1, config_.depth) : config_.depth;
  forget_stale_guesses();
  start_reads();
  collect(false);
}

Result<std::span<const ExpertSource::Ready>> ExpertStore::next() noexcept {
  METE_CHECK(open_);
  for (size_t i = 0; i < plan_.size(); ++i) {
    if (given_[i] != Given::kGiven) continue;
    given_[i] = Given::kComputed;
    if (follows_[i] < 0) continue;
    const auto follower = static_cast<size_t>(follows_[i]);
    given_[follower] = Given::kStarted;
    load(plan_[follower].slot, demands_[static_cast<size_t>(plan_[follower].demand)].expert, false);
  }
  ready_.clear();
  while (true) {
    start_reads();
    collect(false);
    start_reads();  // the next ones go to the drive before what has arrived is packed
    collect(false);
    finish_arrived(false);
    start_reads();  // with the buffers that are free now
    for (size_t i = 0; i < plan_.size(); ++i) {
      const ExpertCache::Item& item = plan_[i];
      if (given_[i] != Given::kStarted) continue;
      const Slot& slot = at(item.slot);
      if (slot.state == State::kFailed) return read_error(slot);
      if (slot.state != State::kReady) continue;
      ready_.push_back(
          {item.demand, expert_view(declaration_, layout_, layer_, slot.expert, memory(item.slot))});
      given_[i] = Given::kGiven;
      --ungiven_;
    }
    if (!ready_.empty() || ungiven_ == 0) {
      collect(false);  // the caller computes, the drive reads
      return std::span<const Ready>(ready_);
    }
    const double begin = now_seconds();
    ctx_.pool.expect_work(true);
    collect(true);
    stall_s_ += now_seconds() - begin;
  }
}

void ExpertStore::end() noexcept {
  METE_CHECK(open_);
  // Only a layer that ends early, by an error or by its caller, has anything left to do here.
  for (size_t i = 0; i < plan_.size(); ++i) {
    while (given_[i] == Given::kStarted && at(plan_[i].slot).state == State::kReading) collect(true);
  }
  finish_arrived(false);
  for (const int32_t slot : demand_queue_) at(slot).state = State::kEmpty;
  demand_queue_.clear();
  for (size_t i = 0; i < plan_.size(); ++i) {
    const bool waiting = given_[i] == Given::kStarted;
    if (given_[i] == Given::kComputed || given_[i] == Given::kGiven) continue;
    if (waiting && at(plan_[i].slot).state == State::kReady) continue;
    if (waiting) at(plan_[i].slot).state = State::kEmpty;
    cache_.drop(layer_, demands_[static_cast<size_t>(plan_[i].demand)].expert);
  }
  cache_.end();
  open_ = false;
  plan_.clear(), given_.clear();
  ctx_.pool.expect_work(false);
  start_reads();
  collect(false);
}

void ExpertStore::hint(int layer, std::span<const ExpertDemand> demands) noexcept {
  if (log_ != nullptr) log_->hinted(layer, demands);
  for (const ExpertCache::Guess& guess : cache_.hint(layer, demands)) {
    at(guess.slot).layer = layer;
    load(guess.slot, guess.expert, true);
    guess_slots_.push_back(guess.slot);
  }
  if (open_) return;  // next() starts these reads after those that the open layer waits for
  start_reads();
  collect(false);
}

/// Slots of guesses that the cache has given up.
void ExpertStore::forget_stale_guesses() {
  std::erase_if(guess_slots_, [this](int32_t index) {
    Slot& slot = at(index);
    if (!slot.guess) return true;
    if (cache_.slot_of(slot.layer, slot.expert) == index || slot.state == State::kReading) return false;
    std::erase(guess_queue_, index);
    release_staging(index);
    slot.state = State::kEmpty;
    return true;
  });
}

Status ExpertStore::resize(int64_t slots) {
  METE_CHECK(!open_);
  const int64_t floor = expert_store_floor_slots(declaration_, config_.shared);
  if (slots < floor) return bad_usage("experts: {} slots, expected at least {}", slots, floor);
  slots = std::min(slots, static_cast<int64_t>(declaration_.layers.size()) * declaration_.experts);
  stop_touching();
  while (reads_under_way_ > 0) collect(true);
  finish_arrived(true);
  forget_stale_guesses();
  const int32_t before = cache_.slot_count();
  const auto moves = cache_.resize(slots);
  slots_.resize(static_cast<size_t>(std::max(before, cache_.slot_count())));
  for (const ExpertCache::Move& move : moves) {
    std::memcpy(memory(move.to), memory(move.from), layout_.slot_bytes);
    at(move.to) = at(move.from);
    std::replace(guess_queue_.begin(), guess_queue_.end(), move.from, move.to);
    std::replace(guess_slots_.begin(), guess_slots_.end(), move.from, move.to);
  }
  slots_.resize(static_cast<size_t>(cache_.slot_count()));
  if (cache_.slot_count() < before) {
    ::madvise(memory(cache_.slot_count()),
              static_cast<size_t>(before - cache_.slot_count()) * layout_.slot_bytes, MADV_DONTNEED);
  }
  advise_arena();
  return {};
}

ExpertStoreStats ExpertStore::stats() const {
  return {cache_.counts(), reads_, disk_bytes_, retries_, stall_s_};
}

std::string ExpertStore::policy() const {
  return fmt::format("{}{}", name(config_.replace.kind), config_.shared ? ", shared pool" : "");
}

std::string ExpertStore::how() const {
  return fmt::format("{}, {}", reader_->how(), pack_.layers > 0 ? "expert pack" : "model file");
}

}  // namespace mete
