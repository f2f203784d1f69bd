// The file in which a prefix cache outlives its process: pages of tokens with their KV. Untrusted.
#pragma once

#include <array>
#include <cstdint>
#include <iosfwd>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"

namespace mete {

/// Everything that stored KV depends on besides the tokens. A file is good for an equal identity only.
struct PrefixIdentity {
  std::array<uint64_t, 2> model{};  ///< hash of the model file
  uint64_t numerics = 0;            ///< kNumericsVersion
  uint64_t context = 0;             ///< some RoPE scalings depend on it
  uint64_t key_codec = 0, value_codec = 0;
  uint64_t page_slots = 0;
  uint64_t block_bytes = 0;  ///< KV of one page of tokens, all layers and heads
  uint64_t lists = 0;        ///< layers * KV heads
  uint64_t vocab = 0;
};

/// One page of tokens. Its KV is that of these tokens after those of all pages above.
struct PrefixRecord {
  int64_t parent = -1;          ///< index of an earlier record that has a whole page; -1: a first page
  uint64_t salt = 0;            ///< equal to the parent's
  std::vector<int32_t> tokens;  ///< 1 .. page_slots
  bool whole = true;            ///< false: without the KV of layers with a sliding window, zeros in `kv`
  std::vector<uint8_t> kv;      ///< [block_bytes]
};

/// Layout, little-endian: "METEKV02", the fields of PrefixIdentity, the number of records, XXH3-64 of all
/// that; then per record parent (i64), salt (u64), number of tokens (u64), 1 if it is whole or 0 (u64),
/// tokens
/// ([page_slots] i32, 0 beyond the number), KV, and XXH3-64 of the record with its index as seed. Nothing
/// follows.
class PrefixFileWriter {
 public:
  /// Writes to `path` + ".tmp"; finish() renames it, so that a file is whole or not there. Errors: kRuntime.
  static Result<PrefixFileWriter> create(const std::string& path, const PrefixIdentity& identity,
                                         int64_t records);
  PrefixFileWriter(PrefixFileWriter&&) noexcept;
  ~PrefixFileWriter();  ///< removes what was not finished
  Status add(const PrefixRecord& record);
  Status finish();

 private:
  struct State;
  explicit PrefixFileWriter(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

class PrefixFileReader {
 public:
  /// Reads the head. Errors (kRuntime): not such a file, damaged, or made for another identity; `name` is the
  /// file in messages. `in` must outlive the reader.
  static Result<PrefixFileReader> open(std::istream& in, std::string name, const PrefixIdentity& expected);
  int64_t records() const { return records_; }
  /// The next record, checked; nothing after the last. Valid until the next call.
  Result<const PrefixRecord*> next();

 private:
  struct Seen {
    uint64_t salt;
    bool whole;
  };
  PrefixFileReader(std::istream& in, std::string name, const PrefixIdentity& identity, int64_t records)
      : in_(&in), name_(std::move(name)), identity_(identity), records_(records) {}

  std::istream* in_;
  std::string name_;
  PrefixIdentity identity_;
  int64_t records_;
  std::vector<Seen> seen_;
  std::vector<uint8_t> bytes_;
  PrefixRecord record_;
};

}  // namespace mete
