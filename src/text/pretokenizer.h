// Cuts text into the words inside which byte-pair merges happen, by the published expressions of each
// tokenizer family (PCRE2 with UTF, UCP and JIT; white space is Unicode's White_Space).
#pragma once

#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/thread_pool.h"

struct pcre2_real_code_8;
struct pcre2_real_match_data_8;
struct pcre2_real_match_context_8;
struct pcre2_real_jit_stack_8;

namespace mete {

/// What `tokenizer.ggml.pre` implies. Sources: each family's tokenizer.json; names as GGUF writers use them.
struct PreTokenizerKind {
  std::string_view name;
  /// Applied one after another: each cuts what the one before left into matches and gaps, and sees nothing
  /// beyond its piece.
  std::span<const char* const> expressions;
  bool ignore_merges = false;  ///< a word that is a token needs no merges
  bool add_bos = false;        ///< default where `tokenizer.ggml.add_bos_token` is absent
};
/// Null if unknown.
const PreTokenizerKind* find_pre_tokenizer(std::string_view name);
/// All names, sorted, separated by ", ".
std::string pre_tokenizer_names();
std::span<const PreTokenizerKind> pre_tokenizers();

class PreTokenizer {
 public:
  /// Throws Error(kRuntime) if PCRE2 refuses an expression.
  explicit PreTokenizer(const PreTokenizerKind& kind);
  ~PreTokenizer();
  PreTokenizer(PreTokenizer&&) noexcept;

  /// Working memory of one caller.
  class Scratch {
   public:
    explicit Scratch(const PreTokenizer& owner);
    ~Scratch();
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;

   private:
    friend class PreTokenizer;
    std::vector<pcre2_real_match_data_8*> match_;  ///< one per expression
    pcre2_real_match_context_8* context_ = nullptr;
    pcre2_real_jit_stack_8* stack_ = nullptr;
  };

  /// Calls `word` on the consecutive pieces of `text`, which must be valid UTF-8. Linear in its length.
  void split(std::string_view text, Scratch& scratch, FunctionRef<void(std::string_view)> word) const;

 private:
  void split_from(size_t level, std::string_view text, Scratch& scratch,
                  FunctionRef<void(std::string_view)> word) const;

  std::vector<pcre2_real_code_8*> codes_;
};

}  // namespace mete
