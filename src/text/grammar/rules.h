// A context-free grammar over bytes, built rule by rule and then laid out flat for the automaton.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace mete {

/// A set of bytes.
class ByteSet {
 public:
  bool has(uint8_t byte) const { return ((words_[byte >> 6] >> (byte & 63)) & 1) != 0; }
  void add(uint8_t first, uint8_t last) {
    for (int b = first; b <= last; ++b) words_[static_cast<size_t>(b) >> 6] |= uint64_t{1} << (b & 63);
  }
  auto operator<=>(const ByteSet&) const = default;

 private:
  std::array<uint64_t, 4> words_{};
};

/// One step of a production: a byte set or a rule.
struct Symbol {
  bool terminal;
  int32_t index;  ///< of the set or the rule
};
using Sequence = std::vector<Symbol>;

/// Code points first..last.
struct CodePointRange {
  uint32_t first, last;
};

/// All code points to U+10FFFF that are in none of the ranges, which may overlap; ascending and apart.
std::vector<CodePointRange> complement(std::vector<CodePointRange> ranges);

/// The grammar laid out flat. A position is an index into `code`; a production is a run of positions that
/// ends with kEnd.
struct GrammarProgram {
  static constexpr int32_t kEnd = -1;
  std::vector<int32_t> code;  ///< >= 0: byte set; kEnd; otherwise rule -(value + 2)
  std::vector<ByteSet> sets;
  std::vector<int32_t> alternatives;  ///< first positions, rule by rule
  std::vector<int32_t> first;         ///< [rules + 1] into `alternatives`
  int32_t root = 0;

  static int32_t encode_rule(int32_t rule) { return -(rule + 2); }
  static int32_t rule_of(int32_t code) { return -code - 2; }
};

class RuleBuilder {
 public:
  /// The rule's number; a rule may be used before it is defined.
  int32_t rule(const std::string& name);
  /// A nameless rule.
  int32_t fresh(std::string_view purpose);
  bool defined(int32_t rule) const { return !rules_[static_cast<size_t>(rule)].alternatives.empty(); }
  void define(int32_t rule, std::vector<Sequence> alternatives);

  Symbol bytes(const ByteSet& set);
  /// Any one code point of `ranges` (complemented: any other), as UTF-8. Ranges may overlap.
  Symbol code_points(std::vector<CodePointRange> ranges, bool complement);
  /// The bytes of `text`, one symbol each.
  void append_literal(std::string_view text, Sequence& out);
  /// `unit` at least `min` and at most `max` times (max < 0: no bound), appended to `out`.
  Status append_repeated(Sequence unit, int64_t min, int64_t max, Sequence& out);

  /// Errors (kUsage): no rule "root", a rule without definition, left recursion, too large.
  Result<GrammarProgram> build() const;

 private:
  struct Rule {
    std::string name;
    std::vector<Sequence> alternatives;
  };
  Symbol wrap(Sequence unit);
  Status check_left_recursion() const;
  std::vector<bool> nullable() const;

  std::vector<Rule> rules_;
  std::map<std::string, int32_t> numbers_;
  std::vector<ByteSet> sets_;
  std::map<ByteSet, int32_t> set_numbers_;
  int64_t symbols_ = 0;  // in all productions
};

}  // namespace mete
