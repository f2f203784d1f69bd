#include "ops/kv_store.h"

#include <algorithm>
#include <cstring>

namespace mete {

Status KvLayout::check() const {
  if (page_slots != 16 && page_slots != 32) {
    return bad_usage("KV page: {} slots, expected 16 or 32", page_slots);
  }
  if (head_dim < 2 || head_dim % 2 != 0)
    return bad_usage("KV page: head size {}, expected an even number", head_dim);
  if (value_width < 0 || value_dim() % 2 != 0) {
    return bad_usage("KV page: value size {}, expected an even number", value_width);
  }
  const struct {
    KvType type;
    int64_t width;
  } parts[] = {{key_type, head_dim}, {value_type, value_dim()}};
  for (const auto& part : parts) {
    if (part.type == KvType::kQ8_0 && part.width % 32 != 0) {
      return bad_usage("KV codec q8_0: head size {}, expected a multiple of 32; use f16 or bf16", part.width);
    }
  }
  if (value_in_key && value_dim() > head_dim) {
    return bad_usage("KV page: values of {} elements cannot lie in keys of {}", value_dim(), head_dim);
  }
  if (value_in_key && value_type != key_type) {
    return bad_usage(
        "KV codecs of keys and values differ: in this model values are part of keys, give both one");
  }
  return {};
}

namespace {

uint8_t* key_tile_of(const KvLayout& layout, uint8_t* page, int64_t in_page) {
  return page + static_cast<size_t>(in_page / kTileSlots) * layout.key_tile();
}
uint8_t* value_tile_of(const KvLayout& layout, uint8_t* page, int64_t in_page) {
  return page + static_cast<size_t>(layout.page_slots / kTileSlots) * layout.key_tile() +
         static_cast<size_t>(in_page / kTileSlots) * layout.value_tile();
}

}  // namespace

void kv_store(Context& ctx, const KvLayout& layout, int64_t kv_heads, std::span<const StoreTarget> targets,
              const float* k, const float* v) noexcept {
  const AttentionKernels& kernels = ctx.kernels.attention;
  const int64_t count = static_cast<int64_t>(targets.size()), key = layout.head_dim,
                value = layout.value_dim();
  ctx.enter(Part::kKvStore);
  if (ctx.ledger != nullptr) {
    const auto slot_bytes = static_cast<int64_t>(layout.page_bytes()) / layout.page_slots;
    ctx.ledger->add(Counter::kKvBytesWritten, kv_heads * count * slot_bytes);
  }
  const int64_t grain = std::max<int64_t>(1, 8192 / (key + value));
  // Heads outside, rows inside: neighbouring pieces write neighbouring lanes of the same tiles.
  ctx.pool.parallel_for(kv_heads * count, grain, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t head = i / count;
      const StoreTarget& t = targets[static_cast<size_t>(i % count)];
      uint8_t* page = t.pages[head][t.slot / layout.page_slots];
      const int64_t in_page = t.slot % layout.page_slots;
      const int64_t place = t.row * kv_heads + head;
      const int lane = static_cast<int>(in_page % kTileSlots);
      kernels.store_key(layout.key_type, k + place * key, key, lane, key_tile_of(layout, page, in_page));
      if (layout.value_in_key) continue;
      kernels.store_value(layout.value_type, v + place * value, value, lane,
                          value_tile_of(layout, page, in_page));
    }
  });
}

void kv_copy_slot(const KvLayout& layout, const uint8_t* from_page, int64_t from, uint8_t* to_page,
                  int64_t to) noexcept {
  const int64_t head_dim = layout.head_dim, stride = value_stride(layout.value_dim());
  const uint8_t* source = key_tile_of(layout, const_cast<uint8_t*>(from_page), from);
  uint8_t* target = key_tile_of(layout, to_page, to);
  const int64_t a = from % kTileSlots, b = to % kTileSlots;
  size_t size = kv_element_bytes(layout.key_type);
  const auto copy = [&](int64_t base, int64_t from_index, int64_t to_index, size_t bytes) {
    std::memmove(target + base + to_index * static_cast<int64_t>(bytes),
                 source + base + from_index * static_cast<int64_t>(bytes), bytes);
  };
  for (int64_t d = 0; d < head_dim; ++d) copy(0, d * 16 + a, d * 16 + b, size);
  if (layout.key_type == KvType::kQ8_0) {
    for (int64_t i = 0; i < head_dim / 32; ++i) copy(head_dim * 16, i * 16 + a, i * 16 + b, 2);
  }
  if (layout.value_in_key) return;
  const int64_t blocks = layout.value_dim() / 32;
  source = value_tile_of(layout, const_cast<uint8_t*>(from_page), from);
  target = value_tile_of(layout, to_page, to);
  size = kv_element_bytes(layout.value_type) * static_cast<size_t>(stride);
  copy(0, a, b, size);
  if (layout.value_type == KvType::kQ8_0) copy(stride * 16, a, b, static_cast<size_t>(blocks) * 2);
}

}  // namespace mete
