#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "base/aligned.h"
#include "base/rng.h"
#include "quant/pack.h"

namespace mete {
namespace {

TEST(PackK, RoundTripOfEveryLaneAndPartialPanels) {
  for (DType type : {DType::kQ2_K, DType::kQ3_K, DType::kQ4_K, DType::kQ5_K, DType::kQ6_K, DType::kIQ4_XS})
    for (int64_t cols : {256, 768, 2048})
      for (int rows : {1, 7, 16}) {
        const size_t row = row_bytes(type, cols);
        std::vector<uint8_t> source(row * static_cast<size_t>(rows));
        for (size_t i = 0; i < source.size(); ++i)
          source[i] = static_cast<uint8_t>(random_bits(3, i, Purpose::kTest));
        constexpr size_t kGuard = 64;
        AlignedBuffer panel(panel_bytes(type, cols) + kGuard);
        std::memset(panel.data(), 0xee, panel.bytes());
        pack_panel(type, source.data(), rows, cols, panel.data());
        for (size_t i = 0; i < kGuard; ++i) ASSERT_EQ(panel.data()[panel_bytes(type, cols) + i], 0xee);
        for (size_t i = row * kPanelRows; i < panel_bytes(type, cols); ++i) ASSERT_EQ(panel.data()[i], 0);
        for (int lane = 0; lane < kPanelRows; ++lane) {
          std::vector<uint8_t> expected(row, 0), got(row, 0xdd);
          if (lane < rows) std::memcpy(expected.data(), source.data() + row * static_cast<size_t>(lane), row);
          unpack_row(type, panel.data(), lane, cols, got.data());
          ASSERT_EQ(got, expected) << name(type) << " cols " << cols << " rows " << rows << " lane " << lane;
        }
      }
}

}  // namespace
}  // namespace mete
