// Packing of the 32-block types: exact, invertible, and placed as pack_q32.cpp says.
#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "base/aligned.h"
#include "base/rng.h"
#include "quant/pack_types.h"

namespace mete {
namespace {

constexpr DType kTypes[] = {DType::kQ4_0, DType::kQ4_1,   DType::kQ5_0, DType::kQ5_1,
                            DType::kQ8_0, DType::kIQ4_NL, DType::kMXFP4};

std::vector<uint8_t> random_bytes(size_t count, uint64_t seed) {
  std::vector<uint8_t> bytes(count);
  for (size_t i = 0; i < count; ++i) bytes[i] = static_cast<uint8_t>(random_bits(seed, i, Purpose::kTest));
  return bytes;
}

TEST(PackQ32, RoundTripOfEveryLaneAndRowCount) {
  for (DType type : kTypes) {
    for (int64_t cols : {32, 64, 96, 576}) {
      const size_t stride = row_bytes(type, cols);
      for (int rows = 1; rows <= kPanelRows; ++rows) {
        const std::vector<uint8_t> source = random_bytes(stride * static_cast<size_t>(rows), 7);
        AlignedBuffer panel(panel_bytes(type, cols) + 64);
        std::memset(panel.data(), 0xa5, panel.bytes());
        pack_panel_q32(type, source.data(), rows, cols, panel.data());
        for (int lane = 0; lane < kPanelRows; ++lane) {
          std::vector<uint8_t> expected(stride, 0), row(stride, 0x5a);
          if (lane < rows) std::memcpy(expected.data(), &source[static_cast<size_t>(lane) * stride], stride);
          unpack_row_q32(type, panel.data(), lane, cols, row.data());
          ASSERT_EQ(row, expected) << name(type) << " cols " << cols << " rows " << rows << " lane " << lane;
        }
        ASSERT_EQ(panel.data()[panel_bytes(type, cols)], 0xa5) << name(type);
      }
    }
  }
}

TEST(PackQ32, PlacesElementsByLane) {
  // One row, one block of Q5_1: d = 1.0, m = 2.0, only element 22 (= 16 + 4 * 1 + 2) has the value 16 + 9.
  std::vector<uint8_t> row(24, 0);
  row[1] = 0x3c, row[3] = 0x40;
  row[4 + 22 / 8] = 1u << (22 % 8);
  row[8 + 6] = 9 << 4;
  std::vector<uint8_t> source(24 * 4, 0);
  std::memcpy(&source[24 * 3], row.data(), row.size());  // lane 3
  AlignedBuffer panel(panel_bytes(DType::kQ5_1, 32));
  pack_panel_q32(DType::kQ5_1, source.data(), 4, 32, panel.data());
  std::vector<uint8_t> expected(panel_bytes(DType::kQ5_1, 32), 0);
  expected[3 * 2 + 1] = 0x3c;
  expected[32 + 3 * 2 + 1] = 0x40;
  expected[64 + 3 * 4 + 2] = 1u << 5;           // group 5 = 22 / 4
  expected[128 + 64 * 1 + 3 * 4 + 2] = 9 << 4;  // vector 1, high nibble
  EXPECT_EQ(std::vector<uint8_t>(panel.data(), panel.data() + panel.bytes()), expected);
}

}  // namespace
}  // namespace mete
