#include "server/output_parser.h"

#include <gtest/gtest.h>

namespace mete {
namespace {

OutputPiece run(std::string_view text, size_t step, bool inside = false) {
  OutputParser parser(true, inside);
  OutputPiece all;
  const auto add = [&](const OutputPiece& piece) {
    all.text += piece.text;
    all.reasoning += piece.reasoning;
  };
  for (size_t i = 0; i < text.size(); i += step) add(parser.put(text.substr(i, step)));
  add(parser.finish());
  return all;
}

struct Case {
  const char* output;
  bool inside;
  const char *reasoning, *text;
};

constexpr Case kCases[] = {
    {"plain answer", false, "", "plain answer"},
    {"<think>why</think>because", false, "why", "because"},
    {" \n<think>\nwhy\n\nhow \n</think>\n\nbecause\n", false, "why\n\nhow", "because\n"},
    {"why</think> because", true, "why", "because"},
    {"\n\n</think>\n\nbecause", true, "", "because"},
    {"never ends ", true, "never ends", ""},
    {"<think></think>x", false, "", "x"},
    {"<thinking> no", false, "", "<thinking> no"},
    {"<thi", false, "", "<thi"},
    {"a <think>b</think>", false, "", "a <think>b</think>"},
    {"<think>a </thinker> b</think>c", false, "a </thinker> b", "c"},
    {"  ", false, "", "  "},
};

TEST(OutputParser, SplitsReasoningHoweverTheTextIsCut) {
  for (const Case& c : kCases) {
    for (size_t step = 1; step <= std::string_view(c.output).size(); ++step) {
      const OutputPiece piece = run(c.output, step, c.inside);
      EXPECT_EQ(piece.reasoning, c.reasoning) << c.output << " by " << step;
      EXPECT_EQ(piece.text, c.text) << c.output << " by " << step;
    }
  }
}

TEST(OutputParser, LeavesTextAloneWhenNotAsked) {
  OutputParser parser(false, true);
  EXPECT_EQ(parser.put("<think>a").text, "<think>a");
  EXPECT_TRUE(parser.finish().empty());
}

}  // namespace
}  // namespace mete
