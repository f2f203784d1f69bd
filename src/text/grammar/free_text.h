// Text in which tool calls are bound and everything else is free, as a grammar.
#pragma once

#include <string>
#include <string_view>

namespace mete {

struct FreeTextMarks {
  std::string_view open, close;              ///< of a call
  std::string_view think_open, think_close;  ///< of reasoning, where nothing is a call
};
enum class FreeTextStart {
  kText,       ///< reasoning is not told apart
  kAnything,   ///< reasoning may come first
  kReasoning,  ///< the text begins inside it
};

/// GBNF of all texts in which whatever stands behind an `open` mark outside reasoning is one call and its
/// `close` mark. The text may end everywhere but in a call. `call`: GBNF of a call as json_schema_to_gbnf
/// writes it. Marks are ASCII and not empty.
std::string free_text_gbnf(std::string_view call, const FreeTextMarks& marks, FreeTextStart start);

}  // namespace mete
