// One forward step: rows with explicit positions, masks among new rows, and what the caller wants back.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace mete {

using SeqId = int32_t;

/// Where a row's K and V go.
enum class KvWrite : uint8_t {
  kAppend,     ///< the sequence's next slot
  kOverwrite,  ///< slot `slot`, which holds a committed row
  kScratch     ///< a temporary slot that is dropped when the step ends
};

struct Row {
  int32_t token;
  int32_t position;  ///< 0 .. 2^20; equal positions are allowed (trees)
  SeqId seq;
  KvWrite write = KvWrite::kAppend;
  int32_t slot = -1;  ///< kOverwrite only
};

/// Boolean matrix over the rows of one batch: visible(i, j) says whether row i sees new row j. Rows always
/// see the committed slots of their own sequence and never another sequence.
class BlockMask {
 public:
  BlockMask() = default;
  explicit BlockMask(int32_t rows)
      : rows_(rows), bits_(static_cast<size_t>(rows) * static_cast<size_t>(rows), 0) {}
  int32_t rows() const { return rows_; }
  bool visible(int32_t i, int32_t j) const { return bits_[index(i, j)] != 0; }
  void set(int32_t i, int32_t j, bool on = true) { bits_[index(i, j)] = on ? 1 : 0; }

 private:
  size_t index(int32_t i, int32_t j) const {
    return static_cast<size_t>(i) * static_cast<size_t>(rows_) + static_cast<size_t>(j);
  }
  int32_t rows_ = 0;
  std::vector<uint8_t> bits_;
};

struct Batch {
  std::span<const Row> rows;
  /// Null: a row sees the rows of its own sequence up to and including itself, in batch order.
  const BlockMask* mask = nullptr;
  std::span<const int32_t> logits_rows;  ///< ascending row indices whose logits are wanted
  std::span<const int32_t> hidden_rows;  ///< ascending; the states after the output norm of these rows
  bool want_stats = false;               ///< statistics of the wanted logits rows
  std::span<const int32_t> tap_layers;   ///< ascending; the residual stream after these layers, for all rows
};

}  // namespace mete
