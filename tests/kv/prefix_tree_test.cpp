#include "kv/reuse/prefix_tree.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "base/rng.h"

namespace mete {
namespace {

constexpr int32_t kNone = PrefixTree::kNone;
using Tokens = std::vector<int32_t>;

int64_t common(const Tokens& a, const Tokens& b) {
  return std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin();
}

/// A tree, the free blocks around it, and running sequences, beside a dictionary of all cached prefixes.
class Fuzz {
 public:
  static constexpr int64_t kPage = 4, kBlocks = 40;
  Fuzz(ReusePolicy policy, uint64_t seed)
      : tree_(kPage, kBlocks, make_eviction_policy(policy, kBlocks, seed)), seed_(seed) {
    for (BlockId b = 0; b < kBlocks; ++b) free_.insert(b);
  }

  void operate() {
    const uint64_t kind = dice(10);
    if (kind < 3 && running_.size() < 4) {
      start();
    } else if (kind < 8 && !running_.empty()) {
      grow(running_[dice(running_.size())]);
    } else if (!running_.empty()) {
      finish(dice(running_.size()));
    }
  }

  void check() const {
    ASSERT_TRUE(tree_.consistent());
    size_t own = 0;
    std::set<int32_t> locked;
    for (const Sequence& s : running_) {
      own += s.own.size();
      for (int32_t node = s.node; node != kNone; node = tree_.parent(node)) {
        ASSERT_TRUE(tree_.locked(node));
        ASSERT_EQ(blocks_.count(tree_.block(node)), 1u);  // never evicted under a user
        locked.insert(node);
      }
    }
    ASSERT_EQ(tree_.locked_nodes(), static_cast<int64_t>(locked.size()));
    ASSERT_EQ(tree_.nodes(), static_cast<int64_t>(blocks_.size()));
    ASSERT_EQ(free_.size() + blocks_.size() + own, static_cast<size_t>(kBlocks));
  }

  void drain() {
    while (!running_.empty()) finish(0);
    while (evict()) {
    }
    ASSERT_EQ(tree_.nodes(), 0);
    ASSERT_EQ(free_.size(), static_cast<size_t>(kBlocks));
    ASSERT_TRUE(tree_.consistent());
  }
  int64_t hits() const { return hits_; }
  int64_t evictions() const { return evictions_; }

 private:
  struct Sequence {
    uint64_t salt;
    Tokens tokens;
    int32_t node;
    int64_t pages;             // in the tree
    std::vector<BlockId> own;  // of pages that are not
  };
  struct Entry {
    uint64_t salt;
    Tokens tokens;  // from the first page on
  };

  uint64_t dice(uint64_t sides) { return random_bits(seed_, at_++, Purpose::kTest) % sides; }

  void start() {
    Sequence s{dice(2), {}, kNone, 0, {}};
    for (uint64_t i = 1 + dice(20); i > 0; --i) s.tokens.push_back(static_cast<int32_t>(dice(2)));
    const PrefixTree::Match m = tree_.match(s.salt, s.tokens);
    int64_t best = 0;
    for (const auto& [block, entry] : blocks_) {
      if (entry.salt == s.salt) best = std::max(best, common(entry.tokens, s.tokens));
    }
    ASSERT_EQ(m.pages * kPage + m.tail_tokens, best);
    if (m.node != kNone) {
      ASSERT_EQ(tree_.salt(m.node), s.salt);
    }
    hits_ += best;
    tree_.use(m.node, m.tail);
    if (m.node != kNone) tree_.lock(m.node);
    s.node = m.node;
    s.pages = m.pages;
    // Its KV: pages that match whole are shared; the others are its own.
    const int64_t pages = (static_cast<int64_t>(s.tokens.size()) + kPage - 1) / kPage;
    running_.push_back(s);
    for (int64_t p = m.pages; p < pages; ++p) {
      if (!take(running_.back())) return finish(running_.size() - 1);
    }
  }

  bool take(Sequence& s) {
    if (free_.empty()) {
      tree_.begin_eviction(1);
      if (!evict()) {
        s.tokens.resize(std::min(s.tokens.size(),
                                 static_cast<size_t>(s.pages + static_cast<int64_t>(s.own.size())) * kPage));
        return false;
      }
    }
    s.own.push_back(*free_.begin());
    free_.erase(free_.begin());
    return true;
  }

  bool evict() {
    const BlockId block = tree_.evict();
    if (block == kNone) return false;
    const Entry& gone = blocks_.at(block);
    for (const auto& [other, entry] : blocks_) {  // leaves first
      if (other == block || entry.salt != gone.salt || entry.tokens.size() <= gone.tokens.size()) continue;
      EXPECT_NE(common(entry.tokens, gone.tokens), static_cast<int64_t>(gone.tokens.size()));
    }
    blocks_.erase(block);
    free_.insert(block);
    ++evictions_;
    return true;
  }

  void put(Sequence& s, int64_t length) {
    const int64_t begin = s.pages * kPage;
    const auto in = tree_.insert(
        s.node, s.salt, std::span(s.tokens).subspan(static_cast<size_t>(begin), static_cast<size_t>(length)),
        s.own.front());
    if (in.superseded != kNone) {
      ASSERT_EQ(blocks_.erase(in.superseded), 1u);
      free_.insert(in.superseded);
    }
    if (in.is_new) {
      blocks_[s.own.front()] = {s.salt, Tokens(s.tokens.begin(), s.tokens.begin() + begin + length)};
    } else {
      free_.insert(s.own.front());
    }
    s.own.erase(s.own.begin());
    tail_ = in.node;
    if (length < kPage) return;
    if (s.node == kNone) {
      tree_.lock(in.node);
    } else {
      tree_.lock_child(in.node);
    }
    s.node = in.node;
    ++s.pages;
  }

  void grow(Sequence& s) {
    for (uint64_t i = dice(3); i > 0; --i) {
      const int64_t room = (s.pages + static_cast<int64_t>(s.own.size())) * kPage;
      if (static_cast<int64_t>(s.tokens.size()) == room && !take(s)) break;
      s.tokens.push_back(static_cast<int32_t>(dice(2)));
    }
    while ((s.pages + 1) * kPage <= static_cast<int64_t>(s.tokens.size())) put(s, kPage);
  }

  void finish(size_t index) {
    Sequence& s = running_[index];
    while ((s.pages + 1) * kPage <= static_cast<int64_t>(s.tokens.size())) put(s, kPage);
    tail_ = kNone;
    if (!s.own.empty()) put(s, static_cast<int64_t>(s.tokens.size()) - s.pages * kPage);
    tree_.use(s.node, tail_);
    if (s.node != kNone) tree_.unlock(s.node);
    running_.erase(running_.begin() + static_cast<std::ptrdiff_t>(index));
  }

  PrefixTree tree_;
  uint64_t seed_, at_ = 0;
  std::set<BlockId> free_;
  std::map<BlockId, Entry> blocks_;  // in the tree
  std::vector<Sequence> running_;
  int32_t tail_ = kNone;
  int64_t hits_ = 0, evictions_ = 0;
};

class Policies : public ::testing::TestWithParam<ReusePolicy> {};

TEST_P(Policies, RandomOperationsAgreeWithADictionaryOfPrefixes) {
  for (uint64_t seed = 0; seed < 2; ++seed) {
    Fuzz fuzz(GetParam(), seed);
    for (int op = 0; op < 100000; ++op) {
      fuzz.operate();
      fuzz.check();
      if (HasFatalFailure() || HasNonfatalFailure()) FAIL() << "operation " << op;
    }
    EXPECT_GT(fuzz.hits(), 10000);
    EXPECT_GT(fuzz.evictions(), 10000);
    fuzz.drain();
  }
}

/// Sessions of `pages` pages each, asked for in turn; how many pages were found.
int64_t cyclic_hits(ReusePolicy policy, uint64_t seed, int64_t sessions, int64_t pages, int64_t blocks,
                    int64_t rounds) {
  PrefixTree tree(16, blocks, make_eviction_policy(policy, blocks, seed));
  std::vector<BlockId> free;
  for (BlockId b = 0; b < blocks; ++b) free.push_back(b);
  int64_t hits = 0;
  for (int64_t turn = 0; turn < sessions * rounds; ++turn) {
    const Tokens tokens(static_cast<size_t>(pages * 16), static_cast<int32_t>(turn % sessions));
    const PrefixTree::Match m = tree.match(0, tokens);
    hits += m.pages;
    int32_t node = m.node;
    tree.use(node, kNone);
    if (node != kNone) tree.lock(node);
    const int64_t missing = pages - m.pages - static_cast<int64_t>(free.size());
    if (missing > 0) tree.begin_eviction(missing);
    for (int64_t i = 0; i < missing; ++i) free.push_back(tree.evict());
    for (int64_t p = m.pages; p < pages; ++p) {
      const auto in = tree.insert(node, 0, std::span(tokens).first(16), free.back());
      free.pop_back();
      node == kNone ? tree.lock(in.node) : tree.lock_child(in.node);
      node = in.node;
    }
    tree.use(node, kNone);
    tree.unlock(node);
  }
  return hits;
}

TEST(EvictionPolicies, CyclicScanBeyondTheCapacityDefeatsLruAndNotRlt) {
  const int64_t sessions = 10, pages = 5, blocks = 45, rounds = 30, asked = (rounds - 1) * sessions * pages;
  EXPECT_EQ(cyclic_hits(ReusePolicy::kLru, 0, sessions, pages, blocks, rounds), 0);
  const int64_t hits = cyclic_hits(ReusePolicy::kRlt, 0, sessions, pages, blocks, rounds);
  EXPECT_GT(hits, asked / 4) << hits << " of " << asked;
  EXPECT_EQ(cyclic_hits(ReusePolicy::kRlt, 0, sessions, pages, blocks, rounds), hits);
  EXPECT_NE(cyclic_hits(ReusePolicy::kRlt, 1, sessions, pages, blocks, rounds), hits);
}

TEST_P(Policies, NothingIsEvictedThatFits) {
  EXPECT_EQ(cyclic_hits(GetParam(), 0, 10, 5, 50, 30), 29 * 10 * 5);
}

TEST_P(Policies, APageInPartIsFoundAndThenSuperseded) {
  PrefixTree tree(16, 8, make_eviction_policy(GetParam(), 8, 0));
  const Tokens page = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  const auto first = tree.insert(kNone, 5, std::span(page).first(6), 0);
  EXPECT_TRUE(first.is_new);
  EXPECT_EQ(tree.match(5, page).tail_tokens, 6);
  EXPECT_EQ(tree.match(5, std::span(page).first(3)).tail_tokens, 3);
  EXPECT_EQ(tree.match(6, page).tail_tokens, 0);
  EXPECT_FALSE(tree.insert(kNone, 5, std::span(page).first(4), 1).is_new);  // there already
  const auto longer = tree.insert(kNone, 5, std::span(page).first(9), 1);
  EXPECT_EQ(longer.superseded, 0);
  const auto whole = tree.insert(kNone, 5, page, 2);
  EXPECT_EQ(whole.superseded, 1);
  EXPECT_EQ(tree.match(5, page).pages, 1);
  EXPECT_EQ(tree.nodes(), 1);
  EXPECT_FALSE(tree.insert(kNone, 5, page, 3).is_new);
  EXPECT_TRUE(tree.consistent());
  EXPECT_EQ(tree.evict(), 2);
  EXPECT_EQ(tree.evict(), kNone);
  EXPECT_TRUE(tree.consistent());
}

INSTANTIATE_TEST_SUITE_P(All, Policies, ::testing::Values(ReusePolicy::kLru, ReusePolicy::kRlt),
                         [](const auto& tested) { return std::string(name(tested.param)); });

TEST(EvictionPolicies, HaveNames) {
  EXPECT_EQ(parse_reuse_policy("rlt"), ReusePolicy::kRlt);
  EXPECT_EQ(parse_reuse_policy("none"), ReusePolicy::kNone);
  EXPECT_FALSE(parse_reuse_policy("mru"));
}

}  // namespace
}  // namespace mete
