// A tiny golden model in a temporary file, and runtimes of it.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>

#include "engine/runtime.h"
#include "testing/tiny_models.h"

namespace mete::testing {

inline void write_file(const std::string& path, const void* data, size_t bytes) {
  std::FILE* file = std::fopen(path.c_str(), "wb");
  ASSERT_NE(file, nullptr);
  EXPECT_EQ(std::fwrite(data, 1, bytes, file), bytes);
  std::fclose(file);
}

class TinyFile {
 public:
  explicit TinyFile(const std::string& name = "llama", DType type = DType::kQ8_0) {
    path_ = temporary(name + ".gguf");
    const std::vector<uint8_t> bytes = named_tiny_model_gguf(name, type);
    write_file(path_, bytes.data(), bytes.size());
  }
  ~TinyFile() { std::remove(path_.c_str()); }
  const std::string& path() const { return path_; }
  std::unique_ptr<Runtime> load(int64_t context, int64_t max_rows = 512,
                                NumericMode mode = NumericMode::kStandard) const {
    RuntimeConfig config;
    config.model_path = path_;
    config.threads = 1;
    config.context = context;
    config.max_rows = max_rows;
    config.mode = mode;
    return std::make_unique<Runtime>(config);
  }
  static std::string temporary(const std::string& name) {
    return ::testing::TempDir() + "eval_" + std::to_string(::getpid()) + "_" + name;
  }

 private:
  std::string path_;
};

/// Words enough for `tokens` tokens and more.
inline std::string some_text(int64_t tokens) {
  std::string text;
  for (int64_t i = 0; i < tokens; ++i) text += "word" + std::to_string(i * 7919 % 1000) + " ";
  return text;
}

}  // namespace mete::testing
