#include "ops/attend.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>
#include <new>
#include <numeric>

namespace mete {
namespace {

constexpr int64_t kMaxBlock = 16;      // at least AttentionKernels::block
constexpr int64_t kTaskVectors = 192;  // query vectors that share one decoding of a split
constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/// Hands out 64-byte aligned arrays of one buffer; with a null base it only measures.
struct Carver {
  uint8_t* base;
  size_t used = 0;
  template <typename T>
  T* take(int64_t count) {
    T* result = base == nullptr ? nullptr : reinterpret_cast<T*>(base + used);
    used += (static_cast<size_t>(count) * sizeof(T) + 63) / 64 * 64;
    return result;
  }
};

/// The keys of one Spec in splits. Splits below dense_splits are read in place: tile t holds the positions
/// 16 t .. 16 t + 15. The others list their slots in order of position (token lists: list order).
struct View {
  const Spec* spec;
  int64_t splits, dense_splits;
  int64_t entries;  // capacity of order
  int32_t* order;   // slots (token lists: list indices)
  int32_t* begins;  // [splits - dense_splits + 1]
};

int64_t position_of(const Spec& spec, int64_t slot) {
  return spec.positions == nullptr ? slot : spec.positions[slot];
}
bool is_valid(const Spec& spec, int64_t page_slots, int64_t slot) {
  return spec.valid == nullptr || ((spec.valid[slot / page_slots] >> (slot % page_slots)) & 1u) != 0;
}

View measure(const Spec& spec) {
  View view{&spec, 0, 0, 0, nullptr, nullptr};
  if (spec.tokens != nullptr) {
    view.splits = ceil_div(spec.token_count, kSplitKeys);
    view.entries = spec.token_count;
    return view;
  }
  int64_t end = spec.dense, low = spec.dense;
  for (int64_t s = spec.dense; s < spec.slots; ++s) {
    const int64_t p = position_of(spec, s);
    end = std::max(end, p + 1);
    low = std::min(low, p);
  }
  view.splits = ceil_div(end, kSplitKeys);
  view.dense_splits = spec.dense == spec.slots ? view.splits : low / kSplitKeys;
  view.entries = std::max<int64_t>(0, spec.slots - view.dense_splits * kSplitKeys);
  return view;
}

/// Fills order and begins.
void list_keys(View& view, int64_t page_slots) {
  const Spec& spec = *view.spec;
  const int64_t listed = view.splits - view.dense_splits;
  int32_t* end = view.order;
  if (spec.tokens != nullptr) {
    for (int64_t i = 0; i < spec.token_count; ++i) *end++ = static_cast<int32_t>(i);
  } else {
    for (int64_t s = view.dense_splits * kSplitKeys; s < spec.slots; ++s) {
      if (is_valid(spec, page_slots, s)) *end++ = static_cast<int32_t>(s);
    }
    const auto before = [&](int32_t a, int32_t b) {
      const int64_t pa = position_of(spec, a), pb = position_of(spec, b);
      return pa != pb ? pa < pb : a < b;
    };
    if (!std::is_sorted(view.order, end, before)) std::sort(view.order, end, before);
  }
  const int64_t count = end - view.order;
  int64_t next = 0;
  for (int64_t i = 0; i <= listed; ++i) {
    const int64_t limit = (view.dense_splits + i) * kSplitKeys;
    while (next < count && (spec.tokens != nullptr ? next : position_of(spec, view.order[next])) < limit)
      ++next;
    view.begins[i] = static_cast<int32_t>(next);
  }
}

/// Some rows of one job for one KV head.
struct Task {
  const AttendJob* job;
  const View* view;
  int64_t kv_head;
  int64_t row_begin, row_end;
  int64_t split_begin, split_end;
  int64_t first_unit;  // units (task, split) before this task's
  int64_t first_raw;   // vectors of split results before this task's
};

/// One worker's buffers; floats unless said.
struct Worker {
  float *scores, *keys, *values, *q, *row_q, *log_weights;
  float *o, *m, *l;                    // results of one split
  float *total_o, *total_m, *total_l;  // folded
  uint16_t* masks;                     // [rows][kSplitTiles]
  const uint16_t** mask_of_vector;
  const Task* packed;  // whose q is packed
};

struct Call {
  Context& ctx;
  const KvLayout& layout;
  const AttendParams& params;
  const float* q;
  float* out;
  float* lse;
  int64_t group, stride, task_rows;
  Worker* workers;
  View* views;
  Task* tasks;
  int64_t task_count, unit_count, raw_vectors;
  float *raw_o, *raw_m, *raw_l;  // split results, when splits run in parallel
  std::atomic<int64_t>* done;    // finished splits per task
  const float* zeros;            // [stride]
};

void carve_worker(Carver& carver, const Call& call, Worker& w) {
  const int64_t vectors = call.task_rows * call.group, head_dim = call.layout.head_dim;
  w.scores = carver.take<float>(static_cast<int64_t>(attention_scratch_floats()));
  w.keys = carver.take<float>(kSplitKeys * head_dim);
  w.values = carver.take<float>(kSplitKeys * call.stride);
  w.q = carver.take<float>(vectors * head_dim);
  w.row_q = carver.take<float>(call.group * head_dim);
  w.log_weights = carver.take<float>(kSplitKeys);
  w.o = carver.take<float>(vectors * call.stride);
  w.m = carver.take<float>(vectors);
  w.l = carver.take<float>(vectors);
  w.total_o = carver.take<float>(vectors * call.stride);
  w.total_m = carver.take<float>(vectors);
  w.total_l = carver.take<float>(vectors);
  w.masks = carver.take<uint16_t>(call.task_rows * kSplitTiles);
  w.mask_of_vector = carver.take<const uint16_t*>(vectors);
  w.packed = nullptr;
}

/// q of vectors [first, first + count) of the task as [head_dim][count].
void pack_queries(const Call& call, const Task& task, int64_t first, int64_t count, float* packed) {
  const float* rows[kMaxBlock];
  for (int64_t i = 0; i < count; ++i) {
    const int64_t v = first + i;
    const int64_t row = task.job->rows[static_cast<size_t>(task.row_begin + v / call.group)].row;
    const int64_t head = task.kv_head * call.group + v % call.group;
    rows[i] = call.q + (row * call.params.heads + head) * call.layout.head_dim;
  }
  call.ctx.kernels.attention.pack_queries(rows, count, call.layout.head_dim, packed);
}

bool sees(const QueryRow& row, int64_t tail_begin, int64_t slot) {
  if (slot < row.prefix) return true;
  if (row.tail == nullptr || slot < tail_begin) return false;
  const int64_t bit = slot - tail_begin;
  return ((row.tail[bit / 64] >> (bit % 64)) & 1u) != 0;
}

int64_t lowest_position(const Call& call, const QueryRow& row) {
  if (call.params.window <= 0) return 0;
  return std::max<int64_t>(0, static_cast<int64_t>(row.position) - call.params.window + 1);
}

/// Lanes of a dense split that a row sees.
void dense_masks(const Call& call, const Task& task, int64_t split, const QueryRow& row, uint16_t* mask) {
  const int64_t base = split * kSplitKeys, low = lowest_position(call, row);
  for (int t = 0; t < kSplitTiles; ++t) {
    const int64_t begin = std::clamp<int64_t>(low - base - t * 16, 0, 16);
    const int64_t end =
        std::clamp<int64_t>(std::min(row.prefix, task.view->spec->slots) - base - t * 16, 0, 16);
    mask[t] = begin < end ? static_cast<uint16_t>((1u << end) - (1u << begin)) : uint16_t{0};
  }
  if (row.tail == nullptr) return;
  const int64_t stop = std::min(base + kSplitKeys, task.view->spec->slots);
  for (int64_t s = std::max({base, task.job->tail_begin, low}); s < stop; ++s) {
    if (!sees(row, task.job->tail_begin, s)) continue;
    uint16_t& bits = mask[(s - base) / 16];
    bits = static_cast<uint16_t>(bits | (1u << (s % 16)));
  }
}

/// The K and V tiles of the slot.
struct Tiles {
  const uint8_t *keys, *values;
};
Tiles tiles_of(const Call& call, const Spec& spec, int64_t slot) {
  const KvLayout& layout = call.layout;
  const uint8_t* page = spec.pages[slot / layout.page_slots];
  const size_t tile = static_cast<size_t>(slot % layout.page_slots / kTileSlots);
  return {page + tile * layout.key_tile(),
          page + static_cast<size_t>(layout.page_slots / kTileSlots) * layout.key_tile() +
              tile * layout.value_tile()};
}

/// The split that the worker will probably read next, to be prefetched; task null: unknown.
struct NextSplit {
  const Task* task;
  int64_t split;
};

/// Tile t of the next split; `own` if there is none in place.
Tiles next_tiles(const Call& call, const NextSplit& next, int t, const Tiles& own) {
  if (next.task == nullptr || next.split >= next.task->view->dense_splits) return own;
  const Spec& spec = *next.task->view->spec;
  const int64_t slot = next.split * kSplitKeys + t * 16;
  return slot < spec.slots && spec.pages[slot / call.layout.page_slots] != nullptr
             ? tiles_of(call, spec, slot)
             : own;
}

void prefetch(const uint8_t* p, size_t bytes) {
  for (size_t i = 0; i < bytes; i += 64) __builtin_prefetch(p + i, 0, 2);
}

void point_at_scratch(const Call& call, const Worker& w, SplitArgs& args) {
  args.key_type = args.value_type = KvType::kF32;
  for (int t = 0; t < kSplitTiles; ++t) {
    args.keys[t] = reinterpret_cast<const uint8_t*>(w.keys + t * 16 * call.layout.head_dim);
    args.values[t] = reinterpret_cast<const uint8_t*>(w.values + t * 16 * call.stride);
  }
}

/// Runs the kernel for vectors [begin, end) of the task, in blocks, with the masks at w.mask_of_vector.
void run_vectors(const Call& call, const Task& task, int64_t begin, int64_t end, float* q, bool pack,
                 Worker& w, SplitArgs& args, float* o, float* m, float* l) {
  const int64_t block = call.ctx.kernels.attention.block;
  for (int64_t first = begin; first < end; first += block) {
    float* packed = q + (first - begin) * call.layout.head_dim;
    args.vectors = std::min(block, end - first);
    if (pack) pack_queries(call, task, first, args.vectors, packed);
    args.q = packed;
    args.masks = w.mask_of_vector + (first - begin);
    args.o = o + first * call.stride;
    args.m = m + first;
    args.l = l + first;
    call.ctx.kernels.attention.split(args);
  }
}

/// All vectors of the task; w.masks holds the rows' masks.
void run_rows(const Call& call, const Task& task, Worker& w, SplitArgs& args, float* o, float* m, float* l) {
  const int64_t vectors = (task.row_end - task.row_begin) * call.group;
  for (int64_t v = 0; v < vectors; ++v) w.mask_of_vector[v] = w.masks + v / call.group * kSplitTiles;
  run_vectors(call, task, 0, vectors, w.q, w.packed != &task, w, args, o, m, l);
  w.packed = &task;
}

/// Decodes tile t of the values into scratch; values that lie in keys follow from the decoded keys.
void decode_values(const Call& call, Worker& w, int t, const uint8_t* tile) {
  const AttentionKernels& kernels = call.ctx.kernels.attention;
  const int64_t width = call.layout.value_dim();
  float* out = w.values + t * kTileSlots * call.stride;
  if (call.layout.value_in_key) {
    kernels.values_of_keys(w.keys + t * kTileSlots * call.layout.head_dim, width, out);
  } else {
    kernels.expand_values(call.layout.value_type, tile, width, out);
  }
}

void dense_split(const Call& call, const Task& task, int64_t split, const NextSplit& next, Worker& w,
                 SplitArgs& args, float* o, float* m, float* l) {
  const Spec& spec = *task.view->spec;
  const AttentionKernels& kernels = call.ctx.kernels.attention;
  const int64_t rows = task.row_end - task.row_begin;
  uint16_t any[kSplitTiles] = {};
  for (int64_t r = 0; r < rows; ++r) {
    uint16_t* mask = w.masks + r * kSplitTiles;
    dense_masks(call, task, split, task.job->rows[static_cast<size_t>(task.row_begin + r)], mask);
    for (int t = 0; t < kSplitTiles; ++t) any[t] = static_cast<uint16_t>(any[t] | mask[t]);
  }
  if (spec.log_weights != nullptr) {
    const int64_t count = std::min<int64_t>(kSplitKeys, spec.slots - split * kSplitKeys);
    std::memcpy(w.log_weights, spec.log_weights + split * kSplitKeys,
                static_cast<size_t>(count) * sizeof(float));
    args.log_weights = w.log_weights;
  }
  // Several blocks share one decoding of the tiles; a single block decodes in registers.
  const bool expand = call.layout.value_in_key || rows * call.group > kernels.block;
  if (expand) point_at_scratch(call, w, args);
  for (int t = 0; t < kSplitTiles; ++t) {
    if (any[t] == 0) continue;
    const Tiles tiles = tiles_of(call, spec, split * kSplitKeys + t * 16);
    const Tiles later = next_tiles(call, next, t, tiles);
    if (expand) {
      kernels.expand_keys(call.layout.key_type, tiles.keys, call.layout.head_dim,
                          w.keys + t * 16 * call.layout.head_dim);
      decode_values(call, w, t, tiles.values);
      prefetch(later.keys, call.layout.key_tile());
      prefetch(later.values, call.layout.value_tile());
    } else {
      args.keys[t] = tiles.keys;
      args.values[t] = tiles.values;
      args.next_keys[t] = later.keys;
      args.next_values[t] = later.values;
    }
  }
  run_rows(call, task, w, args, o, m, l);
}

/// Place of entry i of the view's order in its split, 0 .. 255.
int64_t place_of(const View& view, int64_t i) {
  return (view.spec->tokens != nullptr ? i : position_of(*view.spec, view.order[i])) % kSplitKeys;
}

bool entry_visible(const Call& call, const Task& task, const QueryRow& row, int64_t slot) {
  return sees(row, task.job->tail_begin, slot) &&
         position_of(*task.view->spec, slot) >= lowest_position(call, row);
}

/// Gathers entries [begin, end) that rows [row_begin, row_end) of the task see into the scratch tiles and
/// sets the rows' masks, at w.masks.
void gather(const Call& call, const Task& task, Worker& w, int64_t begin, int64_t end, int64_t row_begin,
            int64_t row_end) {
  const View& view = *task.view;
  const Spec& spec = *view.spec;
  const AttentionKernels& kernels = call.ctx.kernels.attention;
  uint32_t touched = 0;  // tiles whose values must follow from their keys
  std::memset(w.masks, 0, static_cast<size_t>((row_end - row_begin) * kSplitTiles) * sizeof(uint16_t));
  for (int64_t i = begin; i < end; ++i) {
    const int64_t slot = spec.tokens != nullptr ? spec.tokens[view.order[i]] : view.order[i];
    const int64_t place = place_of(view, i);
    const int64_t tile = place / 16;
    const int lane = static_cast<int>(place % 16), in_tile = static_cast<int>(slot % kTileSlots);
    bool any = false;
    for (int64_t r = row_begin; r < row_end; ++r) {
      if (!entry_visible(call, task, task.job->rows[static_cast<size_t>(r)], slot)) continue;
      uint16_t& bits = w.masks[(r - row_begin) * kSplitTiles + tile];
      bits = static_cast<uint16_t>(bits | (1u << lane));
      any = true;
    }
    if (!any) continue;
    const Tiles tiles = tiles_of(call, spec, slot);
    kernels.gather_key(call.layout.key_type, tiles.keys, in_tile, call.layout.head_dim, lane,
                       w.keys + tile * 16 * call.layout.head_dim);
    if (call.layout.value_in_key) {
      touched |= 1u << tile;
    } else {
      kernels.gather_value(call.layout.value_type, tiles.values, in_tile, call.layout.value_dim(), lane,
                           w.values + tile * 16 * call.stride);
    }
    if (spec.log_weights != nullptr) {
      w.log_weights[place] = spec.log_weights[spec.tokens != nullptr ? view.order[i] : slot];
    }
  }
  for (int t = 0; t < kSplitTiles; ++t) {
    if (((touched >> t) & 1u) != 0) decode_values(call, w, t, nullptr);
  }
}

void gathered_split(const Call& call, const Task& task, int64_t split, Worker& w, SplitArgs& args, float* o,
                    float* m, float* l) {
  const View& view = *task.view;
  const int64_t index = split - view.dense_splits;
  const int64_t begin = view.begins[index], end = view.begins[index + 1];
  point_at_scratch(call, w, args);
  if (view.spec->log_weights != nullptr) args.log_weights = w.log_weights;
  bool distinct = true;
  for (int64_t i = begin + 1; i < end; ++i) distinct = distinct && place_of(view, i) != place_of(view, i - 1);
  if (distinct) {
    gather(call, task, w, begin, end, task.row_begin, task.row_end);
    run_rows(call, task, w, args, o, m, l);
    return;
  }
  // Branches of a tree share positions: each row has tiles of its own.
  for (int64_t r = task.row_begin; r < task.row_end; ++r) {
    const int64_t first = (r - task.row_begin) * call.group;
    gather(call, task, w, begin, end, r, r + 1);
    for (int64_t g = 0; g < call.group; ++g) w.mask_of_vector[g] = w.masks;
    run_vectors(call, task, first, first + call.group, w.row_q, true, w, args, o, m, l);
  }
}

/// Results of one split for all vectors of a task: o [vectors][stride], m, l [vectors].
void run_split(const Call& call, const Task& task, int64_t split, const NextSplit& next, Worker& w, float* o,
               float* m, float* l) {
  SplitArgs args{};
  args.key_type = call.layout.key_type;
  args.value_type = call.layout.value_type;
  args.head_dim = call.layout.head_dim;
  args.value_dim = call.layout.value_dim();
  args.scale = call.params.scale;
  args.softcap = call.params.softcap;
  args.scores = w.scores;
  if (split < task.view->dense_splits) {
    dense_split(call, task, split, next, w, args, o, m, l);
  } else {
    gathered_split(call, task, split, w, args, o, m, l);
  }
}

void fold_split(const Call& call, int64_t vectors, Worker& w, const float* o, const float* m,
                const float* l) {
  for (int64_t v = 0; v < vectors; ++v) {
    call.ctx.kernels.attention.fold(w.total_o + v * call.stride, w.total_m + v, w.total_l + v,
                                    o + v * call.stride, m[v], l[v], call.stride);
  }
}

void finish_task(const Call& call, const Task& task, Worker& w) {
  const AttentionKernels& kernels = call.ctx.kernels.attention;
  const int64_t vectors = (task.row_end - task.row_begin) * call.group, width = call.layout.value_dim();
  for (int64_t v = 0; v < vectors; ++v) {
    float *o = w.total_o + v * call.stride, *m = w.total_m + v, *l = w.total_l + v;
    const int64_t row = task.job->rows[static_cast<size_t>(task.row_begin + v / call.group)].row;
    const int64_t head = task.kv_head * call.group + v % call.group, at = row * call.params.heads + head;
    for (const Partial& p : call.params.partials) {
      kernels.fold(o, m, l, p.o + at * width, p.lse[at], p.lse[at] == kMinusInfinity ? 0.0f : 1.0f, width);
    }
    if (call.params.sinks != nullptr) kernels.fold(o, m, l, call.zeros, call.params.sinks[head], 1.0f, width);
    const float lse = kernels.finish(o, *m, *l, width, call.out + at * width);
    if (call.lse != nullptr) call.lse[at] = lse;
  }
}

void clear_totals(const Call& call, Worker& w) {
  std::memset(w.total_l, 0, static_cast<size_t>(call.task_rows * call.group) * sizeof(float));
}

/// The split after this one, of the same or the next task.
NextSplit split_after(const Call& call, const Task& task, int64_t split) {
  if (split + 1 < task.split_end) return {&task, split + 1};
  const Task* next = &task + 1;
  if (next == call.tasks + call.task_count) return {nullptr, 0};
  return {next, next->split_begin};
}

/// All splits of a task one after the other.
void run_task(const Call& call, const Task& task, Worker& w) {
  const int64_t vectors = (task.row_end - task.row_begin) * call.group;
  clear_totals(call, w);
  for (int64_t s = task.split_begin; s < task.split_end; ++s) {
    const NextSplit next = split_after(call, task, s);
    run_split(call, task, s, next, w, w.o, w.m, w.l);
    fold_split(call, vectors, w, w.o, w.m, w.l);
  }
  finish_task(call, task, w);
}

/// One split of a task; whoever finishes the task's last split folds them all, in ascending order.
void run_unit(const Call& call, const Task& task, int64_t split, Worker& w) {
  const int64_t vectors = (task.row_end - task.row_begin) * call.group;
  const int64_t count = task.split_end - task.split_begin;
  if (count > 0) {
    const int64_t at = task.first_raw + (split - task.split_begin) * vectors;
    const NextSplit next = split_after(call, task, split);
    run_split(call, task, split, next, w, call.raw_o + at * call.stride, call.raw_m + at, call.raw_l + at);
    if (call.done[&task - call.tasks].fetch_add(1, std::memory_order_acq_rel) + 1 < count) return;
  }
  clear_totals(call, w);
  for (int64_t s = 0; s < count; ++s) {
    const int64_t at = task.first_raw + s * vectors;
    fold_split(call, vectors, w, call.raw_o + at * call.stride, call.raw_m + at, call.raw_l + at);
  }
  finish_task(call, task, w);
}

/// Splits that some row of the task may see.
void set_splits(const Call& call, Task& task) {
  const View& view = *task.view;
  task.split_begin = 0;
  task.split_end = view.splits;
  if (view.spec->tokens != nullptr) return;
  int64_t low = std::numeric_limits<int64_t>::max(), prefix = 0;
  bool tail = false;
  for (int64_t r = task.row_begin; r < task.row_end; ++r) {
    const QueryRow& row = task.job->rows[static_cast<size_t>(r)];
    low = std::min(low, lowest_position(call, row));
    prefix = std::max(prefix, row.prefix);
    tail = tail || row.tail != nullptr;
  }
  if (view.dense_splits == view.splits && !tail) {
    task.split_end = std::min(view.splits, ceil_div(prefix, kSplitKeys));
  }
  task.split_begin = std::min(low / kSplitKeys, task.split_end);
}

int64_t count_tasks(const Call& call, std::span<const AttendJob> jobs) {
  int64_t count = 0;
  for (const AttendJob& job : jobs) {
    count += call.params.kv_heads * ceil_div(static_cast<int64_t>(job.rows.size()), call.task_rows);
  }
  return count;
}

/// Lays all buffers out, views and tasks filled if the carver has memory.
void lay_out(Carver& carver, Call& call, std::span<const AttendJob> jobs) {
  const int64_t kv_heads = call.params.kv_heads, threads = call.ctx.pool.size();
  call.workers = carver.take<Worker>(threads);
  for (int64_t i = 0; i < threads; ++i) {
    Worker w;
    carve_worker(carver, call, w);
    if (call.workers != nullptr) call.workers[i] = w;
  }
  float* zeros = carver.take<float>(call.stride);
  if (zeros != nullptr) std::memset(zeros, 0, static_cast<size_t>(call.stride) * sizeof(float));
  call.zeros = zeros;
  call.views = carver.take<View>(static_cast<int64_t>(jobs.size()) * kv_heads);
  call.task_count = count_tasks(call, jobs);
  call.tasks = carver.take<Task>(call.task_count);
  call.done = carver.take<std::atomic<int64_t>>(call.task_count);
  call.unit_count = call.raw_vectors = 0;
  int64_t view_index = 0, task_index = 0;
  for (const AttendJob& job : jobs) {
    const int64_t rows = static_cast<int64_t>(job.rows.size());
    for (int64_t head = 0; head < kv_heads; ++head, ++view_index) {
      View view = measure(job.specs[head]);
      view.order = carver.take<int32_t>(view.entries);
      view.begins = carver.take<int32_t>(view.splits - view.dense_splits + 1);
      const View* at = &view;
      if (call.views != nullptr) {
        list_keys(view, call.layout.page_slots);
        call.views[view_index] = view;
        at = call.views + view_index;
      }
      // Last rows first: they see most, and the longest tasks should start first.
      for (int64_t end = rows; end > 0; ++task_index) {
        const int64_t begin = (end - 1) / call.task_rows * call.task_rows;
        Task task{&job, at, head, begin, end, 0, 0, call.unit_count, call.raw_vectors};
        set_splits(call, task);
        const int64_t splits = task.split_end - task.split_begin;
        call.unit_count += std::max<int64_t>(1, splits);
        call.raw_vectors += splits * (end - begin) * call.group;
        if (call.tasks != nullptr) {
          call.tasks[task_index] = task;
          new (call.done + task_index) std::atomic<int64_t>(0);
        }
        end = begin;
      }
    }
  }
}

/// Bytes of K and V that the tasks read from memory, each split of a view once (row blocks after the first
/// find it in cache).
int64_t bytes_read(const Call& call) {
  int64_t slots = 0;
  for (int64_t i = 0; i < call.task_count;) {
    const View* view = call.tasks[i].view;
    int64_t begin = call.tasks[i].split_begin, end = call.tasks[i].split_end;
    for (; i < call.task_count && call.tasks[i].view == view; ++i) {
      begin = std::min(begin, call.tasks[i].split_begin);
      end = std::max(end, call.tasks[i].split_end);
    }
    const int64_t count = view->spec->tokens != nullptr ? view->spec->token_count : view->spec->slots;
    slots += std::min((end - begin) * kSplitKeys, std::max<int64_t>(0, count - begin * kSplitKeys));
  }
  return slots * static_cast<int64_t>(call.layout.page_bytes()) / call.layout.page_slots;
}

}  // namespace

int64_t attend_scratch_bytes(const AttendShape& shape, int64_t split_bytes) {
  const int64_t group = shape.heads / shape.kv_heads, head_dim = shape.layout.head_dim;
  const int64_t stride = value_stride(shape.layout.value_dim());
  const int64_t task_rows = std::min(shape.rows, std::max<int64_t>(1, kTaskVectors / group));
  const int64_t vectors = task_rows * group, tasks = shape.kv_heads * ceil_div(shape.rows, task_rows);
  // As carve_worker() takes it.
  const int64_t floats = static_cast<int64_t>(attention_scratch_floats()) +
                         kSplitKeys * (head_dim + stride + 1) + vectors * (head_dim + 2 * stride + 4) +
                         group * head_dim;
  const int64_t worker = 4 * floats + task_rows * kSplitTiles * 2 + vectors * 8 + 14 * 64;
  // Results of splits are kept apart only where there are few tasks.
  const int64_t few = std::min(4 * shape.threads - 1, tasks);
  const int64_t raw = few * vectors * ceil_div(shape.context, kSplitKeys) * (stride + 2) * 4;
  return shape.threads * worker + tasks * 128 + shape.kv_heads * 128 +
         (shape.threads > 1 ? std::min(raw, split_bytes) : 0);
}

void attend(Context& ctx, const KvLayout& layout, const AttendParams& params, std::span<const AttendJob> jobs,
            const float* q, float* out, float* lse) noexcept {
  ctx.enter(Part::kAttention);
  Call call{ctx,
            layout,
            params,
            q,
            out,
            lse,
            params.heads / params.kv_heads,
            value_stride(layout.value_dim()),
            0,
            nullptr,
            nullptr,
            nullptr,
            0,
            0,
            0,
            nullptr,
            nullptr,
            nullptr,
            nullptr,
            nullptr};
  int64_t longest = 1;
  for (const AttendJob& job : jobs) longest = std::max(longest, static_cast<int64_t>(job.rows.size()));
  // Whole blocks if there are rows enough.
  const int64_t step =
      ctx.kernels.attention.block / std::gcd<int64_t>(ctx.kernels.attention.block, call.group);
  const int64_t most = std::max<int64_t>(1, kTaskVectors / call.group);
  call.task_rows = std::min(longest, most >= step ? most / step * step : most);
  Carver carver{nullptr};
  lay_out(carver, call, jobs);
  const size_t raw_bytes = static_cast<size_t>(call.raw_vectors * (call.stride + 2)) * sizeof(float);
  const bool by_split = ctx.pool.size() > 1 && call.task_count < 4 * ctx.pool.size() &&
                        call.unit_count > call.task_count && raw_bytes <= ctx.attention_split_bytes;
  carver = {ctx.attention.get(carver.used + (by_split ? raw_bytes + 256 : 0))};
  lay_out(carver, call, jobs);
  if (ctx.ledger != nullptr) ctx.ledger->read(bytes_read(call));
  // Vector FMAs, roughly; below some microseconds of them a fork-join does not pay.
  const bool tiny = call.raw_vectors * kSplitKeys * layout.head_dim / 8 < 32768;
  if (!by_split) {
    const int64_t grain = tiny ? call.task_count : 1;
    ctx.pool.parallel_for(call.task_count, grain, [&](int64_t begin, int64_t end, int worker) {
      for (int64_t i = begin; i < end; ++i) run_task(call, call.tasks[i], call.workers[worker]);
    });
    return;
  }
  call.raw_o = carver.take<float>(call.raw_vectors * call.stride);
  call.raw_m = carver.take<float>(call.raw_vectors);
  call.raw_l = carver.take<float>(call.raw_vectors);
  // Runs of splits, so that a worker finds its next one prefetched.
  const int64_t grain =
      tiny ? call.unit_count : std::max<int64_t>(1, call.unit_count / (8 * ctx.pool.size()));
  ctx.pool.parallel_for(call.unit_count, grain, [&](int64_t begin, int64_t end, int worker) {
    const Task* task = call.tasks;
    for (int64_t i = begin; i < end; ++i) {
      while (task + 1 < call.tasks + call.task_count && task[1].first_unit <= i) ++task;
      run_unit(call, *task, task->split_begin + (i - task->first_unit), call.workers[worker]);
    }
  });
}

}  // namespace mete
