// GGUF files as they should not be: every class of parser bug known from other readers gives one clear line,
// allocates little and reads nothing beyond the bytes given.
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <limits>
#include <new>

#include "format/byte_source.h"
#include "format/gguf.h"
#include "format/gguf_reader.h"
#include "testing/gguf_writer.h"

namespace {
std::atomic<size_t> g_allocated{0};
}

// Not inlined: GCC 12 would take the pair for a mismatch of malloc and new.
__attribute__((noinline)) void* operator new(size_t bytes) {
  g_allocated += bytes;
  if (void* p = std::malloc(bytes != 0 ? bytes : 1)) return p;
  throw std::bad_alloc();
}
__attribute__((noinline)) void operator delete(void* p) noexcept { std::free(p); }
__attribute__((noinline)) void operator delete(void* p, size_t) noexcept { std::free(p); }

namespace mete {
namespace {

using testing::ByteWriter;
using testing::GgufWriter;

constexpr size_t kMostAllocated = 1 << 20;
constexpr uint64_t kMax64 = std::numeric_limits<uint64_t>::max();
constexpr int32_t kF32 = static_cast<int32_t>(DType::kF32);

/// The error message without its "<memory>: "; an empty string if the bytes parse.
std::string parse_error(const std::vector<uint8_t>& bytes) {
  const size_t before = g_allocated;
  const auto result = GgufFile::parse(bytes);
  EXPECT_LT(g_allocated - before, kMostAllocated);
  if (result) return "";
  EXPECT_EQ(result.error().code(), Code::kBadModel);
  const std::string& message = result.error().message();
  EXPECT_EQ(message.substr(0, 10), "<memory>: ");
  EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  return message.substr(10);
}

std::string tensor_error(int32_t type, const std::vector<int64_t>& dims, uint64_t offset = 0) {
  GgufWriter w;
  w.tensor_info("t", type, dims, offset, std::vector<uint8_t>(256));
  return parse_error(w.bytes());
}

std::string value_error(GgufValueType type, const ByteWriter& value) {
  GgufWriter w;
  w.pair("k", type, value);
  return parse_error(w.bytes());
}

TEST(GgufHostile, Header) {
  const auto with = [](const std::function<void(GgufWriter&)>& change) {
    GgufWriter w;
    w.set("k", uint8_t{1});
    change(w);
    return parse_error(w.bytes());
  };
  EXPECT_EQ(with([](GgufWriter& w) { w.magic = "GGML"; }),
            "magic is 47 47 4d 4c, expected 47 47 55 46 (GGUF)");
  EXPECT_EQ(with([](GgufWriter& w) { w.version = 1; }), "GGUF version is 1, expected 2 or 3");
  EXPECT_EQ(with([](GgufWriter& w) { w.version = 4; }), "GGUF version is 4, expected 2 or 3");
  EXPECT_EQ(with([](GgufWriter& w) { w.version = 0x03000000; }),
            "version 3 is byte-swapped: a big-endian file, expected little-endian");
  EXPECT_EQ(with([](GgufWriter& w) { w.n_pairs = kMax64; }),
            "key count is 18446744073709551615, expected at most 2 in the 40 bytes left");
  EXPECT_EQ(with([](GgufWriter& w) { w.n_pairs = uint64_t{1} << 60; }),
            "key count is 1152921504606846976, expected at most 2 in the 40 bytes left");
  EXPECT_EQ(with([](GgufWriter& w) { w.n_tensors = kMax64; }),
            "tensor count is 18446744073709551615, expected at most 1 in the 40 bytes left");
  EXPECT_EQ(with([](GgufWriter& w) { w.n_tensors = uint64_t{1} << 63; }),
            "tensor count is 9223372036854775808, expected at most 1 in the 40 bytes left");
}

TEST(GgufHostile, Keys) {
  const auto key_error = [](std::string_view key) {
    GgufWriter w;
    w.set(key, uint64_t{1});
    return parse_error(w.bytes());
  };
  EXPECT_EQ(key_error(""), "metadata key at offset 24 is empty, expected 1 to 65535 characters");
  EXPECT_EQ(key_error(std::string_view("a\0b", 3)),
            "metadata key at offset 24 has a byte 0x00, expected printable ASCII");
  EXPECT_EQ(key_error("a\nb"), "metadata key at offset 24 has a byte 0x0a, expected printable ASCII");
  EXPECT_EQ(key_error("\xc3\xa4"), "metadata key at offset 24 has a byte 0xc3, expected printable ASCII");
  EXPECT_EQ(key_error(std::string(65535, 'k')), "");
  EXPECT_EQ(key_error(std::string(65536, 'k')), "metadata key has a length of 65536, expected at most 65535");
  GgufWriter twice;
  twice.set("k", uint8_t{1}).set("other", uint8_t{1}).set("k", 2.0f);
  EXPECT_EQ(parse_error(twice.bytes()), "key \"k\" is there twice, expected unique keys");
}

TEST(GgufHostile, Values) {
  const auto type = [](int32_t t) { return static_cast<GgufValueType>(t); };
  const auto array = [](int32_t element, uint64_t count) { return ByteWriter().put(element).put(count); };
  EXPECT_EQ(value_error(type(13), ByteWriter().put(0)), "key \"k\" has value type 13, expected 0 to 12");
  EXPECT_EQ(value_error(type(-1), ByteWriter().put(0)), "key \"k\" has value type -1, expected 0 to 12");
  EXPECT_EQ(value_error(GgufValueType::kBool, ByteWriter().put(uint8_t{2})),
            "key \"k\" has a boolean of 2, expected 0 or 1");
  EXPECT_EQ(value_error(GgufValueType::kString, ByteWriter().put(kMax64)),
            "key \"k\" string has a length of 18446744073709551615, expected at most 268435456");
  EXPECT_EQ(value_error(GgufValueType::kString, ByteWriter().put(uint64_t{1000})),
            "the file ends inside key \"k\" string: 19 bytes at offset 45, expected 1000");
  EXPECT_EQ(value_error(GgufValueType::kArray, array(static_cast<int32_t>(GgufValueType::kArray), 1)),
            "key \"k\" is an array of arrays, expected numbers, booleans or strings");
  EXPECT_EQ(value_error(GgufValueType::kArray, array(99, 1)),
            "key \"k\" is an array of unknown type 99, expected numbers, booleans or strings");
  EXPECT_EQ(
      value_error(GgufValueType::kArray, array(static_cast<int32_t>(GgufValueType::kU64), uint64_t{1} << 61)),
      "key \"k\" has 2305843009213693952 array elements, expected at most 1 in the 15 bytes left");
  EXPECT_EQ(value_error(GgufValueType::kArray, array(static_cast<int32_t>(GgufValueType::kU8), kMax64)),
            "key \"k\" has 18446744073709551615 array elements, expected at most 15 in the 15 bytes left");
  EXPECT_EQ(
      value_error(GgufValueType::kArray, array(static_cast<int32_t>(GgufValueType::kString), kMax64 / 8)),
      "key \"k\" has 2305843009213693951 array elements, expected at most 1 in the 15 bytes left");
  EXPECT_EQ(
      value_error(GgufValueType::kArray, array(static_cast<int32_t>(GgufValueType::kString), 1).put(kMax64)),
      "key \"k\" string has a length of 18446744073709551615, expected at most 268435456");
  EXPECT_EQ(value_error(GgufValueType::kArray, array(static_cast<int32_t>(GgufValueType::kBool), 3)
                                                   .put(uint8_t{1})
                                                   .put(uint8_t{0})
                                                   .put(uint8_t{7})),
            "key \"k\" has a boolean of 7, expected 0 or 1");
}

TEST(GgufHostile, Alignment) {
  const auto alignment_error = [](auto value) {
    GgufWriter w;
    w.set("general.alignment", value);
    return parse_error(w.bytes());
  };
  for (const uint32_t bad : {0u, 1u, 4u, 7u, 33u, 48u, 65537u, 131072u, 0x80000000u, 0xffffffffu}) {
    EXPECT_EQ(alignment_error(bad),
              fmt::format("key \"general.alignment\" is {}, expected a power of two from 8 to 65536", bad));
  }
  EXPECT_EQ(alignment_error(uint64_t{32}), "key \"general.alignment\" has type U64, expected U32");
  EXPECT_EQ(alignment_error("32"), "key \"general.alignment\" has type STRING, expected U32");
  GgufWriter array;
  array.set_array("general.alignment", std::vector<uint32_t>{32});
  EXPECT_EQ(parse_error(array.bytes()), "key \"general.alignment\" has type ARRAY, expected U32");
}

TEST(GgufHostile, TensorNames) {
  const auto name_error = [](std::string_view name) {
    GgufWriter w;
    w.tensor("first", DType::kF32, {1}, std::vector<uint8_t>(4))
        .tensor(name, DType::kF32, {1}, std::vector<uint8_t>(4));
    return parse_error(w.bytes());
  };
  EXPECT_EQ(name_error("first"), "tensor \"first\" is there twice, expected unique tensor names");
  EXPECT_EQ(name_error(""), "tensor 1 name at offset 61 is empty, expected 1 to 255 characters");
  EXPECT_EQ(name_error("a b"), "tensor 1 name at offset 61 has a byte 0x20, expected printable ASCII");
  EXPECT_EQ(name_error(std::string(255, 'n')), "");
  EXPECT_EQ(name_error(std::string(256, 'n')), "tensor 1 name has a length of 256, expected at most 255");
}

TEST(GgufHostile, TensorShapes) {
  EXPECT_EQ(tensor_error(kF32, {}), "tensor \"t\" has 0 dimensions, expected 1 to 4");
  EXPECT_EQ(tensor_error(kF32, {1, 1, 1, 1, 1}), "tensor \"t\" has 5 dimensions, expected 1 to 4");
  EXPECT_EQ(tensor_error(kF32, {2, 0}), "tensor \"t\" has dimension 1 = 0, expected 1 to 2^63 - 1");
  EXPECT_EQ(tensor_error(kF32, {-1}), "tensor \"t\" has dimension 0 = -1, expected 1 to 2^63 - 1");
  EXPECT_EQ(tensor_error(kF32, {INT64_MIN, 2}),
            "tensor \"t\" has dimension 0 = -9223372036854775808, expected 1 to 2^63 - 1");
  const int64_t two32 = int64_t{1} << 32, two62 = int64_t{1} << 62;
  // Products that wrap to 0, to a small number, to a negative number.
  for (const std::vector<int64_t>& dims :
       {std::vector<int64_t>{two32, two32},
        {two62},
        {two62, 4},
        {two32 + 1, two32 - 1},
        {int64_t{1} << 16, int64_t{1} << 16, int64_t{1} << 16, int64_t{1} << 16},
        {INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX},
        {32, int64_t{1} << 58},
        {int64_t{1} << 60, 4}}) {
    const std::string error = tensor_error(kF32, dims);
    EXPECT_EQ(error.substr(0, 21), "tensor \"t\" has shape ") << error;
    EXPECT_NE(error.find("expected a size below 2^63"), std::string::npos) << error;
  }
  // Elements overflow although the bytes of a quantised type do not.
  EXPECT_EQ(tensor_error(static_cast<int32_t>(DType::kQ2_K), {256, int64_t{1} << 56}),
            "tensor \"t\" has shape [256, 72057594037927936], expected a size below 2^63");
  EXPECT_EQ(tensor_error(static_cast<int32_t>(DType::kQ4_0), {33}),
            "tensor \"t\" has rows of 33 elements, expected a multiple of 32 for type Q4_0");
  EXPECT_EQ(tensor_error(static_cast<int32_t>(DType::kQ4_K), {128, 2}),
            "tensor \"t\" has rows of 128 elements, expected a multiple of 256 for type Q4_K");
}

TEST(GgufHostile, TensorTypes) {
  const std::string expected =
      ", expected one of F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS MXFP4";
  EXPECT_EQ(tensor_error(16, {256}), "tensor \"t\" has type IQ2_XXS" + expected);
  EXPECT_EQ(tensor_error(9, {32}), "tensor \"t\" has type Q8_1" + expected);
  EXPECT_EQ(tensor_error(26, {32}), "tensor \"t\" has type I32" + expected);
  EXPECT_EQ(tensor_error(40, {64}), "tensor \"t\" has type NVFP4" + expected);
  for (const int32_t id : {-1, 4, 5, 31, 33, 43, 1000, INT32_MAX, INT32_MIN}) {
    EXPECT_EQ(tensor_error(id, {32}), fmt::format("tensor \"t\" has type id {} (unknown){}", id, expected));
  }
}

TEST(GgufHostile, TensorPlaces) {
  const std::string beyond = " of the data section: the file is truncated or corrupt";
  EXPECT_EQ(tensor_error(kF32, {64}), "");
  EXPECT_EQ(tensor_error(kF32, {65}),
            "tensor \"t\" has 260 bytes at data offset 0, expected within the 256 bytes" + beyond);
  EXPECT_EQ(tensor_error(kF32, {64}, 32),
            "tensor \"t\" has 256 bytes at data offset 32, expected within the 256 bytes" + beyond);
  EXPECT_EQ(tensor_error(kF32, {1}, 4), "tensor \"t\" has offset 4, expected a multiple of the alignment 32");
  EXPECT_EQ(tensor_error(kF32, {8}, kMax64 - 31),
            "tensor \"t\" has 32 bytes at data offset 18446744073709551584, expected within the 256 bytes" +
                beyond);
  EXPECT_EQ(tensor_error(kF32, {1}, kMax64),
            "tensor \"t\" has offset 18446744073709551615, expected a multiple of the alignment 32");
  EXPECT_EQ(
      tensor_error(kF32, {int64_t{1} << 60}),
      "tensor \"t\" has 4611686018427387904 bytes at data offset 0, expected within the 256 bytes" + beyond);
}

TEST(GgufHostile, OverlappingTensors) {
  GgufWriter w;
  w.tensor_info("a", kF32, {16}, 64, std::vector<uint8_t>(64))
      .tensor_info("b", kF32, {9}, 32, std::vector<uint8_t>(64));
  EXPECT_EQ(parse_error(w.bytes()),
            "tensor \"a\" at data offset 64 overlaps tensor \"b\", expected 68 or more");
  GgufWriter same;
  same.tensor_info("a", kF32, {1}, 0, std::vector<uint8_t>(4)).tensor_info("b", kF32, {1}, 0, {});
  EXPECT_EQ(parse_error(same.bytes()),
            "tensor \"b\" at data offset 0 overlaps tensor \"a\", expected 4 or more");
  GgufWriter swapped;  // any order is fine as long as nothing overlaps
  swapped.tensor_info("a", kF32, {8}, 32, std::vector<uint8_t>(32))
      .tensor_info("b", kF32, {8}, 0, std::vector<uint8_t>(32));
  EXPECT_EQ(parse_error(swapped.bytes()), "");
}

TEST(GgufHostile, PartOfASplitInMemory) {
  GgufWriter w;
  w.set("split.count", uint16_t{2}).set("split.no", uint16_t{0});
  EXPECT_EQ(parse_error(w.bytes()), "key \"split.count\" is 2, expected 1, from the file's name");
  GgufWriter wrong;
  wrong.set("split.count", "2");
  EXPECT_EQ(parse_error(wrong.bytes()), "key \"split.count\" is STRING, expected an integer");
}

GgufWriter valid_model() {
  GgufWriter w;
  w.set("general.architecture", "llama")
      .set("general.alignment", uint32_t{32})
      .set("n", uint64_t{7})
      .set("b", true);
  w.set_array("tokens", std::vector<std::string>{"a", "bc", ""})
      .set_array("scores", std::vector<float>{1, 2});
  w.tensor("one", DType::kQ4_0, {32, 2}, std::vector<uint8_t>(36, 1));
  w.tensor("two", DType::kF32, {3}, std::vector<uint8_t>(12, 2));
  return w;
}

TEST(GgufHostile, EveryPrefixOfAValidFileFailsCleanly) {
  const auto bytes = valid_model().bytes();
  const uint64_t end = [&] {
    const GgufFile file = GgufFile::parse(bytes).value();
    return file.find("two")->offset + file.find("two")->bytes;
  }();
  ASSERT_LT(end, bytes.size());
  for (size_t n = 0; n <= bytes.size(); ++n) {
    // An exact heap copy: one byte read beyond it is seen by the address sanitizer.
    const std::string error =
        parse_error(std::vector<uint8_t>(bytes.begin(), bytes.begin() + static_cast<int64_t>(n)));
    EXPECT_EQ(error.empty(), n >= end) << n << ": " << error;
  }
}

/// What every caller relies on: each tensor inside the file, readable, its sizes consistent.
void expect_sound(const GgufFile& file, size_t size) {
  for (const GgufTensor& t : file.tensors()) {
    ASSERT_LE(t.bytes, size);
    ASSERT_LE(t.offset, size - t.bytes);
    ASSERT_EQ(t.bytes, row_bytes(t.type, t.cols()) * static_cast<uint64_t>(t.rows()));
    std::vector<uint8_t> data(t.bytes);
    ASSERT_TRUE(file.read(t, 0, data));
    ASSERT_EQ(file.find(t.name), &t);
  }
}

TEST(GgufHostile, BoundaryValuesAtEveryPlace) {
  const auto bytes = valid_model().bytes();
  size_t parsed = 0, refused = 0;
  const auto try_value = [&](size_t at, auto value) {
    if (at + sizeof value > bytes.size()) return;
    std::vector<uint8_t> changed = bytes;
    std::memcpy(changed.data() + at, &value, sizeof value);
    const size_t before = g_allocated;
    const auto result = GgufFile::parse(changed);
    ASSERT_LT(g_allocated - before, kMostAllocated);
    ++(result ? parsed : refused);
    if (result) expect_sound(*result, changed.size());
    if (!result) {
      EXPECT_EQ(result.error().code(), Code::kBadModel);
    }
  };
  for (size_t at = 0; at < bytes.size(); ++at) {
    for (const uint64_t v :
         {uint64_t{0}, uint64_t{1}, uint64_t{255}, uint64_t{256}, uint64_t{65535}, uint64_t{65536},
          (uint64_t{1} << 28), (uint64_t{1} << 28) + 1, (uint64_t{1} << 31) - 1, uint64_t{1} << 31,
          uint64_t{1} << 32, (uint64_t{1} << 63) - 1, uint64_t{1} << 63, kMax64, kMax64 - 31}) {
      try_value(at, v);
      try_value(at, static_cast<uint32_t>(v));
      try_value(at, static_cast<uint8_t>(v));
    }
  }
  EXPECT_GT(parsed, 100u);
  EXPECT_GT(refused, 1000u);
}

TEST(GgufHostile, ManyKeysAndTensorsInOneFile) {
  GgufWriter w;
  for (int i = 0; i < 20000; ++i) w.set(fmt::format("key.{}", i), i);
  for (int i = 0; i < 20000; ++i)
    w.tensor_info(fmt::format("t.{}", i), kF32, {8}, static_cast<uint64_t>(32 * i), std::vector<uint8_t>(32));
  const auto bytes = w.bytes();
  const GgufFile file = GgufFile::parse(bytes).value();
  EXPECT_EQ(file.metadata().all().size(), 20000u);
  EXPECT_EQ(file.metadata().integer("key.19999", 0, INT64_MAX).value(), 19999);
  expect_sound(file, bytes.size());
}

/// A sparse file can back any count with bytes that take no disk space.
TEST(GgufHostile, SparseFile) {
  const std::string path = ::testing::TempDir() + "mete_sparse_" + std::to_string(::getpid()) + ".gguf";
  const auto open_error = [&](const GgufWriter& w) {
    w.save(path);
    EXPECT_EQ(::truncate(path.c_str(), int64_t{1} << 40), 0);
    const size_t before = g_allocated;
    const auto result = GgufFile::open(path);
    EXPECT_LT(g_allocated - before, kMostAllocated);
    std::filesystem::remove(path);
    return result ? std::string() : result.error().message().substr(path.size() + 2);
  };
  GgufWriter array;
  array.pair("k", GgufValueType::kArray,
             ByteWriter().put(static_cast<int32_t>(GgufValueType::kU64)).put(uint64_t{1} << 36));
  EXPECT_EQ(open_error(array),
            "key \"k\" value of 549755813888 bytes at offset 49 goes beyond the first 268435456 bytes, "
            "expected metadata within them");
  GgufWriter tensors;
  tensors.n_tensors = uint64_t{1} << 33;
  EXPECT_EQ(open_error(tensors),
            "tensor count is 8589934592, expected at most 8134407 in the 1099511627752 bytes left");
  GgufWriter keys;
  keys.n_pairs = uint64_t{1} << 36;
  EXPECT_EQ(open_error(keys), "metadata key at offset 24 is empty, expected 1 to 65535 characters");
}

TEST(GgufHostile, HeaderTruncatedWhileRead) {
  const std::string path = ::testing::TempDir() + "mete_shrunk_" + std::to_string(::getpid()) + ".gguf";
  valid_model().save(path);
  auto source = ByteSource::open(path);
  ASSERT_TRUE(source);
  std::filesystem::resize_file(path, 40);
  const auto part = GgufReader(**source).read();
  ASSERT_FALSE(part);
  EXPECT_EQ(part.error().code(), Code::kRuntime);
  EXPECT_EQ(part.error().message(),
            fmt::format("{}: the file was truncated while it was read: it ends at byte 40, expected {} bytes",
                        path, (*source)->size()));
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace mete
