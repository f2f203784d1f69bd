#include "text/pretokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <new>
#include <string>

namespace mete {
namespace {

constexpr size_t kJitStackBytes = 64u << 20;  // reserved address space; touched only as far as used

/// PCRE2's own \s also holds U+180E, which is no white space since Unicode 6.3.
std::string with_unicode_space(std::string_view expression) {
  std::string out;
  for (size_t i = 0; i < expression.size(); ++i) {
    const char c = expression[i];
    if (c != '\\' || i + 1 == expression.size()) {
      out.push_back(c);
      continue;
    }
    const char escaped = expression[++i];
    if (escaped == 's') {
      out.append("\\p{White_Space}");
    } else if (escaped == 'S') {
      out.append("\\P{White_Space}");
    } else {
      out.push_back('\\');
      out.push_back(escaped);
    }
  }
  return out;
}

pcre2_code* compile(const char* expression) {
  const std::string pattern = with_unicode_space(expression);
  int error = 0;
  PCRE2_SIZE at = 0;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                   PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C | PCRE2_NO_AUTO_CAPTURE,
                                   &error, &at, nullptr);
  if (code == nullptr) {
    PCRE2_UCHAR message[128] = {};
    pcre2_get_error_message(error, message, sizeof message);
    throw run_failure("pre-tokenizer expression \"{}\": PCRE2 says \"{}\" at {}", pattern,
                      reinterpret_cast<const char*>(message), at);
  }
  // Without JIT (a system that forbids it) pcre2_match() interprets: same result, slower.
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
  return code;
}

}  // namespace

const PreTokenizerKind* find_pre_tokenizer(std::string_view name) {
  for (const PreTokenizerKind& kind : pre_tokenizers()) {
    if (kind.name == name) return &kind;
  }
  return nullptr;
}

std::string pre_tokenizer_names() {
  std::vector<std::string_view> names;
  for (const PreTokenizerKind& kind : pre_tokenizers()) names.push_back(kind.name);
  std::sort(names.begin(), names.end());
  return fmt::format("{}", fmt::join(names, ", "));
}

PreTokenizer::PreTokenizer(const PreTokenizerKind& kind) {
  for (const char* expression : kind.expressions) codes_.push_back(compile(expression));
}

PreTokenizer::~PreTokenizer() {
  for (pcre2_code* code : codes_) pcre2_code_free(code);
}

PreTokenizer::PreTokenizer(PreTokenizer&& other) noexcept : codes_(std::exchange(other.codes_, {})) {}

PreTokenizer::Scratch::Scratch(const PreTokenizer& owner) {
  context_ = pcre2_match_context_create(nullptr);
  bool complete = context_ != nullptr;
  for (size_t i = 0; i < owner.codes_.size(); ++i) {
    match_.push_back(pcre2_match_data_create(1, nullptr));
    complete = complete && match_.back() != nullptr;
  }
  if (!complete) throw std::bad_alloc();
  // The expressions are our own and linear; the text may be long.
  pcre2_set_match_limit(context_, UINT32_MAX);
  pcre2_set_heap_limit(context_, UINT32_MAX);
  pcre2_set_depth_limit(context_, UINT32_MAX);
}

PreTokenizer::Scratch::~Scratch() {
  for (pcre2_match_data* match : match_) pcre2_match_data_free(match);
  if (stack_ != nullptr) pcre2_jit_stack_free(stack_);
  pcre2_match_context_free(context_);
}

void PreTokenizer::split(std::string_view text, Scratch& scratch,
                         FunctionRef<void(std::string_view)> word) const {
  if (!text.empty()) split_from(0, text, scratch, word);
}

void PreTokenizer::split_from(size_t level, std::string_view text, Scratch& scratch,
                              FunctionRef<void(std::string_view)> word) const {
  if (level == codes_.size()) {
    word(text);
    return;
  }
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  pcre2_match_data* match = scratch.match_[level];
  const PCRE2_SIZE* found = pcre2_get_ovector_pointer(match);
  size_t at = 0;
  while (at < text.size()) {
    const auto search = [&] {
      return pcre2_match(codes_[level], subject, text.size(), at, PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY, match,
                         scratch.context_);
    };
    int status = search();
    if (status == PCRE2_ERROR_JIT_STACKLIMIT && scratch.stack_ == nullptr) {
      scratch.stack_ = pcre2_jit_stack_create(64 << 10, kJitStackBytes, nullptr);
      if (scratch.stack_ == nullptr) throw std::bad_alloc();
      pcre2_jit_stack_assign(scratch.context_, nullptr, scratch.stack_);
      status = search();
    }
    if (status == PCRE2_ERROR_NOMATCH) break;
    if (status < 0)
      throw run_failure("pre-tokenizer: PCRE2 error {} at byte {} of {}", status, at, text.size());
    const size_t begin = found[0], end = found[1];
    if (begin > at) split_from(level + 1, text.substr(at, begin - at), scratch, word);
    split_from(level + 1, text.substr(begin, end - begin), scratch, word);
    at = end;
  }
  if (at < text.size()) split_from(level + 1, text.substr(at), scratch, word);
}

}  // namespace mete
