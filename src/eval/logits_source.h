// Where the logits of the scored rows come from: a model that is run, or a file.
#pragma once

#include <functional>

#include "engine/runtime.h"
#include "eval/windows.h"

namespace mete {

/// Scored rows of all windows, in order.
class LogitsSource {
 public:
  virtual ~LogitsSource() = default;
  /// The next row, [vocab]; valid until the next call; at most Windows::rows() calls. Throws Error.
  virtual const float* next() = 0;
};

/// Runs the model over the windows, in steps of at most Runtime::max_rows() rows; how many does not change a
/// bit.
class ModelLogits : public LogitsSource {
 public:
  /// Both must live longer. The runtime's context must hold a window.
  ModelLogits(Runtime& runtime, const Windows& windows);
  ~ModelLogits() override;
  const float* next() override;

 private:
  void step();

  Runtime& runtime_;
  const Windows& windows_;
  AlignedBuffer buffer_;  // [kept rows of a step][vocab]
  std::vector<Row> rows_;
  std::vector<int32_t> wanted_;
  SeqId seq_ = -1;
  int64_t window_ = 0, position_ = 0;  // what the next step feeds
  size_t given_ = 0;                   // rows of wanted_ handed out
};

}  // namespace mete
