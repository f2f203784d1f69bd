#include "kv/kv_cache.h"

#include <algorithm>
#include <cstring>

namespace mete {
namespace {

constexpr int32_t kMaxPosition = 1 << 20;
/// Sliding layers keep this many positions beyond their window, so that a few tokens can be taken back.
constexpr int64_t kWindowSlack = 32;

int64_t widest(const KvConfig& c) {
  return c.windows.empty() ? 0 : *std::max_element(c.windows.begin(), c.windows.end());
}

int64_t block_count(const KvConfig& c) { return (c.max_slots + c.page_slots - 1) / c.page_slots; }

/// Pages of a sliding list that a settled sequence and the prefixes that it ends hold: the window and the
/// slack, one page more that is written in part, one that is left in part, and one that a step begins.
int64_t window_pages(const KvConfig& c) {
  return (widest(c) + kWindowSlack + c.page_slots - 1) / c.page_slots + 3;
}

/// Pages of the pool. Those of sliding layers are not set apart: all pages are alike.
int64_t page_count(const KvConfig& c) {
  kv_layout(c).check().or_throw();
  if (!c.windows.empty() && static_cast<int64_t>(c.windows.size()) != c.kv_layers) {
    throw bad_usage("KV cache: {} windows for {} layers", c.windows.size(), c.kv_layers);
  }
  if (c.kv_layers < 1 || c.kv_heads < 1 || c.max_slots < 1) {
    throw bad_usage("KV cache: {} layers, {} heads, {} slots; each must be at least 1", c.kv_layers,
                    c.kv_heads, c.max_slots);
  }
  const int64_t blocks = block_count(c);
  if (c.windows.empty() || c.window_sequences == 0) return blocks * c.kv_layers * c.kv_heads;
  const int64_t sliding = std::min(
      blocks, c.window_sequences * window_pages(c) + (c.step_rows + c.page_slots - 1) / c.page_slots);
  int64_t pages = 0;
  for (const int32_t window : c.windows) pages += (window > 0 ? sliding : blocks) * c.kv_heads;
  return pages;
}

void sort_unique(std::vector<int64_t>& v) {
  std::sort(v.begin(), v.end());
  v.erase(std::unique(v.begin(), v.end()), v.end());
}

}  // namespace

KvLayout kv_layout(const KvConfig& c) {
  return {c.key_codec, c.value_codec, c.head_dim, c.page_slots, c.value_dim, c.value_in_key};
}

std::optional<KvType> parse_kv_codec(std::string_view text) {
  for (KvType type : {KvType::kF16, KvType::kBF16, KvType::kQ8_0}) {
    if (text == kv_codec_name(type)) return type;
  }
  return std::nullopt;
}

const char* kv_codec_name(KvType type) {
  switch (type) {
    case KvType::kF32:
      return "f32";
    case KvType::kF16:
      return "f16";
    case KvType::kBF16:
      return "bf16";
    case KvType::kQ8_0:
      return "q8_0";
  }
  return "?";
}

size_t kv_cache_bytes(const KvConfig& config) {
  return kv_layout(config).page_bytes() * static_cast<size_t>(page_count(config));
}

size_t kv_table_bytes(const KvConfig& config, int64_t sequences) {
  const int64_t pages = page_count(config), lists = config.kv_layers * config.kv_heads;
  const int64_t slots = config.sequence_slots > 0 ? config.sequence_slots : config.max_slots;
  const int64_t of_sequence = 4 * slots + lists * (8 * (slots / config.page_slots + 1) + 64);
  // Per block of a prefix cache: its pages, two nodes of the tree with their tokens, hash and policy.
  const int64_t of_block = 8 * lists + 2 * (48 + 4 * config.page_slots) + 64;
  return static_cast<size_t>(8 * pages + 4 * slots + sequences * of_sequence +
                             block_count(config) * of_block);
}

/// The two calls of a layer, for the rows of the open step.
class KvCache::Access : public KvAccess {
 public:
  explicit Access(KvCache& cache) : cache_(cache) {}

  void open(const Batch& batch) {
    const size_t heads = static_cast<size_t>(cache_.config_.kv_heads);
    tables_.resize(cache_.step_count_ * heads);
    specs_.resize(cache_.step_count_ * heads);
    targets_.clear();
    jobs_.clear();
    for (size_t i = 0; i < cache_.step_count_; ++i) {
      const StepSequence& step = cache_.steps_[i];
      for (int32_t row : step.rows) {
        targets_.push_back({row, cache_.slots_[static_cast<size_t>(row)], tables_.data() + i * heads});
      }
      jobs_.push_back({step.queries, specs_.data() + i * heads, step.tail_begin});
    }
    METE_CHECK(targets_.size() == batch.rows.size());
  }

  void store(Context& ctx, int layer, const float* k, const float* v) noexcept override {
    const int64_t heads = cache_.config_.kv_heads;
    for_lists(layer, [&](size_t i, const Sequence&, PageList& list) { tables_[i] = list.pages.data(); });
    kv_store(ctx, cache_.layout_, heads, targets_, k, v);
  }

  void attend(Context& ctx, int layer, const float* q, const AttentionParams& params,
              float* out) noexcept override {
    const auto& windows = cache_.config_.windows;
    const int32_t kept = windows.empty() ? 0 : windows[static_cast<size_t>(layer)];
    METE_CHECK(kept == 0 || (params.window > 0 && params.window <= kept));
    for_lists(layer, [&](size_t i, const Sequence& s, PageList& list) {
      Spec& spec = specs_[i];
      spec.pages = list.pages.data();
      spec.slots = static_cast<int64_t>(s.positions.size());
      spec.positions = s.positions.data();
      spec.valid = list.valid.empty() ? nullptr : list.valid.data();
      spec.dense = std::min(s.dense, list.dropped_from);
    });
    AttendParams p;
    p.heads = params.heads;
    p.kv_heads = cache_.config_.kv_heads;
    p.scale = params.scale;
    p.softcap = params.softcap;
    p.window = params.window;
    p.sinks = params.sinks;
    mete::attend(ctx, cache_.layout_, p, jobs_, q, out, nullptr);
  }

 private:
  template <typename Visit>
  void for_lists(int layer, Visit visit) {
    const size_t heads = static_cast<size_t>(cache_.config_.kv_heads);
    for (size_t i = 0; i < cache_.step_count_; ++i) {
      Sequence& s = cache_.sequences_[static_cast<size_t>(cache_.steps_[i].seq)];
      for (size_t h = 0; h < heads; ++h) {
        visit(i * heads + h, s, s.lists[static_cast<size_t>(layer) * heads + h]);
      }
    }
  }

  KvCache& cache_;
  std::vector<uint8_t* const*> tables_;  // [step sequence][kv head]
  std::vector<StoreTarget> targets_;
  std::vector<Spec> specs_;  // [step sequence][kv head]
  std::vector<AttendJob> jobs_;
};

KvCache::KvCache(const KvConfig& config)
    : config_(config),
      layout_(kv_layout(config)),
      pool_(layout_.page_bytes(), page_count(config), config.poison),
      widest_window_(widest(config)),
      access_(std::make_unique<Access>(*this)) {
  const auto& windows = config_.windows;
  sliding_lists_ =
      std::count_if(windows.begin(), windows.end(), [](int32_t w) { return w > 0; }) * config_.kv_heads;
  const auto first = std::find_if(windows.begin(), windows.end(), [](int32_t w) { return w > 0; });
  first_sliding_ = static_cast<size_t>((first - windows.begin()) * config_.kv_heads);
}

KvCache::~KvCache() = default;

KvAccess& KvCache::access() { return *access_; }

size_t KvCache::bytes() const {
  return static_cast<size_t>(pool_.pages() - pool_.free_pages()) * pool_.page_bytes();
}
size_t KvCache::peak_bytes() const { return static_cast<size_t>(pool_.peak_pages()) * pool_.page_bytes(); }
size_t KvCache::capacity_bytes() const { return pool_.capacity_bytes(); }
int64_t KvCache::free_slots() const {
  return pool_.free_pages() / (config_.kv_layers * config_.kv_heads) * config_.page_slots;
}

SeqId KvCache::create() {
  size_t i = 0;
  while (i < sequences_.size() && sequences_[i].live) ++i;
  if (i == sequences_.size()) sequences_.emplace_back();
  Sequence& s = sequences_[i];
  s.live = true;
  s.length = s.step_begin = s.dense = s.hidden_slots = s.lowest = 0;
  s.positions.clear();
  const int64_t slots = config_.sequence_slots > 0 ? config_.sequence_slots : config_.max_slots;
  s.positions.reserve(static_cast<size_t>(slots));
  s.lists.resize(static_cast<size_t>(config_.kv_layers * config_.kv_heads));
  for (PageList& list : s.lists) {
    list.pages.reserve(static_cast<size_t>((slots + config_.page_slots - 1) / config_.page_slots));
  }
  return static_cast<SeqId>(i);
}

Status KvCache::check_sequence(SeqId seq) const {
  if (seq < 0 || static_cast<size_t>(seq) >= sequences_.size() ||
      !sequences_[static_cast<size_t>(seq)].live) {
    return bad_usage("KV cache: no sequence {}", seq);
  }
  return {};
}

void KvCache::release(SeqId seq) {
  METE_CHECK(check_sequence(seq));
  Sequence& s = sequences_[static_cast<size_t>(seq)];
  cut(s, 0);
  s.live = false;
}

SeqId KvCache::fork(SeqId seq) {
  METE_CHECK(check_sequence(seq) && !open_);
  const SeqId copy = create();
  const Sequence& from = sequences_[static_cast<size_t>(seq)];
  Sequence& to = sequences_[static_cast<size_t>(copy)];
  to = from;
  for (const PageList& list : to.lists) {
    for (const uint8_t* page : list.pages) {
      if (page != nullptr) pool_.retain(page);
    }
  }
  return copy;
}

int64_t KvCache::length(SeqId seq) const {
  METE_CHECK(check_sequence(seq));
  return sequences_[static_cast<size_t>(seq)].length;
}

void KvCache::cut(Sequence& s, int64_t slots) {
  const size_t pages = static_cast<size_t>((slots + config_.page_slots - 1) / config_.page_slots);
  if (slots == 0) s.hidden_slots = s.lowest = 0;
  for (PageList& list : s.lists) {
    list.hidden = std::min(list.hidden, static_cast<int64_t>(pages));
    while (list.pages.size() > pages) {
      if (list.pages.back() != nullptr) pool_.release(list.pages.back());
      list.pages.pop_back();
    }
    if (list.dropped_from >= slots) {
      list.valid.clear();
      list.dropped_from = INT64_MAX;
    } else {
      list.valid.resize(pages);
      const int64_t used = slots % config_.page_slots;  // later slots of the last page are fresh again
      if (used != 0) list.valid.back() |= ~((1u << used) - 1u);
    }
  }
  s.positions.resize(static_cast<size_t>(slots));
  s.length = std::min(s.length, slots);
  s.dense = std::min(s.dense, slots);
}

bool KvCache::writable(const PageList& list, int64_t page) const {
  const size_t i = static_cast<size_t>(page);
  return i < list.pages.size() && list.pages[i] != nullptr && !pool_.shared(list.pages[i]);
}

void KvCache::make_writable(PageList& list, int64_t page) {
  if (writable(list, page)) return;
  const size_t i = static_cast<size_t>(page);
  if (i >= list.pages.size()) {
    list.pages.resize(i + 1, nullptr);
    if (!list.valid.empty()) list.valid.resize(i + 1, ~0u);
  }
  uint8_t* fresh = pool_.take();
  if (list.pages[i] != nullptr) {
    std::memcpy(fresh, list.pages[i], pool_.page_bytes());
    pool_.release(list.pages[i]);
  }
  list.pages[i] = fresh;
}

Status KvCache::truncate(SeqId seq, int64_t length) {
  if (Status s = check_sequence(seq); !s) return s;
  Sequence& s = sequences_[static_cast<size_t>(seq)];
  if (length < 0 || length > s.length) {
    return bad_usage("KV cache: sequence {} cannot be cut to {} slots, it has {}", seq, length, s.length);
  }
  if (reusable(seq, length) != length) {
    return bad_usage(
        "KV cache: sequence {} cannot be cut to {} slots: layers with a sliding window keep what "
        "rows from position {} on see; cut it to 0",
        seq, length, s.lowest);
  }
  cut(s, length);
  s.step_begin = std::min(s.step_begin, length);
  return {};
}

int64_t KvCache::reusable(SeqId seq, int64_t length) const {
  METE_CHECK(check_sequence(seq));
  const Sequence& s = sequences_[static_cast<size_t>(seq)];
  METE_CHECK(length >= 0 && length <= s.length);
  if (length == s.length || s.positions[static_cast<size_t>(length)] >= s.lowest) return length;
  return 0;
}

/// Frees the pages of sliding layers that no row at `position` or later sees. What is left has the same bits:
/// a window hides those keys anyway.
void KvCache::free_hidden(Sequence& s, int64_t position) {
  const int64_t heads = config_.kv_heads, slots = config_.page_slots;
  for (int64_t layer = 0; layer < static_cast<int64_t>(config_.windows.size()); ++layer) {
    const int64_t window = config_.windows[static_cast<size_t>(layer)];
    const int64_t last = position - window - kWindowSlack;  // highest position to free
    if (window == 0 || last < 0) continue;
    int64_t page = s.lists[static_cast<size_t>(layer * heads)].hidden;
    for (; (page + 1) * slots <= s.length; ++page) {
      const auto begin = s.positions.begin() + page * slots;
      const int64_t highest = *std::max_element(begin, begin + slots);
      if (highest > last) break;
      for (int64_t h = 0; h < heads; ++h) {
        PageList& list = s.lists[static_cast<size_t>(layer * heads + h)];
        uint8_t*& place = list.pages[static_cast<size_t>(page)];
        if (place != nullptr) pool_.release(place);
        place = nullptr;
        list.hidden = page + 1;
      }
      s.lowest = std::max(s.lowest, highest + window);
      s.hidden_slots = std::max(s.hidden_slots, (page + 1) * slots);
    }
  }
}

void KvCache::settle(SeqId seq) {
  METE_CHECK(check_sequence(seq) && !open_);
  Sequence& s = sequences_[static_cast<size_t>(seq)];
  s.step_begin = s.length;
  if (s.length > 0) free_hidden(s, s.positions[static_cast<size_t>(s.length - 1)] + int64_t{1});
}

int64_t KvCache::sequence_pages(int64_t tokens) const {
  const int64_t blocks = (tokens + config_.page_slots - 1) / config_.page_slots;
  return blocks * full_lists() + std::min(blocks, window_pages(config_)) * sliding_lists_;
}

int64_t KvCache::window_blocks() const { return window_pages(config_) - 2; }

Status KvCache::compact(SeqId seq, std::span<const int32_t> kept_slots) {
  if (Status s = check_sequence(seq); !s) return s;
  Sequence& s = sequences_[static_cast<size_t>(seq)];
  int64_t previous = s.step_begin - 1, shared = 0;
  for (int32_t slot : kept_slots) {
    if (slot <= previous || static_cast<size_t>(slot) >= s.positions.size()) {
      return bad_usage("KV cache: slot {} cannot be kept; expected ascending slots from {} to {}", slot,
                       previous + 1, static_cast<int64_t>(s.positions.size()) - 1);
    }
    previous = slot;
  }
  const int64_t kept = static_cast<int64_t>(kept_slots.size()), begin = s.step_begin,
                slots = config_.page_slots;
  const int64_t first_page = begin / slots, last_page = (begin + std::max<int64_t>(kept, 1) - 1) / slots;
  for (const PageList& list : s.lists) {
    for (int64_t p = first_page; p <= last_page && kept > 0; ++p) shared += writable(list, p) ? 0 : 1;
  }
  if (shared > pool_.free_pages()) {
    return run_failure("KV cache: {} pages needed to keep {} slots of sequence {}, {} free", shared, kept,
                       seq, pool_.free_pages());
  }
  for (PageList& list : s.lists) {
    for (int64_t p = first_page; p <= last_page && kept > 0; ++p) make_writable(list, p);
    for (int64_t i = 0; i < kept; ++i) {
      const int64_t from = kept_slots[static_cast<size_t>(i)], to = begin + i;
      if (from == to) continue;
      const uint8_t* source = list.pages[static_cast<size_t>(from / slots)];
      if (source == nullptr) continue;  // dropped in this list, and so is its new place by the lines below
      kv_copy_slot(layout_, source, from % slots, list.pages[static_cast<size_t>(to / slots)], to % slots);
    }
    if (list.valid.empty()) continue;
    for (int64_t i = 0; i < kept; ++i) {
      const int64_t from = kept_slots[static_cast<size_t>(i)], to = begin + i;
      const bool valid = ((list.valid[static_cast<size_t>(from / slots)] >> (from % slots)) & 1u) != 0;
      uint32_t& bits = list.valid[static_cast<size_t>(to / slots)];
      bits = valid ? bits | (1u << (to % slots)) : bits & ~(1u << (to % slots));
      if (!valid) list.dropped_from = std::min(list.dropped_from, to);
    }
  }
  for (int64_t i = 0; i < kept; ++i) {
    s.positions[static_cast<size_t>(begin + i)] =
        s.positions[static_cast<size_t>(kept_slots[static_cast<size_t>(i)])];
  }
  s.length = begin + kept;
  cut(s, s.length);
  s.dense = std::min(s.dense, begin);
  while (s.dense < s.length && s.positions[static_cast<size_t>(s.dense)] == s.dense) ++s.dense;
  return {};
}

Status KvCache::drop(SeqId seq, int64_t layer, int64_t kv_head, std::span<const int32_t> slots) {
  if (Status s = check_sequence(seq); !s) return s;
  Sequence& s = sequences_[static_cast<size_t>(seq)];
  if (layer < 0 || layer >= config_.kv_layers || kv_head < 0 || kv_head >= config_.kv_heads) {
    return bad_usage("KV cache: no layer {}, head {}", layer, kv_head);
  }
  for (int32_t slot : slots) {
    if (slot < 0 || slot >= s.length) {
      return bad_usage("KV cache: slot {} of sequence {} cannot be dropped, it has {} slots", slot, seq,
                       s.length);
    }
  }
  PageList& list = s.lists[static_cast<size_t>(layer * config_.kv_heads + kv_head)];
  const uint32_t all = config_.page_slots == 32 ? ~0u : (1u << config_.page_slots) - 1u;
  if (list.valid.empty()) list.valid.assign(list.pages.size(), ~0u);
  for (int32_t slot : slots) {
    const size_t page = static_cast<size_t>(slot / config_.page_slots);
    list.valid[page] &= ~(1u << (slot % config_.page_slots));
    list.dropped_from = std::min<int64_t>(list.dropped_from, slot);
    if ((list.valid[page] & all) == 0 && list.pages[page] != nullptr) {
      pool_.release(list.pages[page]);
      list.pages[page] = nullptr;
    }
  }
  return {};
}

Status KvCache::check_rows(const Batch& batch) const {
  const int64_t rows = static_cast<int64_t>(batch.rows.size());
  if (batch.mask != nullptr && batch.mask->rows() != rows) {
    return bad_usage("batch: mask of {} rows for {} rows", batch.mask->rows(), rows);
  }
  for (int64_t i = 0; i < rows; ++i) {
    const Row& row = batch.rows[static_cast<size_t>(i)];
    if (Status s = check_sequence(row.seq); !s) return s;
    if (row.position < 0 || row.position > kMaxPosition) {
      return bad_usage("batch row {}: position {}, expected 0 .. {}", i, row.position, kMaxPosition);
    }
    const Sequence& s = sequences_[static_cast<size_t>(row.seq)];
    const int64_t length = s.length;
    if (row.position < s.lowest || (row.write == KvWrite::kOverwrite && row.slot < s.hidden_slots)) {
      return bad_usage(
          "batch row {}: position {}: layers with a sliding window keep what rows from position "
          "{} on see; cut sequence {} to 0",
          i, row.position, s.lowest, row.seq);
    }
    if (row.write == KvWrite::kOverwrite && (row.slot < 0 || row.slot >= length)) {
      return bad_usage("batch row {}: slot {} to overwrite, expected 0 .. {}", i, row.slot, length - 1);
    }
  }
  return {};
}

void KvCache::group_rows(const Batch& batch) {
  step_of_sequence_.assign(sequences_.size(), -1);
  slots_.resize(batch.rows.size());
  step_count_ = 0;
  for (size_t i = 0; i < batch.rows.size(); ++i) {
    const Row& row = batch.rows[i];
    int32_t& index = step_of_sequence_[static_cast<size_t>(row.seq)];
    if (index < 0) {
      index = static_cast<int32_t>(step_count_++);
      if (steps_.size() < step_count_) steps_.emplace_back();
      StepSequence& fresh = steps_[static_cast<size_t>(index)];
      fresh.seq = row.seq;
      fresh.appended = fresh.scratch = 0;
      fresh.first_position = fresh.lowest_position = kMaxPosition;
      fresh.rows.clear();
      fresh.overwritten.clear();
      fresh.pages.clear();
    }
    StepSequence& step = steps_[static_cast<size_t>(index)];
    step.rows.push_back(static_cast<int32_t>(i));
    step.lowest_position = std::min<int64_t>(step.lowest_position, row.position);
    const int64_t length = sequences_[static_cast<size_t>(row.seq)].length;
    if (row.write == KvWrite::kAppend) {
      slots_[i] = static_cast<int32_t>(length + step.appended++);
      step.first_position = std::min<int64_t>(step.first_position, row.position);
    }
    if (row.write == KvWrite::kScratch) slots_[i] = static_cast<int32_t>(step.scratch++);  // moved up below
    if (row.write == KvWrite::kOverwrite) {
      slots_[i] = row.slot;
      step.overwritten.push_back(row.slot);
    }
  }
  for (size_t s = 0; s < step_count_; ++s) {
    StepSequence& step = steps_[s];
    const int64_t length = sequences_[static_cast<size_t>(step.seq)].length;
    for (int32_t i : step.rows) {
      if (batch.rows[static_cast<size_t>(i)].write == KvWrite::kScratch) {
        slots_[static_cast<size_t>(i)] += static_cast<int32_t>(length + step.appended);
      }
      step.pages.push_back(slots_[static_cast<size_t>(i)] / config_.page_slots);
    }
    std::sort(step.overwritten.begin(), step.overwritten.end());
    sort_unique(step.pages);
    step.slots = length + step.appended + step.scratch;
    step.tail_begin = step.overwritten.empty() ? length : step.overwritten.front();
  }
}

void KvCache::build_queries(const Batch& batch, StepSequence& step) const {
  const int64_t length = sequences_[static_cast<size_t>(step.seq)].length;
  const size_t words = static_cast<size_t>((step.slots - step.tail_begin + 63) / 64);
  step.queries.clear();
  step.tails.clear();
  bool in_order = batch.mask == nullptr && step.overwritten.empty();
  for (size_t i = 0; i < step.rows.size() && in_order; ++i) {
    in_order = slots_[static_cast<size_t>(step.rows[i])] == length + static_cast<int64_t>(i);
  }
  if (!in_order) step.tails.assign(words * step.rows.size(), 0);
  for (size_t i = 0; i < step.rows.size(); ++i) {
    const int32_t row = step.rows[i];
    QueryRow query{row, batch.rows[static_cast<size_t>(row)].position, length + static_cast<int64_t>(i) + 1};
    if (!in_order) {
      uint64_t* tail = step.tails.data() + i * words;
      const auto set = [&](int64_t slot) {
        const int64_t bit = slot - step.tail_begin;
        tail[bit / 64] |= uint64_t{1} << (bit % 64);
      };
      for (int64_t s = step.tail_begin; s < length; ++s) {
        if (!std::binary_search(step.overwritten.begin(), step.overwritten.end(), s)) set(s);
      }
      for (size_t j = 0; j < step.rows.size(); ++j) {
        const int32_t other = step.rows[j];
        const bool visible = batch.mask != nullptr ? batch.mask->visible(row, other) : j <= i;
        if (visible) set(slots_[static_cast<size_t>(other)]);
      }
      int64_t run = 0, ones = 0;  // a leading run of ones is a longer prefix
      for (size_t w = 0; w < words; ++w) ones += __builtin_popcountll(tail[w]);
      while (run < ones && ((tail[run / 64] >> (run % 64)) & 1u) != 0) ++run;
      query.prefix = run == ones ? step.tail_begin + run : step.tail_begin;
      query.tail = run == ones ? nullptr : tail;
    }
    step.queries.push_back(query);
  }
}

Status KvCache::check_positions(const Batch& batch, const StepSequence& step) {
  const Sequence& s = sequences_[static_cast<size_t>(step.seq)];
  bool dense = s.dense == s.length;
  for (int32_t row : step.rows) {
    dense = dense && batch.rows[static_cast<size_t>(row)].position == slots_[static_cast<size_t>(row)];
  }
  if (dense) {
    for (size_t i = 1; i < step.overwritten.size(); ++i)
      dense = dense && step.overwritten[i] != step.overwritten[i - 1];
    if (dense) return {};
  }
  int32_t highest = 0;
  for (int32_t p : s.positions) highest = std::max(highest, p);
  for (int32_t row : step.rows) highest = std::max(highest, batch.rows[static_cast<size_t>(row)].position);
  if (stamps_.size() <= static_cast<size_t>(highest)) stamps_.resize(static_cast<size_t>(highest) + 1, 0);
  if (stamp_ > UINT32_MAX - 2 - step.rows.size()) {
    std::fill(stamps_.begin(), stamps_.end(), 0);
    stamp_ = 0;
  }
  for (size_t i = 1; i < step.overwritten.size(); ++i) {
    if (step.overwritten[i] == step.overwritten[i - 1]) {
      return bad_usage("batch: slot {} of sequence {} is overwritten twice", step.overwritten[i], step.seq);
    }
  }
  const uint32_t committed = ++stamp_;
  for (int64_t slot = 0; slot < s.length; ++slot) {
    if (std::binary_search(step.overwritten.begin(), step.overwritten.end(), slot)) continue;
    uint32_t& stamp = stamps_[static_cast<size_t>(s.positions[static_cast<size_t>(slot)])];
    if (stamp == committed) {
      return bad_usage("KV cache: sequence {} holds position {} twice; compact or truncate it first",
                       step.seq, s.positions[static_cast<size_t>(slot)]);
    }
    stamp = committed;
  }
  for (size_t i = 0; i < step.rows.size(); ++i) {
    const uint32_t mine = ++stamp_;
    for (size_t j = 0; j < step.rows.size(); ++j) {
      const bool visible = batch.mask != nullptr ? batch.mask->visible(step.rows[i], step.rows[j]) : j <= i;
      if (!visible) continue;
      const int32_t position = batch.rows[static_cast<size_t>(step.rows[j])].position;
      uint32_t& stamp = stamps_[static_cast<size_t>(position)];
      if (stamp == committed || stamp == mine) {
        return bad_usage("batch row {}: sees position {} twice", step.rows[i], position);
      }
      stamp = mine;
    }
  }
  return {};
}

int64_t KvCache::pages_needed(const StepSequence& step) const {
  int64_t needed = 0;
  for (const PageList& list : sequences_[static_cast<size_t>(step.seq)].lists) {
    for (int64_t page : step.pages) needed += writable(list, page) ? 0 : 1;
  }
  return needed;
}

int64_t KvCache::append_pages(SeqId seq, int64_t rows) const {
  METE_CHECK(check_sequence(seq));
  const Sequence& s = sequences_[static_cast<size_t>(seq)];
  if (rows == 0) return 0;
  int64_t needed = 0;
  for (const PageList& list : s.lists) {
    for (int64_t page = s.length / config_.page_slots; page * config_.page_slots < s.length + rows; ++page) {
      needed += writable(list, page) ? 0 : 1;
    }
  }
  return needed;
}

void KvCache::commit_step(const Batch& batch, const StepSequence& step) {
  Sequence& s = sequences_[static_cast<size_t>(step.seq)];
  for (PageList& list : s.lists) {
    for (int64_t page : step.pages) make_writable(list, page);
    if (list.valid.empty()) continue;
    for (int64_t slot : step.overwritten) {  // an overwritten slot is visible again
      list.valid[static_cast<size_t>(slot / config_.page_slots)] |= 1u << (slot % config_.page_slots);
    }
  }
  s.step_begin = s.length;
  s.length += step.appended;
  s.positions.resize(static_cast<size_t>(step.slots));
  for (int32_t row : step.rows) {
    const int32_t slot = slots_[static_cast<size_t>(row)];
    s.positions[static_cast<size_t>(slot)] = batch.rows[static_cast<size_t>(row)].position;
    if (s.positions[static_cast<size_t>(slot)] != slot) s.dense = std::min<int64_t>(s.dense, slot);
  }
  while (s.dense < step.slots && s.positions[static_cast<size_t>(s.dense)] == s.dense) ++s.dense;
}

Status KvCache::begin_step(const Batch& batch) {
  METE_CHECK(!open_);
  if (Status s = check_rows(batch); !s) return s;
  group_rows(batch);
  int64_t pages = 0, slots = 0;
  for (size_t i = 0; i < step_count_; ++i) {
    build_queries(batch, steps_[i]);
    if (Status s = check_positions(batch, steps_[i]); !s) return s;
  }
  for (size_t i = 0; i < step_count_; ++i) {
    free_hidden(sequences_[static_cast<size_t>(steps_[i].seq)], steps_[i].lowest_position);
    pages += pages_needed(steps_[i]);
    slots += steps_[i].appended + steps_[i].scratch;
  }
  if (pages > pool_.free_pages()) {  // what others keep for taking back their last step
    for (size_t i = 0; i < sequences_.size(); ++i) {
      if (sequences_[i].live && step_of_sequence_[i] < 0) settle(static_cast<SeqId>(i));
    }
  }
  if (pages > pool_.free_pages()) {
    return run_failure("KV cache: the step needs {} slots ({} pages), {} slots ({} pages) are free", slots,
                       pages, free_slots(), pool_.free_pages());
  }
  for (size_t i = 0; i < step_count_; ++i) commit_step(batch, steps_[i]);
  open_ = true;
  access_->open(batch);
  return {};
}

void KvCache::end_step() {
  METE_CHECK(open_);
  open_ = false;
  for (size_t i = 0; i < step_count_; ++i) {
    Sequence& s = sequences_[static_cast<size_t>(steps_[i].seq)];
    if (!s.live) continue;
    if (static_cast<int64_t>(s.positions.size()) > s.length) cut(s, s.length);
    // Not beyond the step's first row: all of the step can be taken back.
    if (steps_[i].appended > 0) free_hidden(s, steps_[i].first_position);
  }
}

}  // namespace mete
