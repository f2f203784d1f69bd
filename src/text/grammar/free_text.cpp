#include "text/grammar/free_text.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "text/grammar/regex_gbnf.h"

namespace mete {
namespace {

/// Length of the longest end of `text` that `mark` begins with.
size_t matched(std::string_view text, std::string_view mark) {
  size_t length = std::min(text.size(), mark.size());
  while (text.substr(text.size() - length) != mark.substr(0, length)) --length;
  return length;
}

/// Rules NAME0, NAME1, ...: any text up to the first `mark`, and `then` behind it; or any text without one.
/// NAMEk: the text so far ends with the first k bytes of the mark, and with no more of it.
std::string text_until(std::string_view name, std::string_view mark, std::string_view then) {
  std::string out;
  for (size_t k = 0; k < mark.size(); ++k) {
    std::string others;  // bytes after which something of the mark is there
    out += fmt::format("{}{} ::= \"\"", name, k);
    for (size_t i = 0; i < mark.size(); ++i) {
      if (mark.find(mark[i]) != i) continue;
      const std::string text = std::string(mark.substr(0, k)) + mark[i];
      const size_t next = matched(text, mark);
      if (next == 0) continue;
      const std::string byte = fmt::format("\\x{:02X}", static_cast<unsigned>(mark[i]));
      others += byte;
      const std::string target = next == mark.size() ? std::string(then) : fmt::format("{}{}", name, next);
      out += fmt::format(" | \"{}\" {}", byte, target);
    }
    out += fmt::format(" | [^{}] {}0\n", others, name);
  }
  return out;
}

}  // namespace

std::string free_text_gbnf(std::string_view call, const FreeTextMarks& marks, FreeTextStart start) {
  constexpr std::string_view kRoot = "root ::= ";
  METE_CHECK(call.substr(0, kRoot.size()) == kRoot);
  std::string out(kRoot);
  if (start == FreeTextStart::kReasoning) {
    out += "think0";
  } else {
    out += "free0";
    if (start == FreeTextStart::kAnything)
      out += fmt::format(" | [ \\t\\r\\n]* {} think0", gbnf_literal(marks.think_open));
  }
  out += '\n';
  out += text_until("free", marks.open, "call");
  if (start != FreeTextStart::kText) out += text_until("think", marks.think_close, "free0");
  out += fmt::format("call ::= space call-body space {} free0\n", gbnf_literal(marks.close));
  return out + "call-body ::= " + std::string(call.substr(kRoot.size()));
}

}  // namespace mete
