#include "base/size.h"

#include <gtest/gtest.h>

namespace mete {
namespace {

TEST(Size, UnitsAreBinaryUnlessTheyEndInB) {
  EXPECT_EQ(parse_size("65536").value(), 65536);
  EXPECT_EQ(parse_size("512b").value(), 512);
  EXPECT_EQ(parse_size("1K").value(), 1024);
  EXPECT_EQ(parse_size("512M").value(), int64_t{512} << 20);
  EXPECT_EQ(parse_size("512 MiB").value(), int64_t{512} << 20);
  EXPECT_EQ(parse_size("6gib").value(), int64_t{6} << 30);
  EXPECT_EQ(parse_size("1.5G").value(), int64_t{3} << 29);
  EXPECT_EQ(parse_size("800MB").value(), 800'000'000);
  EXPECT_EQ(parse_size("2TB").value(), 2'000'000'000'000);
}

TEST(Size, WhatIsNoSizeIsRefusedWithWhatWasFound) {
  for (const char* text : {"", ".", "GiB", "-1G", "1..5G", "6 GiBs", "6Q", "0", "0.5", "1e3", "9e99",
                           "99999999999T", "nan", "inf", "0x10", "5 5"}) {
    const Result<int64_t> size = parse_size(text);
    ASSERT_FALSE(size) << text;
    EXPECT_EQ(size.error().code(), Code::kUsage);
    EXPECT_NE(size.error().message().find(fmt::format("found '{}'", text)), std::string::npos);
  }
}

}  // namespace
}  // namespace mete
