// Row tables on the drive give the logits of tables in memory, in every batch split, beside experts that are
// on the drive too, and after faults.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>

#include "exactness/machine.h"
#include "testing/bad_drive.h"
#include "testing/tiny_models.h"

namespace mete::testing {
namespace {

class RowTables : public ::testing::TestWithParam<const char*> {
 protected:
  RowTables() : path_(::testing::TempDir() + "/mete_tables_" + std::to_string(::getpid()) + GetParam()) {}
  ~RowTables() override { std::remove(path_.c_str()); }
  void write(DType type) {
    const std::vector<uint8_t> bytes = named_tiny_model_gguf(GetParam(), type);
    std::ofstream(path_, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    file_ = std::make_unique<GgufFile>(GgufFile::open(path_).value());
  }
  std::unique_ptr<Machine> machine(bool on_disk) {
    config_.rows_on_disk = on_disk;
    return std::make_unique<Machine>(*file_, config_);
  }

  std::string path_;
  std::unique_ptr<GgufFile> file_;
  MachineConfig config_;
};
INSTANTIATE_TEST_SUITE_P(Models, RowTables,
                         ::testing::Values("llama3", "phi3", "qwen3moe", "deepseek2", "gemma3n"),
                         [](const auto& test) { return std::string(test.param); });

TEST_P(RowTables, OnDiskAsInMemory) {
  for (const DType type : {DType::kF16, DType::kQ8_0, DType::kQ4_K}) {
    SCOPED_TRACE(name(type));
    config_.threads = type == DType::kQ8_0 ? 2 : 1;
    write(type);
    ASSERT_FALSE(read_model_config(*file_).row_tables.empty());
    const auto resident = machine(false);
    EXPECT_TRUE(resident->model().row_stores().empty());
    const std::vector<int32_t> tokens = some_tokens(60, resident->vocab());
    const std::vector<float> want = run_logits(*resident, tokens, 60);
    for (const int64_t cache : {0, 1}) {
      config_.rows.cache_bytes = cache;
      const auto m = machine(true);
      ASSERT_FALSE(m->model().row_stores().empty());
      EXPECT_LT(m->model().resident().weights, resident->model().resident().weights);
      for (const int64_t chunk : {1, 7, 60}) EXPECT_TRUE(run_logits(*m, tokens, chunk) == want) << chunk;
      EXPECT_TRUE(run_logits(*m, tokens, 20, 2) == want);
      EXPECT_GT(m->model().row_stores()[0]->stats().disk_bytes, 0);
    }
  }
}

TEST_P(RowTables, FaultsAreRetriedAndADriveMayComeBack) {
  write(DType::kQ8_0);
  config_.threads = 1;
  const auto resident = machine(false);
  const std::vector<int32_t> tokens = some_tokens(60, resident->vocab());
  const std::vector<float> want = run_logits(*resident, tokens, 20);
  for (const bool cut : {false, true}) {
    bool gone = false;
    config_.rows.cache_bytes = 1;
    config_.rows.retries = 20;  // every third read is bad: four bad ones for the same row do occur
    config_.rows.wrap_reader = [&](auto reader) {
      return std::make_unique<BadDrive>(std::move(reader), 3, cut, &gone);
    };
    const auto m = machine(true);
    EXPECT_TRUE(run_logits(*m, tokens, 20) == want);
    gone = true;
    try {
      run_logits(*m, some_tokens(60, m->vocab(), 7), 20);
      ADD_FAILURE() << "no error";
    } catch (const Error& error) {
      EXPECT_EQ(error.exit_code(), 1);
      EXPECT_THAT(error.message(), ::testing::HasSubstr("cannot read row"));
    }
    gone = false;
    EXPECT_TRUE(run_logits(*m, tokens, 20) == want);
  }
}

}  // namespace
}  // namespace mete::testing
