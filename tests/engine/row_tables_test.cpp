// Embedding tables on the drive behind the engine: receipts, a drive that goes and comes back, a file that
// changes.
#include <gmock/gmock.h>

#include <fstream>

#include "engine/receipt.h"
#include "testing/bad_drive.h"
#include "testing/engine_fixture.h"

namespace mete {
namespace {

using testing::BadDrive;
using testing::EngineTest;

TEST_F(EngineTest, TablesOnTheDriveGiveTheSameTokensAndAReceipt) {
  write_model("llama3");
  load();
  const std::vector<Request> requests = {request({1, 2, 3, 4, 5}, 20), request({9, 8, 7}, 20, 0.8f, 3)};
  std::vector<Outcome> want;
  {
    Engine engine(*runtime_);
    EXPECT_TRUE(runtime_->row_stores().empty());
    want = run(engine, requests);
  }
  config_.embeddings = EmbeddingPlace::kDisk;
  load();
  Engine engine(*runtime_);
  EXPECT_EQ(run(engine, requests), want);
  ASSERT_EQ(runtime_->row_stores().size(), 1);
  const SeqId id = engine.submit(request({300, 301, 302}, 3)).value();
  while (!engine.idle()) engine.step();
  const auto json = embeddings_json(runtime_->row_stores(), engine.ledger(id).spent());
  EXPECT_EQ(json["tables"][0], "token_embd.weight");
  EXPECT_GE(json["rows_missed"], 3);
  EXPECT_GE(json["disk_bytes"].get<int64_t>(), json["disk_reads"].get<int64_t>() * 4096 / 2);
  EXPECT_GT(json["disk_reads"], 0);
  const MemoryUse use = runtime_->memory_use(0);
  EXPECT_GT(use.lines[static_cast<size_t>(MemoryItem::kEmbeddings)], 0);
}

TEST_F(EngineTest, ADriveThatGoesEndsTheRequestAndTheEngineLives) {
  bool gone = false;
  config_.embeddings = EmbeddingPlace::kDisk;
  config_.rows.cache_bytes = 1;
  config_.rows.wrap_reader = [&](auto reader) {
    return std::make_unique<BadDrive>(std::move(reader), 1 << 30, false, &gone);
  };
  write_model("llama3");
  load();
  Engine engine(*runtime_);
  const std::vector<Request> good = {request({1, 2, 3, 4, 5}, 20)};
  const std::vector<Outcome> want = run(engine, good);
  gone = true;
  const SeqId failed = engine.submit(request({200, 201, 202, 203}, 20)).value();
  FinishReason reason = FinishReason::kNone;
  while (!engine.idle()) {
    for (const TokenEvent& event : engine.step()) reason = event.reason;
  }
  EXPECT_EQ(reason, FinishReason::kError);
  EXPECT_THAT(engine.error(failed), ::testing::HasSubstr("cannot read row"));
  gone = false;
  EXPECT_EQ(run(engine, good), want);
}

TEST_F(EngineTest, AFileThatChangesIsSeenBeforeTheNextRequest) {
  config_.embeddings = EmbeddingPlace::kDisk;
  write_model("llama3");
  load();
  Engine engine(*runtime_);
  run(engine, {request({1, 2, 3}, 4)});
  std::ofstream(path_, std::ios::app) << "more";
  const Result<SeqId> refused = engine.submit(request({1, 2, 3}, 4));
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message(), ::testing::HasSubstr("the file changed while in use"));
}

}  // namespace
}  // namespace mete
