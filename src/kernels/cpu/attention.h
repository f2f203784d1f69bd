// Attention kernels: one KV head, one split of at most 256 keys, a block of query vectors. C-only header:
// tier files include it. Definitions in docs/numerics.md, "Attention".
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace mete {

/// How K or V elements are stored. kF32 is for scratch tiles only.
enum class KvType { kF32, kF16, kBF16, kQ8_0 };

constexpr int kTileSlots = 16;   ///< slots of a tile: keys side by side in SIMD lanes
constexpr int kSplitKeys = 256;  ///< keys of a split; a constant of the numerics, not of the pages
constexpr int kSplitTiles = kSplitKeys / kTileSlots;

static inline int64_t value_stride(int64_t value_dim) { return (value_dim + 15) / 16 * 16; }

static inline size_t kv_element_bytes(KvType type) {
  return type == KvType::kF32 ? 4 : type == KvType::kQ8_0 ? 1 : 2;
}

/// Bytes of a K tile: [head_dim][16] elements; kQ8_0: then half scales [head_dim / 32][16].
static inline size_t key_tile_bytes(KvType type, int64_t head_dim) {
  const size_t n = static_cast<size_t>(head_dim) * kTileSlots;
  return (n * kv_element_bytes(type) + (type == KvType::kQ8_0 ? n / 16 : 0) + 63) / 64 * 64;
}

/// Bytes of a V tile: [16][value_stride] elements, zero beyond value_dim; kQ8_0: then half scales
/// [16][value_dim / 32].
static inline size_t value_tile_bytes(KvType type, int64_t value_dim) {
  const size_t n = static_cast<size_t>(value_stride(value_dim)) * kTileSlots;
  return (n * kv_element_bytes(type) + (type == KvType::kQ8_0 ? n / 16 : 0) + 63) / 64 * 64;
}

/// One split for one block of query vectors. Bits of a vector do not depend on the others of the block.
struct SplitArgs {
  KvType key_type, value_type;
  int64_t head_dim;                         // of q and k
  int64_t value_dim;                        // of v and o
  int64_t vectors;                          // 1 .. AttentionKernels::block
  const float* q;                           // [head_dim][vectors]
  const uint8_t* keys[kSplitTiles];         // K tiles; read only where a mask has a bit
  const uint8_t* values[kSplitTiles];       // V tiles
  const uint8_t* next_keys[kSplitTiles];    // stored tiles are prefetched from here while these are read;
  const uint8_t* next_values[kSplitTiles];  // never null
  const uint16_t* const* masks;             // [vectors] -> [kSplitTiles] lanes that the vector sees
  const float* log_weights;                 // [kSplitKeys], added to the scores, or null
  float scale;                              // score = q.k * scale
  float softcap;                            // > 0: score = softcap * tanh(score / softcap)
  float* scores;                            // scratch: attention_scratch_floats()
  float *o, *m, *l;                         // out: [vectors][value_stride], [vectors], [vectors]
};

static inline size_t attention_scratch_floats() { return 16 * (kSplitKeys + 16); }

struct AttentionKernels {
  int block;  // query vectors per call that use the registers best
  /// rows[i] is a query of head_dim floats; out is [head_dim][count].
  void (*pack_queries)(const float* const* rows, int64_t count, int64_t head_dim, float* out) noexcept;
  /// l = 0 and o = 0 if nothing is visible.
  void (*split)(const SplitArgs& args) noexcept;
  /// (o, m, l) of later keys folded into the running (total_o, total_m, total_l) of one vector.
  void (*fold)(float* total_o, float* total_m, float* total_l, const float* o, float m, float l,
               int64_t n) noexcept;
  /// out = o * (1 / l) for n elements; returns the log-sum-exp. l = 0: zeros and -infinity.
  float (*finish)(const float* o, float m, float l, int64_t n, float* out) noexcept;
  /// Encodes one token's K (head_dim floats) into lane `slot` (0 .. 15) of a tile.
  void (*store_key)(KvType type, const float* k, int64_t head_dim, int slot, uint8_t* tile) noexcept;
  void (*store_value)(KvType type, const float* v, int64_t head_dim, int slot, uint8_t* tile) noexcept;
  /// Decodes a whole tile into a kF32 tile.
  void (*expand_keys)(KvType type, const uint8_t* tile, int64_t head_dim, float* out) noexcept;
  void (*expand_values)(KvType type, const uint8_t* tile, int64_t head_dim, float* out) noexcept;
  /// V tile whose elements are the first value_dim of a K tile, both kF32.
  void (*values_of_keys)(const float* keys, int64_t value_dim, float* out) noexcept;
  /// Decodes lane `slot` of a tile into lane `lane` of a kF32 tile.
  void (*gather_key)(KvType type, const uint8_t* tile, int slot, int64_t head_dim, int lane,
                     float* out) noexcept;
  void (*gather_value)(KvType type, const uint8_t* tile, int slot, int64_t head_dim, int lane,
                       float* out) noexcept;
};

}  // namespace mete
