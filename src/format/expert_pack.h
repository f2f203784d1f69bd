// The directory of an expert pack (mete pack): a file with one record per routed expert, in panels ready for
// the kernels. Bytes, little-endian:
//   0  "METEPACK", u32 version, u32 layers, u32 experts, u32 0, u64 d_model, u64 ffn, u64 fingerprint of the
//      model file, u64 record_bytes, u64 data_offset
//      per layer: u32 type id of gate, up, down, u32 0, u64 bytes of a record that are used
//      per layer and expert: u64 XXH3-64 of the used bytes, 0: not written yet
//      u64 XXH3-64 of all the above
//   data_offset  records of record_bytes each, layer by layer; both numbers are multiples of 4096
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/error.h"
#include "tensor/dtype.h"

namespace mete {

struct ExpertPackDirectory {
  static constexpr uint32_t kVersion = 1;
  struct Layer {
    DType gate, up, down;
    uint64_t used_bytes;
    bool operator==(const Layer&) const = default;
  };
  uint32_t layers = 0, experts = 0;
  uint64_t d_model = 0, ffn = 0;
  uint64_t fingerprint = 0;
  uint64_t record_bytes = 0;
  uint64_t data_offset = 0;
  std::vector<Layer> layer;
  std::vector<uint64_t> checksums;  ///< [layers][experts]

  uint64_t offset(int64_t index) const { return data_offset + static_cast<uint64_t>(index) * record_bytes; }
  uint64_t file_bytes() const { return offset(int64_t{layers} * experts); }
  std::vector<uint8_t> serialise() const;  ///< data_offset bytes
  /// Bytes that serialise() needs, rounded up to whole pages: data_offset.
  static uint64_t directory_bytes(uint32_t layers, uint32_t experts);
  /// Untrusted bytes, the start of the file. Error(kBadModel) saying what is wrong, without the file's name.
  static Result<ExpertPackDirectory> parse(std::span<const uint8_t> bytes);
};

}  // namespace mete
