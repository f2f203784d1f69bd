#include "eval/logits_file.h"

#include <algorithm>
#include <cstring>
#include <filesystem>

#include "eval/divergence.h"

namespace mete {
namespace {

constexpr char kFull[] = "METELGT1", kCompact[] = "METECMP1";
constexpr size_t kMagic = 8;

int64_t row_bytes(int64_t vocab, int64_t compact) {
  return compact > 0 ? 3 * 8 + compact * 8 : vocab * static_cast<int64_t>(sizeof(float));
}

}  // namespace

int64_t LogitsWriter::bytes(int64_t vocab, const Windows& windows, int64_t compact) {
  const auto tokens = static_cast<int64_t>(windows.tokens.size());
  return static_cast<int64_t>(kMagic) + (compact > 0 ? 20 : 16) + tokens * 4 +
         windows.rows() * row_bytes(vocab, compact);
}

LogitsWriter::LogitsWriter(const std::string& path, int64_t vocab, const Windows& windows, int64_t compact)
    : path_(path), vocab_(vocab), compact_(compact), file_(std::fopen(path.c_str(), "wb")) {
  if (file_ == nullptr) throw run_failure("{}: cannot be created", path);
  const uint32_t header[5] = {static_cast<uint32_t>(vocab), static_cast<uint32_t>(windows.rows()),
                              static_cast<uint32_t>(windows.size), static_cast<uint32_t>(windows.count()),
                              static_cast<uint32_t>(compact)};
  write(compact > 0 ? kCompact : kFull, kMagic);
  write(header, compact > 0 ? 20 : 16);
  write(windows.tokens.data(), windows.tokens.size() * sizeof(int32_t));
}

LogitsWriter::~LogitsWriter() {
  if (file_ != nullptr) std::fclose(file_);
}

void LogitsWriter::row(const float* logits, int32_t target) {
  if (compact_ == 0) {
    write(logits, static_cast<size_t>(vocab_) * sizeof(float));
    return;
  }
  const CompactRow row = make_compact(logits, vocab_, compact_, target);
  const double numbers[3] = {row.nll, row.log_sum, row.rest};
  write(numbers, sizeof numbers);
  write(row.ids.data(), row.ids.size() * sizeof(int32_t));
  write(row.logits.data(), row.logits.size() * sizeof(float));
}

void LogitsWriter::close() {
  std::FILE* file = file_;
  file_ = nullptr;
  if (std::fclose(file) != 0) throw run_failure("{}: cannot be written", path_);
}

void LogitsWriter::write(const void* data, size_t bytes) {
  if (std::fwrite(data, 1, bytes, file_) != bytes) throw run_failure("{}: cannot be written", path_);
}

LogitsReader::LogitsReader(const std::string& path, int64_t vocab, const Windows& windows)
    : path_(path), vocab_(vocab), file_(std::fopen(path.c_str(), "rb")) {
  if (file_ == nullptr) throw run_failure("{}: cannot be opened", path);
  try {
    check(windows);
  } catch (...) {
    std::fclose(file_);
    throw;
  }
}

LogitsReader::~LogitsReader() { std::fclose(file_); }

void LogitsReader::check(const Windows& windows) {
  char magic[kMagic];
  read(magic, kMagic);
  const bool is_compact = std::memcmp(magic, kCompact, kMagic) == 0;
  if (!is_compact && std::memcmp(magic, kFull, kMagic) != 0) throw bad_usage("{}: not a logits file", path_);
  uint32_t header[5] = {};
  read(header, is_compact ? 20 : 16);
  compact_ = header[4];
  if (is_compact && (compact_ < 1 || compact_ > vocab_)) {
    throw bad_usage("{}: {} tokens per row, expected 1 to {}", path_, compact_, vocab_);
  }
  if (header[0] != vocab_) {
    throw bad_usage("{}: a reference of another tokenizer: {} tokens, expected {}", path_, header[0], vocab_);
  }
  if (header[2] != windows.size || header[3] != windows.count() || header[1] != windows.rows()) {
    throw bad_usage("{}: {} windows of {} tokens (-c), expected {} of {}", path_, header[3], header[2],
                    windows.count(), windows.size);
  }
  std::vector<int32_t> tokens(windows.tokens.size());
  read(tokens.data(), tokens.size() * sizeof(int32_t));
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] != windows.tokens[i]) {
      throw bad_usage("{}: a reference of another tokenizer or text: token {} has id {}, expected {}", path_,
                      i, tokens[i], windows.tokens[i]);
    }
  }
  std::error_code failed;
  const auto found = static_cast<int64_t>(std::filesystem::file_size(path_, failed));
  const int64_t expected = LogitsWriter::bytes(vocab_, windows, compact_);
  if (failed || found != expected) throw bad_usage("{}: {} bytes, expected {}", path_, found, expected);
}

void LogitsReader::row(float* logits) { read(logits, static_cast<size_t>(vocab_) * sizeof(float)); }

void LogitsReader::row(CompactRow& row) {
  double numbers[3];
  read(numbers, sizeof numbers);
  row.nll = numbers[0];
  row.log_sum = numbers[1];
  row.rest = numbers[2];
  row.ids.resize(static_cast<size_t>(compact_));
  row.logits.resize(static_cast<size_t>(compact_));
  read(row.ids.data(), row.ids.size() * sizeof(int32_t));
  read(row.logits.data(), row.logits.size() * sizeof(float));
  for (size_t i = 0; i < row.ids.size(); ++i) {
    if (row.ids[i] <= (i == 0 ? -1 : row.ids[i - 1]) || row.ids[i] >= vocab_) {
      throw bad_usage("{}: token id {} in a row, expected ascending ids below {}", path_, row.ids[i], vocab_);
    }
  }
}

void LogitsReader::read(void* data, size_t bytes) {
  if (std::fread(data, 1, bytes, file_) != bytes)
    throw bad_usage("{}: ends too early for a logits file", path_);
}

bool is_logits_file(const std::string& path) {
  std::FILE* file = std::fopen(path.c_str(), "rb");
  if (file == nullptr) return false;
  char magic[kMagic] = {};
  const bool read = std::fread(magic, 1, kMagic, file) == kMagic;
  std::fclose(file);
  return read && (std::memcmp(magic, kFull, kMagic) == 0 || std::memcmp(magic, kCompact, kMagic) == 0);
}

}  // namespace mete
