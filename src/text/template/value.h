// Values of the template interpreter, and the arena that owns them for the length of one rendering.
#pragma once

#include <nlohmann/json.hpp>

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/error.h"
#include "text/template/text.h"

namespace mete::jinja {

enum class Kind : uint8_t {
  kUndefined,
  kNone,
  kBool,
  kInt,
  kFloat,
  kString,
  kList,
  kTuple,
  kRange,
  kView,      ///< dict.keys(), .values(), .items(): has a length, cannot be indexed
  kIterator,  ///< what lazy filters give: no length, no index, always true, read once
  kDict,
  kNamespace,
  kLoop,
  kMacro,
  kMethod,
  kFunction
};

struct Sequence;
class Dict;
struct Namespace;
struct Loop;
struct Macro;
struct Method;
struct Function;

/// A trivially copyable value; what it points to lives in an Arena and does not change (but Namespace and
/// Loop).
struct Value {
  Kind kind = Kind::kUndefined;
  union {
    bool boolean;
    int64_t integer;
    double number;
    const Text* text;  ///< kString; for kUndefined the message that using it gives, may be null
    Sequence* sequence;
    Dict* dict;
    Namespace* space;
    Loop* loop;
    const Macro* macro;
    const Method* method;
    const Function* function;
  };

  Value() : text(nullptr) {}
  static Value none() { return with(Kind::kNone); }
  static Value of(bool v) {
    Value value = with(Kind::kBool);
    value.boolean = v;
    return value;
  }
  static Value of(int64_t v) {
    Value value = with(Kind::kInt);
    value.integer = v;
    return value;
  }
  static Value of(double v) {
    Value value = with(Kind::kFloat);
    value.number = v;
    return value;
  }
  static Value of(const Text* v) {
    Value value = with(Kind::kString);
    value.text = v;
    return value;
  }
  static Value of(Kind sequence_kind, Sequence* v) {
    Value value = with(sequence_kind);
    value.sequence = v;
    return value;
  }
  static Value of(Dict* v) {
    Value value = with(Kind::kDict);
    value.dict = v;
    return value;
  }
  static Value with(Kind kind) {
    Value value;
    value.kind = kind;
    return value;
  }

  bool is(Kind k) const { return kind == k; }
  bool is_number() const { return kind == Kind::kBool || kind == Kind::kInt || kind == Kind::kFloat; }
  bool is_integral() const { return kind == Kind::kBool || kind == Kind::kInt; }
  /// list, tuple or range: has a length and can be indexed.
  bool is_list() const { return kind == Kind::kList || kind == Kind::kTuple || kind == Kind::kRange; }
  int64_t as_int() const { return kind == Kind::kBool ? static_cast<int64_t>(boolean) : integer; }
  double as_double() const { return kind == Kind::kFloat ? number : static_cast<double>(as_int()); }
  std::string_view view() const { return text->view(); }
};

/// Elements of a list, tuple, range, view or iterator.
struct Sequence {
  std::vector<Value> items;
  size_t next = 0;    ///< iterators: elements already read
  std::string label;  ///< ranges: what str() gives; views: the name of their type
};

/// A mapping that keeps insertion order.
class Dict {
 public:
  using Entry = std::pair<Value, Value>;
  const std::vector<Entry>& entries() const { return entries_; }
  size_t size() const { return entries_.size(); }
  /// Value of a key, or null. Keys compare as Python's ==.
  const Value* find(const Value& key) const;
  const Value* find(std::string_view key) const;
  /// `key` must be hashable; replaces the value of an equal key.
  void set(const Value& key, const Value& value);

 private:
  std::vector<Entry> entries_;
  std::unordered_map<std::string_view, size_t>
      index_;  // string keys, once there are more than kIndexFrom entries
};

struct Namespace {
  Dict attributes;
};

/// Bounds on one rendering, so that a hostile template cannot exhaust time, memory or the stack.
struct Limits {
  uint64_t steps = 20'000'000;     ///< nodes evaluated, elements visited, 64-byte blocks scanned
  uint64_t memory = 256ULL << 20;  ///< bytes of all values ever made
  uint64_t output = 64ULL << 20;   ///< bytes rendered
  uint32_t depth = 1000;           ///< nested evaluations
};

/// Owns everything that values point to. Nothing is freed before the arena.
class Arena {
 public:
  explicit Arena(uint64_t limit) : limit_(limit) {}
  Arena(Arena&&) = default;
  Arena& operator=(Arena&&) = default;

  /// Counts bytes against the limit; throws Error over it.
  void charge(uint64_t bytes);
  const Text* text(Text value);
  const Text* text(std::string_view bytes, Origin origin) { return text(Text(bytes, origin)); }
  Value string(Text value) { return Value::of(text(std::move(value))); }
  Value literal(std::string_view bytes) { return string(Text(bytes, Origin::kTemplate)); }
  Value sequence(Kind kind, std::vector<Value> items);
  Dict* dict() { return &keep(&dicts_); }
  /// Sets after charging for the entry.
  void set(Dict* dict, const Value& key, const Value& value);
  template <typename T>
  T* own(std::deque<T>* pool) {
    return &keep(pool);
  }
  Namespace* space() { return &keep(&spaces_); }

  /// JSON as a value; strings have `origin`. Throws Error for nesting over 200 and integers over int64.
  Value from_json(const nlohmann::ordered_json& json, Origin origin, int depth = 0);

 private:
  template <typename T>
  T& keep(std::deque<T>* pool) {
    charge(sizeof(T));
    return pool->emplace_back();
  }

  uint64_t limit_;
  uint64_t used_ = 0;
  std::deque<Text> texts_;
  std::deque<Sequence> sequences_;
  std::deque<Dict> dicts_;
  std::deque<Namespace> spaces_;
};

/// Nesting of lists and dicts that str(), tojson and comparisons follow before they report an error.
inline constexpr int kMaxNesting = 200;

/// Python's name of the type, e.g. "str".
const char* type_name(const Value& value);
bool truth(const Value& value);
bool hashable(const Value& value, int depth = 0);
/// Python's ==. `cost`, where given, grows by the elements and 64-byte blocks compared.
bool equal(const Value& a, const Value& b, uint64_t* cost = nullptr, int depth = 0);
/// Three-way comparison of numbers, strings, lists and tuples; throws Error for other pairs.
int compare(const Value& a, const Value& b, int depth = 0);
/// str(value): strings as they are, everything else as repr.
Text to_text(const Value& value);
/// repr(value), appended.
void repr(const Value& value, Text* out, int depth = 0);
/// Python's repr of a float.
std::string float_repr(double value);

struct JsonOptions {
  bool ensure_ascii = false;
  bool sort_keys = false;
  bool pretty = false;  ///< with newlines and `indent` per level
  std::string indent;
  Text item_separator{", ", Origin::kTemplate};
  Text key_separator{": ", Origin::kTemplate};
};
/// json.dumps(value), appended; throws Error for what JSON cannot hold.
void to_json(const Value& value, const JsonOptions& options, Text* out, int depth = 0);

}  // namespace mete::jinja
