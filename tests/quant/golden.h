// Reader of tests/golden/quant/*.bin.
#pragma once

#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

#include "tensor/dtype.h"

namespace mete::testing {

struct QuantRecord {
  DType type;
  std::vector<uint8_t> blocks;
  std::vector<float> values;
};

inline std::vector<QuantRecord> read_quant_golden(const std::string& name) {
  std::ifstream file(std::string(METE_GOLDEN_DIR) + "/quant/" + name, std::ios::binary);
  const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
  std::vector<QuantRecord> records;
  size_t at = 0;
  const auto take = [&](void* out, size_t n) {
    if (n > bytes.size() - at) throw std::runtime_error(name + ": too short");
    std::memcpy(out, bytes.data() + at, n);
    at += n;
  };
  while (at < bytes.size()) {
    int32_t id;
    uint32_t count;
    take(&id, 4);
    take(&count, 4);
    const DTypeInfo& geometry = info(static_cast<DType>(id));
    QuantRecord record{geometry.type, std::vector<uint8_t>(count * static_cast<size_t>(geometry.bytes)),
                       std::vector<float>(count * static_cast<size_t>(geometry.block))};
    take(record.blocks.data(), record.blocks.size());
    take(record.values.data(), record.values.size() * 4);
    records.push_back(std::move(record));
  }
  return records;
}

}  // namespace mete::testing
