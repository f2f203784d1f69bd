#include "eval/windows.h"

#include <algorithm>

namespace mete {
namespace {

std::vector<int32_t> encode_text(const Tokenizer& tokenizer, const std::string& text) {
  std::vector<int32_t> ids;
  if (tokenizer.add_bos()) ids.push_back(tokenizer.bos());
  tokenizer.encode(text, false, ids);
  if (tokenizer.add_eos()) ids.push_back(tokenizer.eos());
  return ids;
}

}  // namespace

Windows cut_windows(const Tokenizer& tokenizer, const std::string& text, const std::string& name,
                    int64_t size, int64_t count) {
  if (text.empty()) throw bad_usage("{}: the text is empty", name);
  Windows windows;
  windows.size = size;
  windows.tokens = encode_text(tokenizer, text);
  const int64_t available = windows.count();
  if (available == 0) {
    throw bad_usage("{}: {} tokens, fewer than one window of {} (-c)", name, windows.tokens.size(), size);
  }
  if (count > available) {
    throw bad_usage("--chunks: found {}, but {} has {} windows of {} tokens", count, name, available, size);
  }
  if (count == -1) count = available;
  windows.tokens.resize(static_cast<size_t>(count * size));
  if (tokenizer.add_bos()) {
    for (int64_t i = 0; i < count; ++i) windows.tokens[static_cast<size_t>(i * size)] = tokenizer.bos();
  }
  return windows;
}

void require_same_tokenizer(const Tokenizer& tokenizer, const Tokenizer& other, const std::string& name,
                            const std::string& text) {
  const auto refuse = [&](const std::string& why) {
    throw bad_usage("{}: a reference of another tokenizer: {}", name, why);
  };
  if (tokenizer.vocab_size() != other.vocab_size()) {
    refuse(fmt::format("{} tokens, expected {}", other.vocab_size(), tokenizer.vocab_size()));
  }
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    if (tokenizer.text(id) != other.text(id)) {
      refuse(fmt::format("token {} is '{}', expected '{}'", id, other.text(id), tokenizer.text(id)));
    }
  }
  const std::vector<int32_t> expected = encode_text(tokenizer, text), found = encode_text(other, text);
  if (expected != found) {
    const size_t common = std::min(expected.size(), found.size());
    size_t at = 0;
    while (at < common && expected[at] == found[at]) ++at;
    refuse(fmt::format("it reads the text differently from token {} on", at));
  }
}

}  // namespace mete
