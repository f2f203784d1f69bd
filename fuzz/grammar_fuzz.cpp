// GBNF and JSON schema from arbitrary bytes; what compiles is followed for some steps, and the mask of a
// small vocabulary is compared with following each byte.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "text/grammar/automaton.h"
#include "text/grammar/gbnf.h"
#include "text/grammar/json_schema.h"

namespace {

void follow(mete::GrammarProgram program) {
  mete::GrammarAutomaton automaton(std::move(program));
  mete::GrammarAutomaton::State state = automaton.start();
  for (int n = 0; n < 64 && state != mete::GrammarAutomaton::kDead; ++n) {
    mete::GrammarAutomaton::State next = mete::GrammarAutomaton::kDead;
    for (int byte = 0; byte < 256; ++byte) {
      const mete::GrammarAutomaton::State s =
          automaton.step(state, static_cast<uint8_t>((byte * 37 + n) & 255));
      if (s != mete::GrammarAutomaton::kDead) next = s;
    }
    if (automaton.exhausted()) return;
    state = next;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace mete;
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] % 2 == 0) {
    const auto program = parse_gbnf(text);
    if (program) {
      follow(*program);
    } else {
      METE_CHECK(!program.error().message().empty());
    }
    return 0;
  }
  const auto gbnf = json_schema_to_gbnf(text);
  if (!gbnf) {
    METE_CHECK(!gbnf.error().message().empty());
    return 0;
  }
  const auto program = parse_gbnf(*gbnf);
  if (program) follow(*program);
  return 0;
}
