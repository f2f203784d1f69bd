// The prefix cache across a restart: exact, or refused with the reason.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "testing/engine_fixture.h"

namespace mete {
namespace {

using testing::EngineTest;

class CacheFileTest : public EngineTest {
 protected:
  CacheFileTest() : file_(temporary(".kv")) {
    config_.context = 128;
    load();
    for (int i = 0; i < 70; ++i) prompt_.push_back((i * 37) % 300);
  }
  ~CacheFileTest() override { std::remove(file_.c_str()); }

  /// Runs two prompts and saves what the cache holds.
  void save() {
    Engine engine(*runtime_);
    run(engine, {request(prompt_, 5), request({9, 8, 7}, 3)});
    ASSERT_TRUE(engine.save_cache(file_));
  }
  std::string refusal() {
    Engine engine(*runtime_);
    const Result<RestoredCache> restored = engine.restore_cache(file_);
    if (restored) return "";
    EXPECT_EQ(engine.stats().kv_slots_cached, 0);
    EXPECT_EQ(runtime_->kv().bytes(), 0u);
    return restored.error().message().substr(file_.size() + 2);
  }
  std::string bytes() const {
    std::ifstream in(file_, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  void write(const std::string& bytes) const { std::ofstream(file_, std::ios::binary) << bytes; }

  std::string file_;
  std::vector<int32_t> prompt_;
};

TEST_F(CacheFileTest, ARestoredPrefixHasTheSameBits) {
  std::vector<int32_t> longer = prompt_;
  longer.push_back(11);
  const Outcome fresh = run_fresh({request(longer, 8)})[0];
  save();
  load();
  Engine engine(*runtime_);
  const Result<RestoredCache> restored = engine.restore_cache(file_);
  ASSERT_TRUE(restored) << restored.error().message();
  EXPECT_EQ(restored->tokens, 74 + 5);  // the last sampled token of each has no KV
  EXPECT_EQ(restored->left_out, 0);
  EXPECT_EQ(run(engine, {request(longer, 8)})[0], fresh);
  EXPECT_EQ(engine.stats().cache_hit_tokens, 70);
  EXPECT_EQ(std::filesystem::status(file_).permissions() & std::filesystem::perms::others_read,
            std::filesystem::perms::none);
}

TEST_F(CacheFileTest, WhatHasNoRoomIsLeftOutAndTheRestIsExact) {
  const Outcome fresh = run_fresh({request(prompt_, 8)})[0];
  {
    Engine engine(*runtime_);
    std::vector<Request> requests = {request(prompt_, 5)};
    for (int i = 0; i < 5; ++i) requests.push_back(request(std::vector<int32_t>(60, i), 5));
    run(engine, requests);
    ASSERT_TRUE(engine.save_cache(file_));
  }
  config_.kv_tokens = 128;
  load();
  Engine engine(*runtime_);
  const Result<RestoredCache> restored = engine.restore_cache(file_);
  ASSERT_TRUE(restored) << restored.error().message();
  EXPECT_GT(restored->tokens, 0);
  EXPECT_LE(restored->tokens, 128);
  EXPECT_EQ(restored->tokens + restored->left_out, 74 + 5 * 64);
  EXPECT_EQ(run(engine, {request(prompt_, 8)})[0], fresh);
}

TEST_F(CacheFileTest, AnotherModelContextOrCodecIsRefused) {
  save();
  EXPECT_EQ(refusal(), "");
  config_.context = 96;
  load();
  EXPECT_EQ(refusal(), "made for another context: found 128, expected 96");
  config_.context = 128;
  config_.key_codec = KvType::kBF16;
  load();
  EXPECT_EQ(refusal(), "made for another codec of keys: found 1, expected 2");
  config_.key_codec = KvType::kF16;
  write_model("mistral");
  load();
  EXPECT_EQ(refusal().substr(0, 46), "made for another model (first half of its hash");
}

TEST_F(CacheFileTest, DamageIsRefused) {
  save();
  const std::string good = bytes();
  const size_t head = 8 + 11 * 8 + 8;
  for (size_t at = 0; at < good.size(); at += at < head + 200 ? 1 : 997) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ 0x10);
    write(bad);
    EXPECT_NE(refusal(), "") << "byte " << at;
  }
  write(good.substr(0, good.size() - 1));
  EXPECT_EQ(refusal(), "damaged: it ends in record 3 of 4");
  write(good + "x");
  EXPECT_EQ(refusal(), "damaged: bytes follow the last of 4 records");
  write("");
  EXPECT_EQ(refusal(), "not a prefix cache file (\"METEKV02\" expected at its beginning)");
  write(good);
  EXPECT_EQ(refusal(), "");
}

TEST_F(CacheFileTest, SavingAndRestoringNeedACacheAndAnIdleEngine) {
  save();
  EngineConfig config;
  config.reuse = ReusePolicy::kNone;
  Engine none(*runtime_, config);
  EXPECT_FALSE(none.save_cache(file_));
  EXPECT_FALSE(none.restore_cache(file_));
  Engine busy(*runtime_);
  const SeqId id = busy.submit(request(prompt_, 5)).value();
  EXPECT_FALSE(busy.restore_cache(file_));
  busy.cancel(id);
  EXPECT_FALSE(busy.save_cache("/nonexistent/file"));
}

}  // namespace
}  // namespace mete
