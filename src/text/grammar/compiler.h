// Grammars for one vocabulary, compiled once and kept.
#pragma once

#include <list>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "text/grammar.h"
#include "text/tokenizer.h"

namespace mete {

class GrammarMatcher;
class VocabTree;

class GrammarCompiler {
 public:
  /// `tokenizer` must outlive every grammar made from it.
  explicit GrammarCompiler(const Tokenizer& tokenizer);
  ~GrammarCompiler();

  /// May be called from any thread; the grammar's states belong to one thread. Errors (kUsage) say where the
  /// text is wrong, what was found and what was expected. Equal texts give the same grammar while it is kept.
  Result<std::shared_ptr<const Grammar>> gbnf(std::string_view text);
  /// As gbnf(), but special tokens may stand wherever the text may end: those in `shown` count as their
  /// spelling, everywhere; others as nothing. For grammars of free text.
  Result<std::shared_ptr<const Grammar>> open_gbnf(std::string_view text, std::span<const int32_t> shown);
  /// `schema`: JSON text of a JSON schema (json_schema.h says what is supported).
  Result<std::shared_ptr<const Grammar>> json_schema(std::string_view schema);
  /// Any JSON object.
  Result<std::shared_ptr<const Grammar>> json_object();

 private:
  struct Entry {
    std::string text;  // the GBNF
    std::shared_ptr<const Grammar> grammar;
    std::shared_ptr<GrammarMatcher> matcher;
    std::shared_ptr<const Grammar> open;  // of open_gbnf() with `shown`; null: not asked for yet
    std::vector<int32_t> shown;
  };
  void drop_large();
  Result<Entry*> find(std::string_view text);

  const Tokenizer& tokenizer_;
  std::mutex mutex_;
  std::shared_ptr<const VocabTree> tree_;  // made for the first grammar
  std::list<Entry> kept_;                  // most recently used first
};

}  // namespace mete
