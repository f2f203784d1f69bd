// Attention over pages or token lists: attend(q, Spec) -> (o, log-sum-exp). Definitions in docs/numerics.md.
#pragma once

#include <cstdint>
#include <span>

#include "base/error.h"
#include "ops/context.h"

namespace mete {

/// Geometry of a page: page_slots slots of one KV head as tiles of 16: all K tiles, then all V tiles, if
/// values are stored at all.
struct KvLayout {
  KvType key_type = KvType::kF16, value_type = KvType::kF16;
  int64_t head_dim = 0;     ///< of keys and queries
  int64_t page_slots = 32;  ///< multiple of 16
  int64_t value_width = 0;  ///< of values; 0: head_dim
  /// A key's first value_dim() elements are its value (the latent of MLA): no V tiles.
  bool value_in_key = false;

  int64_t value_dim() const { return value_width > 0 ? value_width : head_dim; }

  size_t key_tile() const { return key_tile_bytes(key_type, head_dim); }
  size_t value_tile() const { return value_in_key ? 0 : value_tile_bytes(value_type, value_dim()); }
  size_t page_bytes() const {
    return static_cast<size_t>(page_slots / kTileSlots) * (key_tile() + value_tile());
  }
  /// kUsage if a width does not fit its codec (kQ8_0: a multiple of 32), page_slots is not 16 or 32, or
  /// values lie in keys and are wider or have another codec.
  Status check() const;
};

/// What the query heads of one KV head attend to: the slots of some pages, or a list of them.
struct Spec {
  uint8_t* const* pages = nullptr;     ///< page i holds slots [i * page_slots, (i + 1) * page_slots)
  int64_t slots = 0;                   ///< slots in use
  const int32_t* positions = nullptr;  ///< [slots]; null: slot i holds position i
  const uint32_t* valid = nullptr;     ///< per page, bit = slot in the page; null: all valid
  /// Leading slots that are valid and hold their own index as position: those need no gathering.
  int64_t dense = 0;
  const int32_t* tokens =
      nullptr;  ///< null: all valid slots, ordered by position; else these slots, in order
  int64_t token_count = 0;
  const float* log_weights =
      nullptr;  ///< added to the scores: [slots], or [token_count] with `tokens`; or null
};

/// One query row (token). It sees slot s if s < prefix, or if tail is set and bit s - tail_begin of it is;
/// and if the window allows its position. Its visible keys have distinct positions.
struct QueryRow {
  int32_t row;       ///< index into q, out and lse
  int32_t position;  ///< for the window
  int64_t prefix;    ///< <= tail_begin of the job if tail is set
  const uint64_t* tail = nullptr;
};

/// A result to merge: [rows][heads * value_dim] normalised outputs and [rows][heads] log-sum-exps.
struct Partial {
  const float* o;
  const float* lse;
};

/// Rows of one sequence. specs: one per KV head.
struct AttendJob {
  std::span<const QueryRow> rows;
  const Spec* specs;
  int64_t tail_begin = 0;
};

struct AttendParams {
  int64_t heads = 0, kv_heads = 0;
  float scale = 1.0f;
  float softcap = 0.0f;          ///< > 0: cap * tanh(score / cap)
  int32_t window = 0;            ///< > 0: key at position p is visible to a query at P if p > P - window
  const float* sinks = nullptr;  ///< [heads] or null
  std::span<const Partial> partials{};  ///< merged after the keys, in order
};

struct AttendShape {
  KvLayout layout;
  int64_t heads = 1, kv_heads = 1;
  int64_t rows = 1;     ///< of a step
  int64_t context = 1;  ///< longest sequence
  int64_t threads = 1;
};
/// About the most scratch that attend() takes, with Context::attention_split_bytes. Sequences with dropped
/// slots or trees take 4 bytes per slot and KV head more.
int64_t attend_scratch_bytes(const AttendShape& shape, int64_t split_bytes);

/// q: [rows][heads * head_dim]; out: [rows][heads * value_dim]; lse: [rows][heads] or null. Nothing visible:
/// o = 0, lse = -infinity.
void attend(Context& ctx, const KvLayout& layout, const AttendParams& params, std::span<const AttendJob> jobs,
            const float* q, float* out, float* lse) noexcept;

}  // namespace mete
