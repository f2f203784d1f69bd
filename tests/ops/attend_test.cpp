#include "ops/attend.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "base/half.h"
#include "base/rng.h"
#include "ops/kv_store.h"

namespace mete {
namespace {

constexpr int64_t kHeads = 6, kKvHeads = 2, kHeadDim = 64, kKeys = 600, kRows = 5;
constexpr int64_t kWidth = kHeads * kHeadDim;

/// Keys 0 .. kKeys - 1 in slots of one's choice, queries at positions kKeys - kRows .. kKeys - 1.
struct AttendTest : ::testing::Test {
  AttendTest() {
    fill_floats(supported_tiers().back(), table);
    fill_attention(supported_tiers().back(), table);
    const auto fill = [](std::vector<float>& x, int64_t n, uint64_t seed) {
      for (int64_t i = 0; i < n; ++i) {
        x.push_back(
            static_cast<float>(4.0 * random_unit(seed, static_cast<uint64_t>(i), Purpose::kTest) - 2.0));
      }
    };
    fill(q, kRows * kWidth, 1);
    fill(k, kKeys * kKvHeads * kHeadDim, 2);
    fill(v, kKeys * kKvHeads * kHeadDim, 3);
    params.heads = kHeads;
    params.kv_heads = kKvHeads;
    params.scale = 0.125f;
    layout.head_dim = kHeadDim;
  }

  /// Stores key i in slot slots[i]; unused slots hold NaN.
  void place(const std::vector<int32_t>& slots) {
    const int64_t last = *std::max_element(slots.begin(), slots.end());
    const int64_t pages = last / layout.page_slots + 1;
    memory.assign(static_cast<size_t>(pages * kKvHeads) * layout.page_bytes() + 64, 0xff);
    uint8_t* base = memory.data() + 64 - reinterpret_cast<uintptr_t>(memory.data()) % 64;
    for (int64_t h = 0; h < kKvHeads; ++h) {
      page_lists[h].clear();
      for (int64_t p = 0; p < pages; ++p) {
        page_lists[h].push_back(base + static_cast<size_t>(h * pages + pages - 1 - p) * layout.page_bytes());
      }
      tables[h] = page_lists[h].data();
    }
    positions.assign(static_cast<size_t>(last + 1), 0);
    valid.assign(static_cast<size_t>(pages), 0);
    std::vector<StoreTarget> targets;
    for (size_t i = 0; i < slots.size(); ++i) {
      targets.push_back({static_cast<int32_t>(i), slots[i], tables});
      positions[static_cast<size_t>(slots[i])] = static_cast<int32_t>(i);
      valid[static_cast<size_t>(slots[i] / layout.page_slots)] |= 1u << (slots[i] % layout.page_slots);
    }
    kv_store(ctx, layout, kKvHeads, targets, k.data(), v.data());
    for (int64_t h = 0; h < kKvHeads; ++h) {
      specs[h] = Spec{};
      specs[h].pages = page_lists[h].data();
      specs[h].slots = last + 1;
      specs[h].positions = positions.data();
      specs[h].valid = valid.data();
    }
  }
  static std::vector<int32_t> in_order() {
    std::vector<int32_t> slots(kKeys);
    std::iota(slots.begin(), slots.end(), 0);
    return slots;
  }
  static std::vector<int32_t> shuffled(int32_t gap) {
    std::vector<int32_t> slots = in_order();
    for (size_t i = slots.size() - 1; i > 0; --i) {
      std::swap(slots[i], slots[random_bits(5, i, Purpose::kTest) % (i + 1)]);
    }
    for (int32_t& s : slots) s *= gap;
    return slots;
  }
  /// All rows see all slots, except those whose position is beyond their own if `causal`.
  std::vector<float> run(bool causal = false) {
    const int64_t slots = specs[0].slots;
    const size_t words = static_cast<size_t>((slots + 63) / 64);
    std::vector<uint64_t> tails(words * kRows, 0);
    std::vector<QueryRow> rows;
    for (int32_t r = 0; r < kRows; ++r) {
      const int32_t position = static_cast<int32_t>(kKeys - kRows) + r;
      QueryRow row{r, position, slots};
      if (causal && specs[0].dense == slots) row.prefix = position + 1;
      if (causal && specs[0].dense != slots) {
        row.prefix = 0;
        row.tail = tails.data() + static_cast<size_t>(r) * words;
        for (int64_t s = 0; s < slots; ++s) {
          if (positions[static_cast<size_t>(s)] <= position) {
            tails[static_cast<size_t>(r) * words + static_cast<size_t>(s / 64)] |= uint64_t{1} << (s % 64);
          }
        }
      }
      rows.push_back(row);
    }
    const AttendJob job{rows, specs, 0};
    std::vector<float> out(kRows * kWidth, -1.0f);
    lse.assign(kRows * kHeads, -1.0f);
    attend(ctx, layout, params, {&job, 1}, q.data(), out.data(), lse.data());
    return out;
  }
  /// One row and head over `keys` with log-weights, in double: o, then the log-sum-exp.
  std::vector<double> oracle(int64_t r, int64_t h, const std::vector<int32_t>& keys,
                             const std::vector<float>& log_weights = {}) const {
    std::vector<double> s, o(kHeadDim + 1, 0.0);
    for (size_t i = 0; i < keys.size(); ++i) {
      double dot = 0.0;
      for (int64_t d = 0; d < kHeadDim; ++d)
        dot += q[at(r, kHeads, h, d)] * half(k[at(keys[i], kKvHeads, h / 3, d)]);
      s.push_back(dot * 0.125 + (log_weights.empty() ? 0.0 : log_weights[i]));
    }
    const double top = *std::max_element(s.begin(), s.end());
    double sum = 0.0;
    for (size_t i = 0; i < keys.size(); ++i) {
      const double w = std::exp(s[i] - top);
      sum += w;
      for (int64_t d = 0; d < kHeadDim; ++d)
        o[static_cast<size_t>(d)] += w * half(v[at(keys[i], kKvHeads, h / 3, d)]);
    }
    for (double& x : o) x /= sum;
    o[kHeadDim] = top + std::log(sum);
    return o;
  }
  static size_t at(int64_t row, int64_t heads, int64_t h, int64_t d) {
    return static_cast<size_t>((row * heads + h) * kHeadDim + d);
  }
  static double half(float x) { return to_float(to_half(x)); }
  void expect_oracle(const std::vector<float>& out, const std::vector<int32_t>& keys,
                     const std::vector<float>& log_weights = {}) const {
    for (int64_t r = 0; r < kRows; ++r) {
      for (int64_t h = 0; h < kHeads; ++h) {
        const std::vector<double> want = oracle(r, h, keys, log_weights);
        for (int64_t d = 0; d < kHeadDim; ++d)
          ASSERT_NEAR(out[at(r, kHeads, h, d)], want[static_cast<size_t>(d)], 2e-5);
        ASSERT_NEAR(lse[static_cast<size_t>(r * kHeads + h)], want[kHeadDim], 2e-5);
      }
    }
  }
  static bool same(const std::vector<float>& a, const std::vector<float>& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
  }

  KernelTable table{};
  ThreadPool pool{3};
  Context ctx{pool, table};
  KvLayout layout{};
  AttendParams params{};
  std::vector<float> q, k, v, lse;
  std::vector<uint8_t> memory;
  std::vector<uint8_t*> page_lists[kKvHeads];
  uint8_t* const* tables[kKvHeads] = {};
  std::vector<int32_t> positions;
  std::vector<uint32_t> valid;
  Spec specs[kKvHeads];
};

// Gathered keys whose values lie in them.
TEST_F(AttendTest, ValuesInKeysInAnyOrderOfSlots) {
  for (int64_t i = 0; i < kKeys * kKvHeads; ++i)
    std::copy_n(k.begin() + i * kHeadDim, 48, v.begin() + i * 48);
  layout.value_width = 48;
  for (KvType type : {KvType::kF16, KvType::kBF16}) {
    layout.key_type = layout.value_type = type;
    layout.value_in_key = false;
    place(in_order());
    const std::vector<float> want = run(true);
    layout.value_in_key = true;
    for (int32_t gap : {1, 3}) {
      place(shuffled(gap));
      EXPECT_TRUE(same(want, run(true))) << gap;
    }
  }
}

TEST_F(AttendTest, AnyOrderOfSlotsGivesTheBitsOfDensePages) {
  for (KvType type : {KvType::kF16, KvType::kBF16, KvType::kQ8_0}) {
    layout.key_type = layout.value_type = type;
    for (int64_t page_slots : {16, 32}) {
      layout.page_slots = page_slots;
      for (int32_t window : {0, 77, 300}) {
        params.window = window;
        for (bool causal : {false, true}) {
          place(in_order());
          for (Spec& s : specs) s.dense = kKeys;
          const std::vector<float> want = run(causal), want_lse = lse;
          for (Spec& s : specs) s.dense = 0;  // all gathered
          EXPECT_TRUE(same(want, run(causal)));
          for (int32_t gap : {1, 3}) {
            place(shuffled(gap));
            EXPECT_TRUE(same(want, run(causal))) << gap;
            EXPECT_TRUE(same(want_lse, lse));
          }
        }
      }
    }
  }
}

// What the exactness rests on: were split and lane taken from the slot, the bits would differ.
TEST_F(AttendTest, NegativeControlSplitAndLaneBySlot) {
  place(in_order());
  const std::vector<float> want = run();
  place(shuffled(1));
  EXPECT_TRUE(same(want, run()));
  for (Spec& s : specs) s.positions = nullptr, s.valid = nullptr, s.dense = kKeys;
  const std::vector<float> by_slot = run();
  EXPECT_FALSE(same(want, by_slot));
  for (size_t i = 0; i < want.size(); ++i) ASSERT_NEAR(want[i], by_slot[i], 1e-5);
}

// And were the split a chunk of the prompt.
TEST_F(AttendTest, NegativeControlSplitByChunk) {
  place(in_order());
  const std::vector<float> want = run();
  std::vector<std::vector<float>> outs, lses;
  for (int32_t first : {0, 200, 400}) {
    std::vector<int32_t> tokens(200);
    std::iota(tokens.begin(), tokens.end(), first);
    for (Spec& s : specs) s.tokens = tokens.data(), s.token_count = 200;
    outs.push_back(run());
    lses.push_back(lse);
  }
  for (Spec& s : specs) s.token_count = 0;
  const std::vector<Partial> partials = {
      {outs[0].data(), lses[0].data()}, {outs[1].data(), lses[1].data()}, {outs[2].data(), lses[2].data()}};
  params.partials = partials;
  const std::vector<float> merged = run();
  EXPECT_FALSE(same(want, merged));
  for (size_t i = 0; i < want.size(); ++i) ASSERT_NEAR(want[i], merged[i], 1e-5);
}

TEST_F(AttendTest, TokenListsWithLogWeights) {
  place(shuffled(2));
  std::vector<int32_t> keys, tokens;
  std::vector<float> log_weights;
  for (int32_t i = 0; i < 400; ++i) {
    keys.push_back(static_cast<int32_t>(random_bits(8, static_cast<uint64_t>(i), Purpose::kTest) %
                                        kKeys));  // with repeats
    log_weights.push_back(static_cast<float>(random_unit(9, static_cast<uint64_t>(i), Purpose::kTest)));
  }
  for (int32_t key : keys) {
    const auto slot = std::find(positions.begin(), positions.end(), key);
    tokens.push_back(static_cast<int32_t>(slot - positions.begin()));
    if (key == 0) {  // unused slots hold position 0 too
      for (size_t s = 0; s < positions.size(); ++s) {
        if (positions[s] == 0 && ((valid[s / 32] >> (s % 32)) & 1u) != 0)
          tokens.back() = static_cast<int32_t>(s);
      }
    }
  }
  for (Spec& s : specs) s.tokens = tokens.data(), s.token_count = 400;
  expect_oracle(run(), keys);
  for (Spec& s : specs) s.log_weights = log_weights.data();
  expect_oracle(run(), keys, log_weights);
}

TEST_F(AttendTest, LogWeightsOnPagesDenseAndGathered) {
  std::vector<float> by_key, by_slot(kKeys);
  std::vector<int32_t> keys = in_order();
  for (int32_t i = 0; i < kKeys; ++i) by_key.push_back(static_cast<float>(i % 7) - 3.0f);
  place(in_order());
  for (Spec& s : specs) s.log_weights = by_key.data(), s.dense = kKeys;
  const std::vector<float> dense = run();
  expect_oracle(dense, keys, by_key);
  const std::vector<int32_t> slots = shuffled(1);
  place(slots);
  for (size_t i = 0; i < kKeys; ++i) by_slot[static_cast<size_t>(slots[i])] = by_key[i];
  for (Spec& s : specs) s.log_weights = by_slot.data();
  EXPECT_TRUE(same(dense, run()));
}

TEST_F(AttendTest, PartialsMergeToTheWhole) {
  place(in_order());
  const std::vector<float> whole = run(), whole_lse = lse;
  std::vector<int32_t> tokens[2];
  for (int32_t i = 0; i < kKeys; ++i) tokens[i % 3 == 0].push_back(i);
  for (Spec& s : specs) s.tokens = tokens[0].data(), s.token_count = static_cast<int64_t>(tokens[0].size());
  const std::vector<float> part = run(), part_lse = lse;
  const Partial partial{part.data(), part_lse.data()};
  params.partials = {&partial, 1};
  for (Spec& s : specs) s.tokens = tokens[1].data(), s.token_count = static_cast<int64_t>(tokens[1].size());
  const std::vector<float> merged = run();
  for (size_t i = 0; i < whole.size(); ++i) ASSERT_NEAR(whole[i], merged[i], 1e-5);
  for (size_t i = 0; i < whole_lse.size(); ++i) ASSERT_NEAR(whole_lse[i], lse[i], 1e-5);
}

TEST_F(AttendTest, AnEmptySpecIsZeroAndMinusInfinity) {
  place(in_order());
  for (Spec& s : specs) s.slots = 0;
  for (float x : run()) EXPECT_EQ(x, 0.0f);
  for (float x : lse) EXPECT_EQ(x, -std::numeric_limits<float>::infinity());
  std::vector<float> minus(kRows * kHeads, -std::numeric_limits<float>::infinity()),
      nothing(kRows * kWidth, NAN);
  const Partial empty{nothing.data(), minus.data()};
  params.partials = {&empty, 1};
  for (float x : run()) EXPECT_EQ(x, 0.0f);
}

TEST_F(AttendTest, ASinkTakesItsShare) {
  place(in_order());
  const std::vector<float> without = run(), without_lse = lse;
  const float sinks[kHeads] = {-5.0f, 0.0f, 2.0f, 5.0f, 8.0f, 20.0f};
  params.sinks = sinks;
  const std::vector<float> with = run();
  for (int64_t r = 0; r < kRows; ++r) {
    for (int64_t h = 0; h < kHeads; ++h) {
      const double share =
          1.0 / (1.0 + std::exp(sinks[h] - without_lse[static_cast<size_t>(r * kHeads + h)]));
      for (int64_t d = 0; d < kHeadDim; ++d) {
        ASSERT_NEAR(with[at(r, kHeads, h, d)], without[at(r, kHeads, h, d)] * share, 1e-5);
      }
    }
  }
}

}  // namespace
}  // namespace mete
