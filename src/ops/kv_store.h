// Writing K and V rows into pages.
#pragma once

#include "ops/attend.h"

namespace mete {

/// Where one row goes: page and slot of each KV head.
struct StoreTarget {
  int32_t row;
  int64_t slot;
  uint8_t* const* const* pages;  ///< [kv_heads] page tables as in Spec
};

/// k: [rows][kv_heads * head_dim]; v: [rows][kv_heads * value_dim], not read if values lie in keys. Encodes
/// each target's row into its slot. Slots are distinct.
void kv_store(Context& ctx, const KvLayout& layout, int64_t kv_heads, std::span<const StoreTarget> targets,
              const float* k, const float* v) noexcept;

/// Copies the encoded K and V of one slot to another (of the same or another page).
void kv_copy_slot(const KvLayout& layout, const uint8_t* from_page, int64_t from, uint8_t* to_page,
                  int64_t to) noexcept;

}  // namespace mete
