// Any bytes through small tokenizers of each sort. Invariants: ids in range, no special token from user text,
// the pieces give the text back, streaming equals decoding at once.
#include <cstdlib>
#include <memory>

#include "text/detokenizer.h"
#include "text/tokenizer_vocab.h"
#include "text/utf8.h"
#include "tokenizer_metadata.h"

namespace mete {
namespace {

using fuzz::Metadata;

void require(bool holds) {
  if (!holds) std::abort();
}

std::unique_ptr<Tokenizer> make_bpe(const char* pre) {
  std::vector<std::string> tokens, merges;
  for (const uint16_t point : byte_level_map()) utf8_append(tokens.emplace_back(), point);
  const auto merge = [&](const std::string& left, const std::string& right) {
    merges.push_back(left + " " + right);
    tokens.push_back(left + right);
  };
  merge("a", "b"), merge("b", "c"), merge("a", "a"), merge("aa", "aa"), merge(tokens[' '], "a");
  merge(tokens['\n'], tokens['\n']), merge(tokens[0xe4], tokens[0xb8]), merge("'", "s");
  std::vector<int32_t> types(tokens.size(), 1);
  tokens.insert(tokens.end(), {"<|x|>", "<y>"});
  types.insert(types.end(), {3, 4});
  Metadata out;
  out.text("tokenizer.ggml.model", "gpt2");
  out.text("tokenizer.ggml.pre", pre);
  out.texts("tokenizer.ggml.tokens", tokens);
  out.texts("tokenizer.ggml.merges", merges);
  out.numbers("tokenizer.ggml.token_type", types, GgufValueType::kI32);
  return Tokenizer::create(out.metadata).value();
}

std::unique_ptr<Tokenizer> make_spm() {
  std::vector<std::string> tokens{"<unk>", "<s>", "</s>"};
  std::vector<int32_t> types{2, 3, 3};
  for (int byte = 0; byte < 256; ++byte) tokens.push_back(fmt::format("<0x{:02X}>", byte));
  types.resize(tokens.size(), 6);
  for (const char* text : {"a", "b", "ab", "\xe2\x96\x81",
                           "\xe2\x96\x81"
                           "a",
                           "aa", "aaa", "\xe4\xb8\xad", "s>"}) {
    tokens.push_back(text);
  }
  types.resize(tokens.size(), 1);
  std::vector<float> scores;
  for (size_t i = 0; i < tokens.size(); ++i) scores.push_back(-static_cast<float>(i % 5));
  Metadata out;
  out.text("tokenizer.ggml.model", "llama");
  out.texts("tokenizer.ggml.tokens", tokens);
  out.numbers("tokenizer.ggml.token_type", types, GgufValueType::kI32);
  out.numbers("tokenizer.ggml.scores", scores, GgufValueType::kF32);
  return Tokenizer::create(out.metadata).value();
}

void check(const Tokenizer& t, std::string_view text) {
  const auto ids = t.encode(text, false);
  std::string bytes, streamed;
  StreamDetokenizer stream(t);
  for (const int32_t id : ids) {
    require(id >= 0 && id < t.vocab_size() && !t.is_special(id));
    bytes.append(t.piece(id));
    streamed += stream.put(id);
  }
  streamed += stream.finish();
  require(streamed == decode(t, ids));
  require(streamed == utf8_repair(bytes));
  if (t.add_space_prefix()) {
    // U+2581 in the text comes back as a space.
    require(text.empty() || text.find(kMetaspace) != std::string_view::npos ||
            bytes == " " + std::string(text));
  } else {
    require(bytes == text);
  }
  for (const int32_t id : t.encode(text, true)) require(id >= 0 && id < t.vocab_size());
}

}  // namespace
}  // namespace mete

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const auto tokenizers = [] {
    std::vector<std::unique_ptr<mete::Tokenizer>> out;
    for (const char* pre : {"default", "gpt-2", "smollm", "falcon", "llama-bpe", "qwen2", "qwen35", "tekken",
                            "gpt-4o", "deepseek-llm", "deepseek-coder", "deepseek-v3"}) {
      out.push_back(mete::make_bpe(pre));
    }
    out.push_back(mete::make_spm());
    return out;
  }();
  for (const auto& tokenizer : tokenizers) {
    mete::check(*tokenizer, std::string_view(reinterpret_cast<const char*>(data), size));
  }
  return 0;
}
