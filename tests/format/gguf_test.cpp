// GGUF files as they should be: typed access, tensor directory, reading, split files, versions.
#include "format/gguf.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <limits>

#include "format/byte_source.h"
#include "testing/gguf_writer.h"
#include "testing/model_path.h"

namespace mete {
namespace {

using testing::GgufWriter;

std::vector<uint8_t> counting_bytes(size_t n, uint8_t first) {
  std::vector<uint8_t> out(n);
  for (size_t i = 0; i < n; ++i) out[i] = static_cast<uint8_t>(first + i);
  return out;
}

GgufWriter small_model() {
  GgufWriter w;
  w.set("general.architecture", "llama")
      .set("u8", uint8_t{200})
      .set("i8", int8_t{-3})
      .set("u16", uint16_t{65535});
  w.set("i16", int16_t{-300}).set("u32", uint32_t{4000000000u}).set("i32", int32_t{-70000}).set("f32", 1.5f);
  w.set("yes", true)
      .set("u64", std::numeric_limits<uint64_t>::max())
      .set("i64", int64_t{-5000000000})
      .set("f64", 0.1);
  w.set_array("tokens", std::vector<std::string>{"<s>", "", "\xff\xfe", "hello"});
  w.set_array("types", std::vector<int32_t>{1, -2, 3}).set_array("scores", std::vector<float>{0.5f, -1.0f});
  w.set_array("flags", std::vector<bool>{true, false, true}).set_array("none", std::vector<uint8_t>{});
  w.tensor("a", DType::kF32, {3, 2}, counting_bytes(24, 1))
      .tensor("b", DType::kQ4_0, {64, 3, 2}, counting_bytes(216, 7));
  return w;
}

TEST(Gguf, TypedMetadata) {
  const auto bytes = small_model().bytes();
  const GgufFile file = GgufFile::parse(bytes).value();
  const GgufMetadata& m = file.metadata();
  EXPECT_EQ(file.version(), 3);
  EXPECT_EQ(m.all().size(), 17u);
  EXPECT_EQ(m.string("general.architecture").value(), "llama");
  EXPECT_EQ(m.integer("u8", 0, 255).value(), 200);
  EXPECT_EQ(m.integer("i8", -128, 127).value(), -3);
  EXPECT_EQ(m.integer("u16", 0, 65535).value(), 65535);
  EXPECT_EQ(m.integer("i16", -1000, 0).value(), -300);
  EXPECT_EQ(m.integer("u32", 0, INT64_MAX).value(), 4000000000);
  EXPECT_EQ(m.integer("i32", INT64_MIN, 0).value(), -70000);
  EXPECT_EQ(m.integer("i64", INT64_MIN, 0).value(), -5000000000);
  EXPECT_EQ(m.number("f32").value(), 1.5);
  EXPECT_EQ(m.number("f64").value(), 0.1);
  EXPECT_EQ(m.number("i8").value(), -3.0);
  EXPECT_TRUE(m.boolean_or("yes", false).value());
  EXPECT_TRUE(m.boolean_or("absent", true).value());
  EXPECT_EQ(m.integer_or("absent", 7, 0, 10).value(), 7);
  EXPECT_EQ(m.number_or("absent", 2.5).value(), 2.5);
  EXPECT_EQ(m.string_or("absent", "x").value(), "x");
  const auto tokens = m.strings("tokens").value();
  ASSERT_EQ(tokens.size(), 4u);
  EXPECT_EQ(tokens[1], "");
  EXPECT_EQ(tokens[2], "\xff\xfe");
  EXPECT_EQ(m.integers("types").value(), (std::vector<int64_t>{1, -2, 3}));
  EXPECT_EQ(m.integers("flags").value(), (std::vector<int64_t>{1, 0, 1}));
  EXPECT_EQ(m.integers("none").value(), std::vector<int64_t>{});
  EXPECT_EQ(m.floats("scores").value(), (std::vector<float>{0.5f, -1.0f}));
}

TEST(Gguf, TypedAccessRefusesOtherTypes) {
  const auto bytes = small_model().bytes();
  const GgufFile file = GgufFile::parse(bytes).value();
  const GgufMetadata& m = file.metadata();
  const auto message = [](const auto& result) {
    return result ? std::string("no error") : result.error().message();
  };
  EXPECT_EQ(message(m.integer("absent", 0, 1)), "key \"absent\" is missing, expected an integer");
  EXPECT_EQ(message(m.integer("u8", 0, 100)), "key \"u8\" is 200, expected 0 to 100");
  EXPECT_EQ(message(m.integer_or("u8", 1, 0, 100)), "key \"u8\" is 200, expected 0 to 100");
  EXPECT_EQ(message(m.integer("u64", 0, INT64_MAX)),
            "key \"u64\" is 18446744073709551615, expected 0 to 9223372036854775807");
  EXPECT_EQ(message(m.integer("f32", 0, 1)), "key \"f32\" is F32, expected an integer");
  EXPECT_EQ(message(m.integer("yes", 0, 1)), "key \"yes\" is BOOL, expected an integer");
  EXPECT_EQ(message(m.integer("types", 0, 1)), "key \"types\" is an array of 3 I32, expected an integer");
  EXPECT_EQ(message(m.number("types")), "key \"types\" is an array of 3 I32, expected a number");
  EXPECT_EQ(message(m.number("tokens")), "key \"tokens\" is an array of 4 STRING, expected a number");
  EXPECT_EQ(message(m.boolean_or("u8", true)), "key \"u8\" is U8, expected BOOL");
  EXPECT_EQ(message(m.string("f32")), "key \"f32\" is F32, expected STRING");
  EXPECT_EQ(message(m.string("tokens")), "key \"tokens\" is an array of 4 STRING, expected STRING");
  EXPECT_EQ(message(m.strings("types")), "key \"types\" is an array of 3 I32, expected an array of STRING");
  EXPECT_EQ(message(m.strings("general.architecture")),
            "key \"general.architecture\" is STRING, expected an array of STRING");
  EXPECT_EQ(message(m.integers("u8")), "key \"u8\" is U8, expected an array of integers");
  EXPECT_EQ(message(m.integers("scores")),
            "key \"scores\" is an array of 2 F32, expected an array of integers");
  EXPECT_EQ(message(m.floats("types")), "key \"types\" is an array of 3 I32, expected an array of F32");
  EXPECT_EQ(m.integer("absent", 0, 1).error().code(), Code::kBadModel);
}

TEST(Gguf, NotFiniteNumbersAreRefused) {
  GgufWriter w;
  w.set("nan", std::numeric_limits<float>::quiet_NaN()).set("inf", std::numeric_limits<double>::infinity());
  const auto bytes = w.bytes();
  const GgufFile file = GgufFile::parse(bytes).value();
  EXPECT_EQ(file.metadata().number("nan").error().message(), "key \"nan\" is nan, expected a finite number");
  EXPECT_EQ(file.metadata().number_or("inf", 1.0).error().message(),
            "key \"inf\" is inf, expected a finite number");
}

TEST(Gguf, TensorDirectoryAndReading) {
  const auto bytes = small_model().bytes();
  const GgufFile file = GgufFile::parse(bytes).value();
  ASSERT_EQ(file.tensors().size(), 2u);
  EXPECT_EQ(file.find("absent"), nullptr);
  const GgufTensor* b = file.find("b");
  ASSERT_NE(b, nullptr);
  EXPECT_EQ(b->n_dims, 3);
  EXPECT_EQ(b->dims, (std::array<int64_t, 4>{64, 3, 2, 1}));
  EXPECT_EQ(b->rows(), 6);
  EXPECT_EQ(b->bytes, 216u);
  EXPECT_EQ(b->offset % 32, 0u);
  std::vector<uint8_t> out(10);
  ASSERT_TRUE(file.read(*b, 206, out));
  EXPECT_EQ(out, counting_bytes(10, static_cast<uint8_t>(7 + 206)));
  ASSERT_TRUE(file.read(*b, 216, {}));
  EXPECT_EQ(file.file_bytes(), bytes.size());
}

TEST(Gguf, Version2AndAlignment) {
  for (const uint32_t alignment : {8u, 32u, 4096u, 65536u}) {
    GgufWriter w;
    w.version = 2;
    w.alignment = alignment;
    w.set("general.alignment", alignment);
    w.tensor("a", DType::kF16, {5}, counting_bytes(10, 0))
        .tensor("b", DType::kF16, {1}, counting_bytes(2, 99));
    const auto bytes = w.bytes();
    const GgufFile file = GgufFile::parse(bytes).value();
    EXPECT_EQ(file.version(), 2);
    std::vector<uint8_t> out(2);
    ASSERT_TRUE(file.read(*file.find("b"), 0, out));
    EXPECT_EQ(out, counting_bytes(2, 99));
    EXPECT_EQ(file.find("b")->offset % alignment, 0u);
  }
}

TEST(Gguf, NoTensorsNoPadding) {
  GgufWriter w;
  w.alignment = 1;  // a vocabulary-only file may end right after its metadata
  w.set("general.architecture", "llama");
  const auto bytes = w.bytes();
  const GgufFile file = GgufFile::parse(bytes).value();
  EXPECT_TRUE(file.tensors().empty());
}

TEST(Gguf, SetReplacesAValue) {
  const auto bytes = small_model().bytes();
  GgufFile file = GgufFile::parse(bytes).value();
  GgufMetadata m = file.metadata();
  auto owner = std::make_shared<std::vector<uint8_t>>(std::vector<uint8_t>{9});
  GgufValue value{GgufValueType::kU8, GgufValueType::kU8, 1, *owner, {}};
  m.set("u8", value, owner);
  m.set("new", value, owner);
  owner.reset();
  EXPECT_EQ(m.integer("u8", 0, 255).value(), 9);
  EXPECT_EQ(m.integer("new", 0, 255).value(), 9);
  EXPECT_EQ(file.metadata().integer("u8", 0, 255).value(), 200);
}

/// A directory of its own, removed afterwards.
class GgufOnDisk : public ::testing::Test {
 protected:
  void SetUp() override {
    directory_ = ::testing::TempDir() + "mete_gguf_" + std::to_string(::getpid());
    std::filesystem::create_directories(directory_);
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }
  std::string path(const std::string& name) const { return directory_ + "/" + name; }

  GgufWriter part(int number, int count, int64_t total) const {
    GgufWriter w;
    if (number == 1) w.set("general.architecture", "llama");
    w.set("split.no", static_cast<uint16_t>(number - 1)).set("split.count", static_cast<uint16_t>(count));
    w.set("split.tensors.count", static_cast<int32_t>(total));
    w.tensor(fmt::format("t{}", number), DType::kF32, {4},
             counting_bytes(16, static_cast<uint8_t>(number * 16)));
    return w;
  }
  void save_parts() const {
    for (int i = 1; i <= 3; ++i) part(i, 3, 3).save(path(fmt::format("m-{:05}-of-00003.gguf", i)));
  }
  std::string open_error(const std::string& name, Code expected) const {
    const auto result = GgufFile::open(path(name));
    if (result) return "no error";
    EXPECT_EQ(result.error().code(), expected) << result.error().message();
    const std::string& message = result.error().message();
    EXPECT_EQ(message.find('\n'), std::string::npos);
    return message.substr(0, directory_.size()) == directory_ ? message.substr(directory_.size() + 1)
                                                              : message;
  }

  std::string directory_;
};

TEST_F(GgufOnDisk, SplitFiles) {
  save_parts();
  for (const char* name : {"m-00001-of-00003.gguf", "m-00002-of-00003.gguf"}) {
    GgufFile file = GgufFile::open(path(name)).value();
    ASSERT_EQ(file.paths().size(), 3u);
    ASSERT_EQ(file.tensors().size(), 3u);
    EXPECT_EQ(file.metadata().string("general.architecture").value(), "llama");
    uint64_t sum = 0;
    for (int i = 1; i <= 3; ++i) {
      const GgufTensor* t = file.find(fmt::format("t{}", i));
      ASSERT_NE(t, nullptr);
      EXPECT_EQ(t->part, i - 1);
      std::vector<uint8_t> out(16);
      ASSERT_TRUE(file.read(*t, 0, out));
      EXPECT_EQ(out, counting_bytes(16, static_cast<uint8_t>(i * 16)));
      // Past the page cache where the file system allows it, and again from it.
      for (int round = 0; round < 2; ++round) {
        std::vector<uint8_t> buffer(9 + kDirectSlack + kDirectAlign);
        auto* aligned = reinterpret_cast<uint8_t*>(
            (reinterpret_cast<uintptr_t>(buffer.data()) + kDirectAlign - 1) / kDirectAlign * kDirectAlign);
        const auto got = file.read_into(*t, 3, 9, {aligned, 9 + kDirectSlack});
        ASSERT_TRUE(got);
        EXPECT_TRUE(std::equal(*got, *got + 9, out.data() + 3));
        file.spare_cache();
      }
      sum += std::filesystem::file_size(file.paths()[static_cast<size_t>(i - 1)]);
    }
    EXPECT_EQ(file.file_bytes(), sum);
  }
}

TEST_F(GgufOnDisk, SplitFileErrors) {
  const std::string first = "m-00001-of-00003.gguf", second = "m-00002-of-00003.gguf",
                    third = "m-00003-of-00003.gguf";
  save_parts();
  std::filesystem::remove(path(second));
  EXPECT_EQ(open_error(first, Code::kRuntime),
            second + ": cannot open: No such file or directory (part 2 of 3 of a split model)");
  part(3, 3, 3).save(path(second));
  EXPECT_EQ(open_error(first, Code::kBadModel), second + ": key \"split.no\" is 2, expected 1");
  part(2, 4, 3).save(path(second));
  EXPECT_EQ(open_error(first, Code::kBadModel),
            second + ": key \"split.count\" is 4, expected 3, from the file's name");
  part(2, 3, 3).tensor("extra", DType::kF32, {1}, counting_bytes(4, 0)).save(path(second));
  EXPECT_EQ(open_error(first, Code::kBadModel),
            first + ": key \"split.tensors.count\" is 3, expected 4, the sum over the parts");
  part(2, 3, 4).tensor("t1", DType::kF32, {1}, counting_bytes(4, 0)).save(path(second));
  EXPECT_EQ(open_error(first, Code::kBadModel),
            second + ": tensor \"t1\" is there twice, first in " + path(first));
  auto old = part(2, 3, 3);
  old.version = 2;
  old.save(path(second));
  EXPECT_EQ(open_error(first, Code::kBadModel),
            second + ": GGUF version is 2, expected 3 as in the first part");
  part(1, 3, 3).save(path("renamed.gguf"));
  EXPECT_EQ(open_error("renamed.gguf", Code::kBadModel),
            "renamed.gguf: key \"split.count\" is 3, expected 1, from the file's name");
  small_model().save(path("n-00001-of-00002.gguf"));
  EXPECT_EQ(open_error("n-00001-of-00002.gguf", Code::kBadModel),
            "n-00001-of-00002.gguf: key \"split.count\" is 1, expected 2, from the file's name");
  small_model().save(path("n-00003-of-00002.gguf"));
  EXPECT_EQ(open_error("n-00003-of-00002.gguf", Code::kBadModel),
            "n-00003-of-00002.gguf: part 3 of 2 in the file's name, expected 1 to 2");
  small_model().save(path("n-00001-of-00001.gguf"));
  EXPECT_TRUE(GgufFile::open(path("n-00001-of-00001.gguf")));
}

TEST_F(GgufOnDisk, FilesThatAreNone) {
  EXPECT_EQ(open_error("absent.gguf", Code::kRuntime), "absent.gguf: cannot open: No such file or directory");
  std::filesystem::create_directory(path("dir.gguf"));
  EXPECT_EQ(open_error("dir.gguf", Code::kRuntime), "dir.gguf: not a regular file");
  std::ofstream(path("empty.gguf")).flush();
  EXPECT_EQ(open_error("empty.gguf", Code::kBadModel),
            "empty.gguf: the file ends inside header magic: 0 bytes at offset 0, expected 4");
}

TEST_F(GgufOnDisk, TruncatedWhileRead) {
  small_model().save(path("m.gguf"));
  const GgufFile file = GgufFile::open(path("m.gguf")).value();
  const GgufTensor* b = file.find("b");
  std::filesystem::resize_file(path("m.gguf"), b->offset + 100);
  std::vector<uint8_t> out(b->bytes);
  const Status status = file.read(*b, 0, out);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code(), Code::kRuntime);
  EXPECT_EQ(status.error().message(),
            fmt::format("{}: the file was truncated while it was read: it ends at byte {}, expected {} bytes",
                        path("m.gguf"), b->offset + 100, file.file_bytes()));
}

TEST(Gguf, RealModels) {
  struct Expected {
    const char* file;
    const char* architecture;
    size_t tensors;
  };
  int found = 0;
  for (const Expected& e : {Expected{"SmolLM2-135M-Instruct.Q4_1.gguf", "llama", 272},
                            Expected{"gemma-3-270m-q4_k_m.gguf", "gemma3", 236},
                            Expected{"qwen2.5-coder-0.5b-instruct-q4_k_m.gguf", "qwen2", 291}}) {
    const std::string path = testing::model_path(e.file);
    if (!std::filesystem::exists(path)) continue;
    ++found;
    auto file = GgufFile::open(path);
    ASSERT_TRUE(file) << file.error().message();
    EXPECT_EQ(file->metadata().string("general.architecture").value(), e.architecture);
    EXPECT_EQ(file->tensors().size(), e.tensors);
    EXPECT_GT(file->metadata().strings("tokenizer.ggml.tokens").value().size(), 40000u);
  }
  if (found == 0) GTEST_SKIP() << "no model in " << testing::model_path("");
}

}  // namespace
}  // namespace mete
