// Hostile tokenizer metadata: create() must return an error or a tokenizer that works. The input is a list of
// commands: each picks a field of a sound file and damages it, the rest is text to encode.
#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "text/detokenizer.h"
#include "text/tokenizer_vocab.h"
#include "text/utf8.h"
#include "tokenizer_metadata.h"

namespace mete {
namespace {

/// Bytes taken from the front; zeros when there are none left.
class Input {
 public:
  Input(const uint8_t* data, size_t size) : left_(reinterpret_cast<const char*>(data), size) {}
  uint8_t byte() {
    if (left_.empty()) return 0;
    const auto out = static_cast<uint8_t>(left_[0]);
    left_.remove_prefix(1);
    return out;
  }
  int32_t word() {
    uint32_t out = 0;
    for (int i = 0; i < 4; ++i) out = out << 8 | byte();
    return static_cast<int32_t>(out);
  }
  std::string text() {
    const std::string out(left_.substr(0, byte() % 24));
    left_.remove_prefix(std::min(out.size(), left_.size()));
    return out;
  }
  std::string_view rest() const { return left_; }

 private:
  std::string_view left_;
};

struct Fields {
  std::vector<std::string> tokens{"<unk>", "<s>", "</s>"}, merges{"a b", "ab ab"};
  std::vector<int32_t> types{2, 3, 3};
  std::vector<float> scores;

  explicit Fields(bool spm) {
    for (size_t byte = 0; byte < 256; ++byte) {
      tokens.emplace_back();
      if (spm) {
        tokens.back() = fmt::format("<0x{:02X}>", byte);
      } else {
        utf8_append(tokens.back(), byte_level_map()[byte]);
      }
    }
    types.resize(tokens.size(), spm ? 6 : 1);
    if (spm) tokens.insert(tokens.end(), {"a", "b", "\xe2\x96\x81"});
    tokens.insert(tokens.end(), {"ab", "abab"});
    types.resize(tokens.size(), 1);
    scores.assign(tokens.size(), -1.0f);
  }
};

void damage(Input& input, Fields& fields, fuzz::Metadata& metadata) {
  const uint8_t what = input.byte() % 8;
  const auto place = [&](size_t size) { return static_cast<size_t>(input.byte()) * 2 % size; };
  if (what == 0) fields.tokens[place(fields.tokens.size())] = input.text();
  if (what == 1) fields.types[place(fields.types.size())] = input.byte() % 8;
  if (what == 2) fields.merges.push_back(input.text());
  if (what == 3) {
    const int32_t bits = input.word();
    std::memcpy(&fields.scores[place(fields.scores.size())], &bits, sizeof bits);
  }
  if (what == 4) fields.tokens.push_back(input.text());
  if (what == 5) fields.types.push_back(input.byte() % 8), fields.scores.push_back(-2.0f);
  if (what == 6) fields.merges.push_back(input.text() + " " + input.text());
  if (what == 7) {
    constexpr const char* kKeys[] = {"bos_token_id", "eos_token_id", "eot_token_id", "unknown_token_id"};
    metadata.number(std::string("tokenizer.ggml.") + kKeys[input.byte() % 4], input.word() % 400);
  }
}

void try_file(Input input) {
  const bool spm = input.byte() % 2 == 0;
  Fields fields(spm);
  fuzz::Metadata metadata;
  metadata.text("tokenizer.ggml.model", spm ? "llama" : input.byte() % 4 == 0 ? "gemma4" : "gpt2");
  metadata.text("tokenizer.ggml.pre", input.byte() % 2 == 0 ? "llama-bpe" : "qwen2");
  for (int count = input.byte() % 6; count > 0; --count) damage(input, fields, metadata);
  metadata.texts("tokenizer.ggml.tokens", fields.tokens);
  metadata.texts("tokenizer.ggml.merges", fields.merges);
  metadata.numbers("tokenizer.ggml.token_type", fields.types, GgufValueType::kI32);
  metadata.numbers("tokenizer.ggml.scores", fields.scores, GgufValueType::kF32);
  const auto tokenizer = Tokenizer::create(metadata.metadata);
  if (!tokenizer) return;
  const Tokenizer& t = **tokenizer;
  std::vector<int32_t> ids = t.encode(input.rest(), false);
  for (const int32_t id : ids) {
    // The unknown token stands for bytes that the vocabulary lacks.
    if (id < 0 || id >= t.vocab_size() || (t.is_special(id) && id != t.unk())) std::abort();
  }
  t.encode(input.rest(), true, ids);
  for (int32_t id = 0; id < t.vocab_size(); ++id) ids.push_back(id);
  StreamDetokenizer stream(t);
  std::string streamed;
  for (const int32_t id : ids) streamed += stream.put(id);
  streamed += stream.finish();
  if (streamed != decode(t, ids)) std::abort();
}

}  // namespace
}  // namespace mete

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  mete::try_file(mete::Input(data, size));
  return 0;
}
