// Files of scored logits rows, for comparing runs and engines (docs/numerics.md, "Logits files").
// Little-endian, without padding. The full form has float32 rows; the compact form keeps, per row, the
// likeliest tokens and the mass of all others.
#pragma once

#include <cstdio>

#include "eval/logits_source.h"

namespace mete {

/// A row of the compact form: the k likeliest tokens, the rest as one bucket.
struct CompactRow {
  double nll;                 ///< of the token that followed
  double log_sum;             ///< log of the sum of exp(logit) over all tokens
  double rest;                ///< probability of all tokens that are not in `ids`
  std::vector<int32_t> ids;   ///< [k], ascending
  std::vector<float> logits;  ///< [k]
};

/// Writes the full form: magic "METELGT1", uint32 n_vocab, n_rows, n_ctx, n_chunks, uint32 tokens, float32
/// rows; or with `compact` = k > 0 the compact form: magic "METECMP1", the same four numbers, uint32 k,
/// tokens, and rows of three float64 (nll, log_sum, rest), uint32 ids[k], float32 logits[k]. Throws
/// Error(kRuntime) naming the file when it cannot be written.
class LogitsWriter {
 public:
  LogitsWriter(const std::string& path, int64_t vocab, const Windows& windows, int64_t compact = 0);
  ~LogitsWriter();
  LogitsWriter(const LogitsWriter&) = delete;
  LogitsWriter& operator=(const LogitsWriter&) = delete;
  void row(const float* logits, int32_t target);
  void close();
  /// Bytes of a whole file.
  static int64_t bytes(int64_t vocab, const Windows& windows, int64_t compact);

 private:
  void write(const void* data, size_t bytes);
  std::string path_;
  int64_t vocab_, compact_;
  std::FILE* file_;
};

/// Opens a logits file for rows of `windows`. Throws Error: kRuntime if it cannot be read; kUsage for a file
/// of another kind or length, another vocabulary, other windows, or tokens that differ (another tokenizer or
/// text).
class LogitsReader {
 public:
  LogitsReader(const std::string& path, int64_t vocab, const Windows& windows);
  ~LogitsReader();
  LogitsReader(const LogitsReader&) = delete;
  LogitsReader& operator=(const LogitsReader&) = delete;
  int64_t compact() const { return compact_; }  ///< k, or 0: the full form
  void row(float* logits);                      ///< full form: the next row, [vocab]
  void row(CompactRow& row);                    ///< compact form

 private:
  void check(const Windows& windows);
  void read(void* data, size_t bytes);
  std::string path_;
  int64_t vocab_, compact_ = 0;
  std::FILE* file_;
};

/// Whether the file begins as a logits file does; false also for one that cannot be read.
bool is_logits_file(const std::string& path);

}  // namespace mete
