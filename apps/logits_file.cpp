#include "apps/logits_file.h"

#include "base/error.h"

namespace mete {

LogitsWriter::LogitsWriter(const std::string& path, int64_t vocab, int64_t window,
                           std::span<const int32_t> tokens)
    : path_(path), vocab_(vocab), file_(std::fopen(path.c_str(), "wb")) {
  if (file_ == nullptr) throw run_failure("{}: cannot be created", path);
  const int64_t chunks = static_cast<int64_t>(tokens.size()) / window;
  const int64_t rows = chunks * (window - 1 - window / 2);
  const uint32_t header[4] = {static_cast<uint32_t>(vocab), static_cast<uint32_t>(rows),
                              static_cast<uint32_t>(window), static_cast<uint32_t>(chunks)};
  write("METELGT1", 8);
  write(header, sizeof header);
  write(tokens.data(), tokens.size_bytes());
}

LogitsWriter::~LogitsWriter() {
  if (file_ != nullptr) std::fclose(file_);
}

void LogitsWriter::row(const float* logits) { write(logits, static_cast<size_t>(vocab_) * sizeof(float)); }

void LogitsWriter::close() {
  std::FILE* file = file_;
  file_ = nullptr;
  if (std::fclose(file) != 0) throw run_failure("{}: cannot be written", path_);
}

void LogitsWriter::write(const void* data, size_t bytes) {
  if (std::fwrite(data, 1, bytes, file_) != bytes) throw run_failure("{}: cannot be written", path_);
}

}  // namespace mete
