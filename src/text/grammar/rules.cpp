#include "text/grammar/rules.h"

#include <algorithm>

namespace mete {
namespace {

constexpr int64_t kMaxSymbols = int64_t{1} << 18;
constexpr int64_t kMaxRepeats = 10000;
constexpr uint32_t kLast = 0x10ffff;

/// Sorted, merged, without surrogates; complemented if asked.
std::vector<CodePointRange> normalise(std::vector<CodePointRange> ranges, bool complement) {
  std::sort(ranges.begin(), ranges.end(), [](auto a, auto b) { return a.first < b.first; });
  std::vector<CodePointRange> merged;
  for (const CodePointRange& r : ranges) {
    if (!merged.empty() && r.first <= merged.back().last + 1) {
      merged.back().last = std::max(merged.back().last, r.last);
    } else {
      merged.push_back(r);
    }
  }
  if (complement) merged = mete::complement(std::move(merged));
  std::vector<CodePointRange> out;
  for (const CodePointRange& r : merged) {
    if (r.first < 0xd800) out.push_back({r.first, std::min(r.last, 0xd7ffU)});
    if (r.last > 0xdfff) out.push_back({std::max(r.first, 0xe000U), r.last});
  }
  return out;
}

struct ByteInterval {
  uint8_t first, last;
};

/// Splits ranges of code points of one encoded length into products of byte intervals.
class Utf8Splitter {
 public:
  std::vector<std::vector<ByteInterval>> products;

  void add(CodePointRange range) {
    constexpr uint32_t kLimits[] = {0x7f, 0x7ff, 0xffff, kLast};
    uint32_t first = range.first;
    for (int length = 1; length <= 4 && first <= range.last; ++length) {
      const uint32_t last = std::min(range.last, kLimits[length - 1]);
      if (first > last) continue;
      split(first, last, length);
      first = last + 1;
    }
  }

 private:
  static uint8_t byte_at(uint32_t cp, int length, int index) {
    constexpr uint8_t kLead[] = {0, 0, 0xc0, 0xe0, 0xf0};
    const int shift = 6 * (length - 1 - index);
    if (index == 0) return static_cast<uint8_t>(kLead[length] | (cp >> shift));
    return static_cast<uint8_t>(0x80 | ((cp >> shift) & 0x3f));
  }

  /// first and last have `length` bytes; cuts until all trailing bytes but one boundary are full.
  void split(uint32_t first, uint32_t last, int length) {
    for (int i = 1; i < length; ++i) {
      const uint32_t low = (uint32_t{1} << (6 * i)) - 1;  // what the last i bytes encode
      if ((first & ~low) == (last & ~low)) continue;
      if ((first & low) != 0) {
        split(first, first | low, length);
        split((first | low) + 1, last, length);
        return;
      }
      if ((last & low) != low) {
        split(first, (last & ~low) - 1, length);
        split(last & ~low, last, length);
        return;
      }
    }
    std::vector<ByteInterval> product;
    for (int i = 0; i < length; ++i) product.push_back({byte_at(first, length, i), byte_at(last, length, i)});
    products.push_back(std::move(product));
  }
};

}  // namespace

std::vector<CodePointRange> complement(std::vector<CodePointRange> ranges) {
  std::sort(ranges.begin(), ranges.end(), [](auto a, auto b) { return a.first < b.first; });
  std::vector<CodePointRange> out;
  uint32_t next = 0;
  for (const CodePointRange& r : ranges) {
    if (r.first > next) out.push_back({next, r.first - 1});
    next = std::max(next, r.last + 1);
  }
  if (next <= kLast) out.push_back({next, kLast});
  return out;
}

int32_t RuleBuilder::rule(const std::string& name) {
  const auto [it, added] = numbers_.emplace(name, static_cast<int32_t>(rules_.size()));
  if (added) rules_.push_back({name, {}});
  return it->second;
}

int32_t RuleBuilder::fresh(std::string_view purpose) {
  rules_.push_back({std::string(purpose), {}});
  return static_cast<int32_t>(rules_.size()) - 1;
}

void RuleBuilder::define(int32_t rule, std::vector<Sequence> alternatives) {
  for (const Sequence& s : alternatives) symbols_ += static_cast<int64_t>(s.size()) + 1;
  rules_[static_cast<size_t>(rule)].alternatives = std::move(alternatives);
}

Symbol RuleBuilder::bytes(const ByteSet& set) {
  const auto [it, added] = set_numbers_.emplace(set, static_cast<int32_t>(sets_.size()));
  if (added) sets_.push_back(set);
  return {true, it->second};
}

Symbol RuleBuilder::code_points(std::vector<CodePointRange> ranges, bool complement) {
  Utf8Splitter splitter;
  for (const CodePointRange& r : normalise(std::move(ranges), complement)) splitter.add(r);
  ByteSet single;
  bool any_single = false;
  std::vector<Sequence> alternatives;
  for (const auto& product : splitter.products) {
    if (product.size() == 1) {
      single.add(product[0].first, product[0].last);
      any_single = true;
      continue;
    }
    Sequence sequence;
    for (const ByteInterval& interval : product) {
      ByteSet set;
      set.add(interval.first, interval.last);
      sequence.push_back(bytes(set));
    }
    alternatives.push_back(std::move(sequence));
  }
  if (any_single || alternatives.empty()) {
    if (alternatives.empty()) return bytes(single);
    alternatives.insert(alternatives.begin(), Sequence{bytes(single)});
  }
  const int32_t r = fresh("character class");
  define(r, std::move(alternatives));
  return {false, r};
}

void RuleBuilder::append_literal(std::string_view text, Sequence& out) {
  for (const char c : text) {
    ByteSet set;
    set.add(static_cast<uint8_t>(c), static_cast<uint8_t>(c));
    out.push_back(bytes(set));
  }
}

Symbol RuleBuilder::wrap(Sequence unit) {
  if (unit.size() == 1) return unit[0];
  const int32_t r = fresh("group");
  define(r, {std::move(unit)});
  return {false, r};
}

Status RuleBuilder::append_repeated(Sequence unit, int64_t min, int64_t max, Sequence& out) {
  if (min > kMaxRepeats || max > kMaxRepeats) {
    return bad_usage("a repetition of {} is too large: at most {}", std::max(min, max), kMaxRepeats);
  }
  if (max >= 0 && max < min) return bad_usage("a repetition of at least {} and at most {}", min, max);
  const Symbol one = wrap(std::move(unit));
  for (int64_t i = 0; i < min; ++i) out.push_back(one);
  if (max < 0) {
    const int32_t star = fresh("repetition");
    define(star, {{one, {false, star}}, {}});
    out.push_back({false, star});
    return {};
  }
  // optional(k) = one optional(k - 1) | nothing
  int32_t inner = -1;
  for (int64_t i = min; i < max; ++i) {
    const int32_t optional = fresh("option");
    Sequence some = {one};
    if (inner >= 0) some.push_back({false, inner});
    define(optional, {std::move(some), {}});
    inner = optional;
  }
  if (inner >= 0) out.push_back({false, inner});
  if (symbols_ > kMaxSymbols) return bad_usage("the grammar is too large: more than {} symbols", kMaxSymbols);
  return {};
}

std::vector<bool> RuleBuilder::nullable() const {
  std::vector<bool> can(rules_.size(), false);
  for (bool changed = true; changed;) {
    changed = false;
    for (size_t r = 0; r < rules_.size(); ++r) {
      if (can[r]) continue;
      for (const Sequence& s : rules_[r].alternatives) {
        if (std::all_of(s.begin(), s.end(),
                        [&](Symbol x) { return !x.terminal && can[static_cast<size_t>(x.index)]; })) {
          can[r] = changed = true;
          break;
        }
      }
    }
  }
  return can;
}

/// A rule that can begin with itself and has something behind that occurrence would grow the stack without
/// reading a byte. (A rule that is its own last symbol does not: the call replaces its caller.)
Status RuleBuilder::check_left_recursion() const {
  const std::vector<bool> can = nullable();
  struct Edge {
    size_t to;
    bool grows;
  };
  std::vector<std::vector<Edge>> edges(rules_.size());
  for (size_t r = 0; r < rules_.size(); ++r) {
    for (const Sequence& s : rules_[r].alternatives) {
      for (size_t i = 0; i < s.size() && !s[i].terminal; ++i) {
        edges[r].push_back({static_cast<size_t>(s[i].index), i + 1 < s.size()});
        if (!can[static_cast<size_t>(s[i].index)]) break;
      }
    }
  }
  // Strongly connected components by Tarjan's algorithm, without recursion; an edge that grows inside one is
  // left recursion.
  std::vector<int64_t> order(rules_.size(), -1), low(rules_.size(), 0), component(rules_.size(), -1);
  std::vector<size_t> open;
  int64_t counter = 0, components = 0;
  struct Frame {
    size_t rule, edge;
  };
  for (size_t start = 0; start < rules_.size(); ++start) {
    if (order[start] >= 0) continue;
    std::vector<Frame> frames = {{start, 0}};
    while (!frames.empty()) {
      Frame& f = frames.back();
      const size_t r = f.rule;
      if (f.edge == 0) {
        order[r] = low[r] = counter++;
        open.push_back(r);
      }
      if (f.edge < edges[r].size()) {
        const size_t to = edges[r][f.edge++].to;
        if (order[to] < 0) {
          frames.push_back({to, 0});
        } else if (component[to] < 0) {
          low[r] = std::min(low[r], order[to]);
        }
        continue;
      }
      if (low[r] == order[r]) {
        for (size_t member = rules_.size(); member != r;) {
          member = open.back();
          open.pop_back();
          component[member] = components;
        }
        ++components;
      }
      frames.pop_back();
      if (!frames.empty()) low[frames.back().rule] = std::min(low[frames.back().rule], low[r]);
    }
  }
  for (size_t r = 0; r < rules_.size(); ++r) {
    for (const Edge& e : edges[r]) {
      if (e.grows && component[e.to] == component[r]) {
        return bad_usage("rule \"{}\" is left-recursive: it can begin with itself", rules_[e.to].name);
      }
    }
  }
  return {};
}

Result<GrammarProgram> RuleBuilder::build() const {
  const auto root = numbers_.find("root");
  if (root == numbers_.end()) return bad_usage("the grammar has no rule \"root\"");
  for (const Rule& r : rules_) {
    if (r.alternatives.empty()) return bad_usage("rule \"{}\" is used but not defined", r.name);
  }
  if (symbols_ > kMaxSymbols) return bad_usage("the grammar is too large: more than {} symbols", kMaxSymbols);
  if (Status fine = check_left_recursion(); !fine) return fine.error();
  GrammarProgram out;
  out.sets = sets_;
  out.root = root->second;
  for (const Rule& r : rules_) {
    out.first.push_back(static_cast<int32_t>(out.alternatives.size()));
    for (const Sequence& s : r.alternatives) {
      out.alternatives.push_back(static_cast<int32_t>(out.code.size()));
      for (const Symbol& x : s)
        out.code.push_back(x.terminal ? x.index : GrammarProgram::encode_rule(x.index));
      out.code.push_back(GrammarProgram::kEnd);
    }
  }
  out.first.push_back(static_cast<int32_t>(out.alternatives.size()));
  return out;
}

}  // namespace mete
