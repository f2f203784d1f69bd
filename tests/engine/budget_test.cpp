#include "engine/budget.h"

#include <gtest/gtest.h>

#include "base/aligned.h"
#include "testing/tiny_models.h"

namespace mete {
namespace {

constexpr int64_t kMiB = int64_t{1} << 20;

/// A model of 100 MiB of weights; a token takes 48 KiB of KV, a row 40 KiB of activations.
class BudgetTest : public ::testing::Test {
 protected:
  BudgetTest()
      : bytes_(testing::named_tiny_model_gguf("llama", DType::kQ4_0)),
        file_(GgufFile::parse(bytes_).value()) {
    model_.layers = model_.kv_layers = 24;
    model_.d_model = 1024;
    model_.heads = 16;
    model_.kv_heads = 8;
    model_.head_dim = 64;
    model_.vocab = 32000;
    model_.context_train = 32768;
    model_.weight_bytes = 100 * kMiB;
    model_.row_bytes = 40 << 10;
    model_.worker_bytes = 256 << 10;
    model_.unit_bytes = 16 << 10;
    demand_.max_rows = 512;
    demand_.threads = 2;
    demand_.kv.kv_layers = model_.kv_layers;
    demand_.kv.kv_heads = model_.kv_heads;
    demand_.kv.head_dim = model_.head_dim;
  }
  void add_experts() {
    model_.experts.experts = 64;
    model_.experts.used = 4;
    model_.experts.d_model = 1024;
    model_.experts.ffn = 256;
    constexpr uint64_t kBytes = 1024 * 256 * 64 / 32 * 18;
    inner_ = {"inner", DType::kQ4_0, 3, {1024, 256, 64, 1}, 0, 0, kBytes};
    outer_ = {"outer", DType::kQ4_0, 3, {256, 1024, 64, 1}, 0, 0, kBytes};
    model_.experts.layers.assign(24, {&inner_, &inner_, &outer_, nullptr, nullptr, nullptr});
    model_.expert_bytes = 24 * 64 * expert_slot_bytes(model_.experts);
    model_.weight_bytes = 100 * kMiB + model_.expert_bytes;
  }
  void add_table() {
    constexpr int64_t kBytes = 32000 * 1024 / 32 * 34;
    table_ = {"table", DType::kQ8_0, 2, {1024, 32000, 1, 1}, 0, 0, kBytes};
    model_.row_tables = {{&table_, kBytes}};
  }
  MemoryPlan plan() const { return plan_memory(file_, model_, demand_).value(); }
  static int64_t line(const MemoryPlan& plan, MemoryItem item) {
    return plan.lines[static_cast<size_t>(item)];
  }

  std::vector<uint8_t> bytes_;
  GgufFile file_;
  ModelConfig model_;
  GgufTensor inner_{}, outer_{}, table_{};
  MemoryDemand demand_;
};

TEST_F(BudgetTest, WithoutACeilingNothingIsMadeSmaller) {
  const MemoryPlan p = plan();
  EXPECT_EQ(p.budget, 0);
  EXPECT_EQ(p.context, 32768);
  EXPECT_EQ(p.max_rows, 512);
  EXPECT_TRUE(p.choices.empty());
  EXPECT_EQ(line(p, MemoryItem::kWeights), 100 * kMiB);
  EXPECT_GE(line(p, MemoryItem::kKv), int64_t{32768} * 24 * 8 * 64 * 4);
}

TEST_F(BudgetTest, TheFloorIsTheLeastCeilingThatIsTaken) {
  demand_.context = 1024;
  for (const bool experts : {false, true}) {
    if (experts) add_experts();
    demand_.budget = kMiB;
    const Result<MemoryPlan> refused = plan_memory(file_, model_, demand_);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code(), Code::kOverBudget);
    demand_.budget = int64_t{4} << 30;
    const int64_t floor = plan().floor;
    EXPECT_NE(refused.error().message().find(
                  fmt::format("floor of {:.1f} MiB", static_cast<double>(floor) / 0x1p20)),
              std::string::npos)
        << refused.error().message();
    demand_.budget = floor - 1;
    EXPECT_FALSE(plan_memory(file_, model_, demand_));
    demand_.budget = floor;
    const MemoryPlan p = plan();
    EXPECT_EQ(p.context, 1024);
    EXPECT_EQ(p.max_rows, 8);
    EXPECT_EQ(p.slots_per_layer, experts ? 1 : 0);
    EXPECT_FALSE(p.choices.empty());
  }
}

TEST_F(BudgetTest, EveryPlanStaysBelowItsCeilingAndSaysWhatItMadeSmaller) {
  for (const bool experts : {false, true}) {
    if (experts) add_experts();
    for (const int64_t context : {0, 1024, 8192}) {
      demand_.context = context;
      demand_.budget = int64_t{6} << 30;
      int64_t rows = 0, slots = 0, longest = 0;
      for (int64_t budget = plan().floor; budget < int64_t{4} << 30; budget += budget / 16) {
        demand_.budget = budget;
        const MemoryPlan p = plan();
        EXPECT_LE(total(p.lines), budget);
        if (context > 0) {
          EXPECT_EQ(p.context, context);
          EXPECT_GE(p.slots_per_layer + 1, slots);
        }
        const size_t smaller = (p.context < 32768 && context == 0) + (p.max_rows < 512);
        EXPECT_GE(p.choices.size(), smaller);
        if (!experts) {  // a higher ceiling never gives less
          EXPECT_GE(p.context, longest);
          EXPECT_GE(p.max_rows, rows);
        }
        rows = p.max_rows;
        longest = p.context;
        slots = p.slots_per_layer;
      }
      EXPECT_EQ(slots, experts ? 64 : 0);
    }
  }
}

TEST_F(BudgetTest, AskedSlotsAreKept) {
  add_experts();
  demand_.context = 1024;
  demand_.slots_per_layer = 9;
  demand_.budget = int64_t{2} << 30;
  const MemoryPlan p = plan();
  EXPECT_EQ(p.slots_per_layer, 9);
  EXPECT_EQ(line(p, MemoryItem::kExperts), 9 * 24 * expert_slot_bytes(model_.experts));
}

TEST(Memory, CeilingsThatCannotBeAreRefused) {
  EXPECT_EQ(parse_memory("512M").value(), 512 * kMiB);
  const Result<int64_t> word = parse_memory("lots");
  ASSERT_FALSE(word);
  EXPECT_EQ(word.error().code(), Code::kUsage);
  EXPECT_EQ(word.error().message(),
            "--memory: found 'lots', expected a size such as 6GiB, 512M or 800MB, or auto");
  const Result<int64_t> large = parse_memory("900T");
  ASSERT_FALSE(large);
  EXPECT_NE(large.error().message().find("larger than this machine's memory"), std::string::npos);
  const int64_t automatic = parse_memory("auto").value();
  EXPECT_GT(automatic, 0);
  EXPECT_LT(automatic, static_cast<int64_t>(memory_available()) + 256 * kMiB);
}

TEST_F(BudgetTest, TablesStayOnTheDriveOnlyWhereTheCeilingNeedsIt) {
  add_table();
  demand_.context = 1024;
  demand_.budget = int64_t{4} << 30;
  const MemoryPlan roomy = plan();
  EXPECT_FALSE(roomy.rows_on_disk);
  EXPECT_EQ(line(roomy, MemoryItem::kEmbeddings), 0);
  demand_.embeddings = EmbeddingPlace::kMemory;
  const int64_t floor_in_memory = plan().floor;
  const int64_t saved = table_.bytes - row_store_bytes(table_, {}, 8);
  EXPECT_NEAR(static_cast<double>(floor_in_memory - roomy.floor), static_cast<double>(saved),
              0.01 * static_cast<double>(saved));

  demand_.budget = floor_in_memory - 1;
  EXPECT_FALSE(plan_memory(file_, model_, demand_));
  demand_.embeddings = EmbeddingPlace::kAuto;
  for (const int64_t budget : {roomy.floor, (roomy.floor + floor_in_memory) / 2, floor_in_memory}) {
    demand_.budget = budget;
    const MemoryPlan p = plan();
    EXPECT_TRUE(p.rows_on_disk);
    EXPECT_LE(total(p.lines), budget);
    EXPECT_EQ(line(p, MemoryItem::kEmbeddings),
              (row_store_bytes(table_, {}, p.max_rows) + 4095) / 4096 * 4096);
    EXPECT_NE(p.choices.at(0).find("table (33.2 MiB)"), std::string::npos) << p.choices[0];
  }
}

TEST_F(BudgetTest, TablesGoToTheDriveBeforeStepsAndContextSuffer) {
  add_table();
  demand_.budget = int64_t{4} << 30;
  demand_.context = 0;
  demand_.embeddings = EmbeddingPlace::kMemory;
  demand_.budget = plan().floor + kMiB;
  EXPECT_LT(plan().max_rows, 64);
  EXPECT_LT(plan().context, 4096);
  demand_.embeddings = EmbeddingPlace::kAuto;
  EXPECT_TRUE(plan().rows_on_disk);
  EXPECT_GE(plan().max_rows, 64);
}

TEST_F(BudgetTest, ExpertsTakeWhatTablesGiveUp) {
  add_experts();
  add_table();
  demand_.context = 1024;
  demand_.budget = int64_t{4} << 30;
  demand_.budget = plan().floor + 64 * kMiB;
  const MemoryPlan automatic = plan();
  EXPECT_TRUE(automatic.rows_on_disk);
  demand_.embeddings = EmbeddingPlace::kMemory;
  EXPECT_GT(automatic.slots_per_layer, plan().slots_per_layer);
  demand_.embeddings = EmbeddingPlace::kAuto;
  demand_.budget = int64_t{4} << 30;  // all experts fit
  EXPECT_FALSE(plan().rows_on_disk);
}

TEST_F(BudgetTest, TablesOnTheDriveWithoutACeilingAreSaid) {
  demand_.embeddings = EmbeddingPlace::kDisk;
  const Result<MemoryPlan> refused = plan_memory(file_, model_, demand_);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), Code::kUsage);
  add_table();
  const MemoryPlan p = plan();
  EXPECT_TRUE(p.rows_on_disk);
  EXPECT_EQ(p.choices.size(), 1);
  EXPECT_GT(line(p, MemoryItem::kEmbeddings), 0);
  EXPECT_EQ(line(p, MemoryItem::kWeights), (100 * kMiB - table_.bytes + 4095) / 4096 * 4096);
}

}  // namespace
}  // namespace mete
