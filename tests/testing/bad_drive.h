// Reads that end early or fail.
#pragma once

#include <algorithm>
#include <cerrno>
#include <memory>

#include "format/direct_reader.h"

namespace mete::testing {

/// Cuts every `every`-th read short, or lets it fail.
class BadDrive final : public AsyncReader {
 public:
  BadDrive(std::unique_ptr<AsyncReader> reader, int every, bool cut, const bool* gone)
      : reader_(std::move(reader)), every_(every), cut_(cut), gone_(gone) {}
  void submit(const ReadRequest& request) noexcept override { reader_->submit(request); }
  size_t collect(std::span<ReadDone> done, bool wait) noexcept override {
    const size_t n = reader_->collect(done, wait);
    for (size_t i = 0; i < n; ++i) {
      const bool bad = ++count_ % every_ == 0;
      if (*gone_ || (bad && !cut_)) done[i].result = -EIO;
      if (!*gone_ && bad && cut_) done[i].result = std::min<int64_t>(done[i].result, 4096 + 100);
    }
    return n;
  }
  int depth() const override { return reader_->depth(); }
  std::string how() const override { return reader_->how(); }

 private:
  std::unique_ptr<AsyncReader> reader_;
  int every_;
  bool cut_;
  const bool* gone_;
  int count_ = 0;
};

}  // namespace mete::testing
