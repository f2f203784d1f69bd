// What every op needs: threads, kernels, scratch. No globals: it is an argument.
#pragma once

#include <cstdint>

#include "base/aligned.h"
#include "base/ledger.h"
#include "base/thread_pool.h"
#include "kernels/cpu/table.h"

namespace mete {

/// How matmuls are computed. kReference: weights dequantised, activations in float32, sums in double; slow,
/// for measuring what quantised activations cost.
enum class NumericMode { kStandard, kReference };

/// Growable scratch, reused between calls; grows only while a larger step is warmed up.
class Scratch {
 public:
  /// At least `bytes` bytes, 64-byte aligned; contents undefined; valid until the next call.
  uint8_t* get(size_t bytes) {
    if (buffer_.bytes() < bytes) buffer_ = AlignedBuffer(bytes + bytes / 4);
    return buffer_.data();
  }
  size_t bytes() const { return buffer_.bytes(); }
  int64_t resident() const { return buffer_.resident(); }

 private:
  AlignedBuffer buffer_;
};

struct Context {
  ThreadPool& pool;
  const KernelTable& kernels;
  NumericMode mode = NumericMode::kStandard;
  Scratch activations{};     ///< quantised activation rows of the running matmul
  Scratch workers{};         ///< per-worker kernel scratch
  Scratch attention{};       ///< per-worker attention scratch
  Scratch gathered{};        ///< activation rows and work list of the running grouped matmul
  Ledger* ledger = nullptr;  ///< null: nobody counts
  size_t attention_split_bytes = size_t{64} << 20;  ///< most for results of splits that run in parallel

  /// The op that now begins belongs to `part` and reads `bytes` of weights or KV from memory.
  void enter(Part part, int64_t bytes = 0) noexcept {
    if (ledger == nullptr) return;
    ledger->enter(part);
    ledger->read(bytes);
  }
};

}  // namespace mete
