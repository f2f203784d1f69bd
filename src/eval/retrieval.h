// Retrieval tasks made from a long text, a function of the seed alone: facts put between the sentences of the
// text at given depths, one of them asked for at the end.
#pragma once

#include "eval/task.h"

namespace mete {

/// Number of tokens of a prompt.
using CountTokens = std::function<int64_t(const std::string&)>;

struct RetrievalOptions {
  int64_t samples = 20;
  uint64_t seed = 0;
  int64_t tokens = 1024;       ///< longest prompt
  std::vector<double> depths;  ///< 0 .. 1, of the fact that is asked for; sample i uses depths[i % size]
};

/// "The secret number of the KEY is NUMBER.", one in `text` (kNeedle) or four with different keys
/// (kMultikey), as long a stretch of `text` as fits. Throws Error(kUsage): a text or a length that is too
/// short. `name` is what messages call the text.
Task make_needles(TaskKind kind, const std::string& text, const std::string& name,
                  const RetrievalOptions& options, const CountTokens& count);

/// Lines "word: word", as many as fit (at most 40), then the first word of one of them; the depth says which.
Task make_recall(const RetrievalOptions& options, const CountTokens& count);

}  // namespace mete
