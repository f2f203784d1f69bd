// The expert store gives the bytes that the file holds, whatever the arena, the policy, the way of reading
// and the faults of the drive.
#include "weights/expert_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <set>

#include "testing/expert_file.h"
#include "weights/pack_experts.h"
#include "weights/replace/learned_rule.h"

namespace mete {
namespace {

using testing::ExpertFile;
using ::testing::HasSubstr;

/// Reads that are slow, short, out of order, or fail.
class FaultyReader final : public AsyncReader {
 public:
  struct Faults {
    int fail_every = 0;      ///< every n-th read ends with EIO
    int short_every = 0;     ///< every n-th read ends early
    bool hold_back = false;  ///< what ends is returned last come, first served, and only when waited for
    bool broken = false;     ///< all reads fail
  };
  FaultyReader(std::unique_ptr<AsyncReader> reader, const Faults& faults)
      : reader_(std::move(reader)), faults_(faults) {}

  void submit(const ReadRequest& request) noexcept override { reader_->submit(request); }

  size_t collect(std::span<ReadDone> done, bool wait) noexcept override {
    if (faults_.hold_back && !wait) {
      reader_->collect({}, false);  // only pushes submissions on
      return 0;
    }
    size_t n = reader_->collect(done, wait);
    if (faults_.hold_back) std::reverse(done.begin(), done.begin() + static_cast<std::ptrdiff_t>(n));
    for (size_t i = 0; i < n; ++i) {
      ++count_;
      if (faults_.broken || (faults_.fail_every > 0 && count_ % faults_.fail_every == 0))
        done[i].result = -EIO;
      if (faults_.short_every > 0 && count_ % faults_.short_every == 0 && done[i].result > 5000) {
        done[i].result = 5000;
      }
    }
    return n;
  }
  int depth() const override { return reader_->depth(); }
  std::string how() const override { return reader_->how(); }

 private:
  std::unique_ptr<AsyncReader> reader_;
  const Faults& faults_;
  int count_ = 0;
};

struct Rng {
  uint64_t position = 0;
  uint64_t operator()(uint64_t below) { return random_bits(11, position++, Purpose::kTest) % below; }
};

std::vector<ExpertDemand> draw(Rng& rng, uint64_t most) {
  std::set<int32_t> ids;
  const uint64_t count = 1 + rng(most);
  while (ids.size() < count) ids.insert(static_cast<int32_t>(rng(ExpertFile::kExperts)));
  std::vector<ExpertDemand> out;
  for (const int32_t id : ids) out.push_back({id, 1});
  return out;
}

class ExpertStoreTest : public ::testing::Test {
 protected:
  ExpertStoreTest() : file(::testing::UnitTest::GetInstance()->current_test_info()->name()) {
    for (int layer = 0; layer < ExpertFile::kLayers; ++layer) {
      for (int32_t e = 0; e < ExpertFile::kExperts; ++e) expected.push_back(file.expected(layer, e));
    }
    rule = LearnedRule(std::vector<LearnedNet>(ExpertFile::kLayers));
    config.slots = 9, config.guess_threshold = 0;
    config.replace.learned = &rule;
  }

  ExpertStore make() { return ExpertStore(ctx, *file.file, file.declaration, config); }

  const std::vector<uint8_t>& bytes(int layer, int32_t expert) const {
    return expected[static_cast<size_t>(layer * ExpertFile::kExperts + expert)];
  }

  /// Serves one layer, checks what is given; false if the store gave an Error.
  bool serve(ExpertStore& store, int layer, const std::vector<ExpertDemand>& demands, int stop_after = 1000) {
    store.begin(layer, demands);
    if (store.wants_hints()) store.hint((layer + 1) % ExpertFile::kLayers, draw(rng, 4));
    std::set<int32_t> given;
    while (stop_after-- > 0) {
      const auto ready = store.next();
      if (!ready) {
        message = ready.error().message();
        store.end();
        return false;
      }
      if ((*ready).empty()) break;
      for (const auto& r : *ready) {
        EXPECT_TRUE(given.insert(r.demand).second);
        const int32_t expert = demands[static_cast<size_t>(r.demand)].expert;
        EXPECT_TRUE(ExpertFile::panels(r.weights) == bytes(layer, expert))
            << "layer " << layer << " expert " << expert;
      }
    }
    if (stop_after > 0) {
      EXPECT_EQ(given.size(), demands.size());
    }
    store.end();
    return true;
  }

  void serve_many(ExpertStore& store, int steps) {
    rng = Rng{};
    for (int step = 0; step < steps; ++step) {
      EXPECT_TRUE(serve(store, step % ExpertFile::kLayers, draw(rng, step % 5 == 0 ? 8 : 2))) << message;
    }
  }

  ThreadPool pool{2};
  KernelTable table{};
  Context ctx{pool, table};
  ExpertFile file;
  std::vector<std::vector<uint8_t>> expected;
  LearnedRule rule;
  ExpertStoreConfig config;
  Rng rng;
  std::string message;
};

TEST_F(ExpertStoreTest, GivesTheBytesOfTheFileForEveryArenaAndPolicy) {
  for (const ReplaceKind kind : kAllReplaceKinds) {
    for (const bool shared : {false, true}) {
      for (const int32_t guesses : {0, 2, 5}) {
        for (const int64_t slots : {3, 4, 7, 13, 24}) {
          config.replace.kind = kind;
          config.shared = shared, config.guesses = guesses, config.slots = slots;
          ExpertStore store = make();
          serve_many(store, 60);
          EXPECT_EQ(store.stats().counts.hits + store.stats().counts.misses > 60, true);
        }
      }
    }
  }
}

TEST_F(ExpertStoreTest, CountsDoNotDependOnTheReader) {
  PackOptions options;
  ASSERT_TRUE(pack_experts(ctx, *file.file, file.declaration, file.path + ".pack", options));
  config.guesses = 3;
  ExpertStore reference = make();
  serve_many(reference, 200);
  const ExpertCounts want = reference.stats().counts;
  FaultyReader::Faults faults;
  const auto check = [&](const char* what) {
    ExpertStore store = make();
    serve_many(store, 200);
    const ExpertCounts got = store.stats().counts;
    EXPECT_EQ(got.hits, want.hits) << what;
    EXPECT_EQ(got.misses, want.misses) << what;
    EXPECT_EQ(got.guesses, want.guesses) << what;
    EXPECT_EQ(got.useful_guesses, want.useful_guesses) << what;
  };
  config.direct = false;
  check("buffered");
  config.direct = true;
  config.way = ReadWay::kThreads;
  for (const int threads : {1, 2, 8}) {
    config.threads = threads;
    check("threads");
  }
  config.depth = 1;
  check("depth 1");
  config.depth = 8;
  config.wrap_reader = [&](auto reader) { return std::make_unique<FaultyReader>(std::move(reader), faults); };
  faults.hold_back = true;
  check("slow and out of order");
  faults = {};
  faults.short_every = 2;
  check("short");
  faults = {};
  faults.fail_every = 5;
  check("failing now and then");
  faults = {};
  config.wrap_reader = nullptr;
  config.pack_path = file.path + ".pack";
  check("packed, threads");
  config.way = ReadWay::kAuto;
  check("packed");
}

TEST_F(ExpertStoreTest, AReadThatFailsForGoodIsAnErrorAndTheStoreLivesOn) {
  FaultyReader::Faults faults;
  config.wrap_reader = [&](auto reader) { return std::make_unique<FaultyReader>(std::move(reader), faults); };
  for (const int32_t guesses : {0, 2}) {
    config.guesses = guesses;
    ExpertStore store = make();
    serve_many(store, 20);
    faults.broken = true;
    int failures = 0;
    for (int step = 0; step < 12; ++step) failures += serve(store, step % 3, draw(rng, 8)) ? 0 : 1;
    EXPECT_GT(failures, 0);
    EXPECT_THAT(message, HasSubstr("cannot read expert"));
    EXPECT_THAT(message, HasSubstr("Input/output error"));
    faults.broken = false;
    serve_many(store, 60);
    EXPECT_TRUE(guesses > 0 || store.reads_under_way() == 0);
  }
}

TEST_F(ExpertStoreTest, ALayerMayEndEarly) {
  for (const int64_t slots : {3, 9}) {
    for (const int32_t guesses : {0, 2}) {
      config.slots = slots, config.guesses = guesses;
      ExpertStore store = make();
      for (int step = 0; step < 100; ++step) {
        serve(store, step % 3, draw(rng, 8), step % 4);
        EXPECT_TRUE(guesses > 0 || store.reads_under_way() == 0);
        EXPECT_TRUE(step % 10 != 0 || serve(store, step % 3, draw(rng, 8)));
      }
    }
  }
}

TEST_F(ExpertStoreTest, ResizesBetweenSteps) {
  for (const bool shared : {false, true}) {
    config.shared = shared, config.guesses = 2;
    ExpertStore store = make();
    for (const int64_t slots : {3, 24, 5, 16, 4, 100, 9}) {
      ASSERT_TRUE(store.resize(slots));
      EXPECT_EQ(store.slots(), std::min<int64_t>(slots, 24));
      serve_many(store, 40);
    }
    EXPECT_FALSE(store.resize(1));
    EXPECT_EQ(store.slots(), 9);
  }
}

TEST_F(ExpertStoreTest, NothingIsReadTwiceWhenAllFits) {
  config.slots = 24;
  ExpertStore store = make();
  serve_many(store, 300);
  EXPECT_EQ(store.stats().counts.misses, 24);
  const int64_t bytes = store.stats().disk_bytes;
  serve_many(store, 100);
  EXPECT_EQ(store.stats().disk_bytes, bytes);
}

TEST_F(ExpertStoreTest, RefusesAnArenaBelowTheFloor) {
  config.slots = 2;
  EXPECT_THROW(make(), Error);
  config.shared = true;
  EXPECT_NO_THROW(make());
  EXPECT_EQ(expert_store_floor_slots(file.declaration, false), 3);
  EXPECT_EQ(expert_store_floor_slots(file.declaration, true), 2);
}

TEST_F(ExpertStoreTest, SeesThatTheFileChanged) {
  const ExpertStore store = make();
  EXPECT_TRUE(store.check_files());
  std::ofstream(file.path, std::ios::app) << "more";
  const Status changed = store.check_files();
  ASSERT_FALSE(changed);
  EXPECT_THAT(changed.error().message(), HasSubstr(file.path));
}

TEST_F(ExpertStoreTest, PackGoesOnWhereItWasInterrupted) {
  const std::string pack = file.path + ".pack";
  PackOptions options;
  options.stop_after = 10;
  EXPECT_FALSE(pack_experts(ctx, *file.file, file.declaration, pack, options));
  {  // a record of the first run is damaged: it is made again
    std::fstream partial(pack + ".partial", std::ios::in | std::ios::out | std::ios::binary);
    partial.seekp(static_cast<std::streamoff>(ExpertPackDirectory::directory_bytes(3, 8)) + 100);
    partial << "damage";
  }
  options.stop_after = 15;  // 14 are left and the damaged one
  ASSERT_TRUE(pack_experts(ctx, *file.file, file.declaration, pack, options));
  config.pack_path = pack;
  ExpertStore store = make();
  serve_many(store, 60);
  EXPECT_FALSE(pack_experts(ctx, *file.file, file.declaration, pack, options)) << "is there already";
}

TEST_F(ExpertStoreTest, RefusesABrokenPackWithTheCommandThatRemakesIt) {
  const std::string pack = file.path + ".pack";
  ASSERT_TRUE(pack_experts(ctx, *file.file, file.declaration, pack, {}));
  const auto refused = [&](std::streamoff at, const char* bytes, const char* why) {
    std::string before(std::strlen(bytes), '\0');
    std::fstream f(pack, std::ios::in | std::ios::out | std::ios::binary);
    f.seekg(at), f.read(before.data(), static_cast<std::streamsize>(before.size()));
    f.seekp(at), f << bytes << std::flush;
    const auto opened = open_expert_pack(*file.file, file.declaration, pack);
    f.seekp(at), f << before << std::flush;
    if (opened) return false;
    EXPECT_THAT(opened.error().message(), HasSubstr(why));
    EXPECT_THAT(opened.error().message(),
                HasSubstr("mete pack -m " + file.path + " -o " + pack + " --force"));
    return true;
  };
  EXPECT_TRUE(refused(0, "nothing", "not an expert pack"));
  EXPECT_TRUE(refused(8, "\x07", "version is 7, expected 1"));
  EXPECT_TRUE(refused(200, "xyz", "wrong checksum"));
  EXPECT_TRUE(open_expert_pack(*file.file, file.declaration, pack));
  const ExpertFile other("other", false);
  const auto of_other = open_expert_pack(*other.file, other.declaration, pack);
  ASSERT_FALSE(of_other);
  EXPECT_THAT(of_other.error().message(), HasSubstr("another file"));

  std::fstream f(pack, std::ios::in | std::ios::out | std::ios::binary);  // a record
  f.seekp(static_cast<std::streamoff>(ExpertPackDirectory::directory_bytes(3, 8)) + 100),
      f << "damage" << std::flush;
  config.pack_path = pack;
  ExpertStore store = make();
  EXPECT_FALSE(serve(store, 0, {{0, 1}}));
  EXPECT_THAT(message, HasSubstr("wrong checksum; remake it with: mete pack"));
  EXPECT_TRUE(serve(store, 0, {{1, 1}}));
}

}  // namespace
}  // namespace mete
