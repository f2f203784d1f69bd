// Logits files: scored rows of `mete eval` as float32, for comparing engines (docs/numerics.md, "Logits
// files").
#pragma once

#include <cstdint>
#include <cstdio>
#include <span>
#include <string>

namespace mete {

/// Writes magic "METELGT1", uint32 n_vocab, n_rows, n_ctx, n_chunks, uint32 tokens, then float32 rows; all
/// little-endian. Throws Error(kRuntime) naming the file when it cannot be written.
class LogitsWriter {
 public:
  LogitsWriter(const std::string& path, int64_t vocab, int64_t window, std::span<const int32_t> tokens);
  ~LogitsWriter();
  LogitsWriter(const LogitsWriter&) = delete;
  LogitsWriter& operator=(const LogitsWriter&) = delete;
  void row(const float* logits);
  void close();

 private:
  void write(const void* data, size_t bytes);
  std::string path_;
  int64_t vocab_;
  std::FILE* file_;
};

}  // namespace mete
