// Tasks: the same questions for the same seed, the answer where it was asked for, judging, data sets that are
// not what they should be.
#include "eval/task.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "base/error.h"
#include "eval/datasets.h"
#include "eval/retrieval.h"

namespace mete {
namespace {

using ::testing::HasSubstr;

std::string long_text() {
  std::string text;
  for (int i = 0; i < 3000; ++i) text += "This is sentence " + std::to_string(i) + "\nof a  long text. ";
  return text;
}

/// A token per 4 bytes.
int64_t count(const std::string& prompt) { return static_cast<int64_t>(prompt.size()) / 4; }

RetrievalOptions options(uint64_t seed) { return {10, seed, 500, {0, 0.25, 0.5, 0.75, 1}}; }

size_t occurrences(const std::string& text, const std::string& part) {
  size_t n = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

TEST(Retrieval, NeedlesLieAtTheirDepthAndFillTheLength) {
  for (const TaskKind kind : {TaskKind::kNeedle, TaskKind::kMultikey}) {
    const Task task = make_needles(kind, long_text(), "text", options(1), count);
    ASSERT_EQ(task.items.size(), 10u);
    for (size_t i = 0; i < 10; ++i) {
      const TaskItem& item = task.items[i];
      EXPECT_LE(count(item.prompt), 500);
      EXPECT_GT(count(item.prompt), 480);
      EXPECT_EQ(occurrences(item.prompt, "secret number of the "),
                (kind == TaskKind::kNeedle ? 1u : 4u) + 2u);
      // The asked key's sentence holds the expected number.
      const size_t key = item.prompt.rfind("number of the ") + 14;
      const std::string asked = item.prompt.substr(key, item.prompt.rfind(" is") - key);
      const std::string sentence = "The secret number of the " + asked + " is " + item.expected + ".";
      const size_t at = item.prompt.find(sentence);
      ASSERT_NE(at, std::string::npos) << item.prompt;
      const double depth = static_cast<double>(at) / static_cast<double>(item.prompt.size());
      EXPECT_NEAR(depth, static_cast<double>(i % 5) / 4, 0.13);
      EXPECT_TRUE(is_right(kind, item, " " + item.expected + "."));
      EXPECT_FALSE(is_right(kind, item, " " + item.expected + "0"));
      EXPECT_FALSE(is_right(kind, item, ""));
    }
  }
}

TEST(Retrieval, QuestionsAreAFunctionOfTheSeed) {
  const auto prompts = [](uint64_t seed) {
    std::set<std::string> out;
    for (const TaskItem& i :
         make_needles(TaskKind::kMultikey, long_text(), "t", options(seed), count).items) {
      out.insert(i.prompt);
    }
    for (const TaskItem& i : make_recall(options(seed), count).items) out.insert(i.prompt);
    return out;
  };
  EXPECT_EQ(prompts(1), prompts(1));
  EXPECT_EQ(prompts(1).size(), 20u);
  for (const std::string& prompt : prompts(1)) EXPECT_EQ(prompts(2).count(prompt), 0u);
}

TEST(Retrieval, RecallAsksForAPairThatIsThereAtItsDepth) {
  const Task task = make_recall(options(3), count);
  for (const TaskItem& item : task.items) {
    const size_t key = item.prompt.rfind('\n') + 1;
    const std::string line = "\n" + item.prompt.substr(key) + " " + item.expected + "\n";
    EXPECT_EQ(occurrences("\n" + item.prompt, line), 1u) << item.prompt;
    EXPECT_LE(count(item.prompt), 500);
  }
  const TaskItem& first = task.items[0];  // depth 0
  EXPECT_EQ(first.prompt.find(first.prompt.substr(first.prompt.rfind('\n') + 1)), 0u);
}

TEST(Retrieval, TooShortIsRefused) {
  EXPECT_THROW(make_needles(TaskKind::kNeedle, "One. Two. Three. ", "t", options(1), count), Error);
  RetrievalOptions tiny = options(1);
  tiny.tokens = 10;
  EXPECT_THROW(make_needles(TaskKind::kNeedle, long_text(), "t", tiny, count), Error);
  tiny.tokens = 3;
  EXPECT_THROW(make_recall(tiny, count), Error);
}

TEST(Judging, FinalNumbers) {
  EXPECT_EQ(final_number("so 3 + 4 = 7 apples. #### 7"), "7");
  EXPECT_EQ(final_number("#### 1,234\n\nQuestion 9"), "1234");
  EXPECT_EQ(final_number("It costs $18.50, then -3"), "-3");
  EXPECT_EQ(final_number("10-3 gives 7.00."), "7");
  EXPECT_EQ(final_number("10-3"), "3");
  EXPECT_EQ(final_number("The answer is 2.50 dollars"), "2.5");
  EXPECT_EQ(final_number("none"), "");
  EXPECT_EQ(final_number("1, 2, 3"), "3");
}

TEST(Judging, Names) {
  EXPECT_EQ(parse_task("gsm8k"), TaskKind::kGsm8k);
  EXPECT_STREQ(name(TaskKind::kSpecBench), "specbench");
  EXPECT_THROW(parse_task("needles"), Error);
}

TEST(Datasets, ReadAndRefuse) {
  const std::string two =
      "{\"question\": \"Q1?\", \"answer\": \"a\\n#### 1,000\"}\n\n{\"question\": \"Q2?\", \"answer\": \"#### "
      "-5\"}\n";
  const Task task = read_gsm8k(two, "g", -1, 0, false).value();
  ASSERT_EQ(task.items.size(), 2u);
  EXPECT_EQ(task.items[0].expected, "1000");
  EXPECT_EQ(task.items[1].expected, "-5");
  EXPECT_EQ(task.items[1].prompt, "Question: Q2?\nAnswer:");
  EXPECT_TRUE(is_right(TaskKind::kGsm8k, task.items[0], "It is 1000."));
  const auto refusal = [](const std::string& text, int64_t samples) {
    return read_gsm8k(text, "g", samples, 0, false).error().message();
  };
  EXPECT_EQ(refusal("", -1), "g: no questions in it");
  EXPECT_EQ(refusal("\nnot json\n", -1), "g: line 2: not a JSON object");
  EXPECT_EQ(refusal("[1]", -1), "g: line 1: not a JSON object");
  EXPECT_EQ(refusal("{\"question\": 5, \"answer\": \"#### 1\"}", -1),
            "g: line 1: no text in the field 'question'");
  EXPECT_THAT(refusal("{\"question\": \"?\", \"answer\": \"5\"}", -1), HasSubstr("#### NUMBER"));
  EXPECT_THAT(refusal(two, 3), HasSubstr("has 2 questions"));
  EXPECT_THAT(read_specbench("{\"category\": \"a\", \"turns\": []}", "s", -1, 0, true).error().message(),
              HasSubstr("'turns'"));
  EXPECT_THAT(read_humaneval("{\"prompt\": \"def f\", \"test\": \"\"}", "h", -1, 0).error().message(),
              HasSubstr("'entry_point'"));
}

TEST(Datasets, SamplesAreAFunctionOfTheSeed) {
  std::string text;
  for (int i = 0; i < 50; ++i) {
    text += "{\"category\": \"c\", \"turns\": [\"prompt " + std::to_string(i) + "\"]}\n";
  }
  const auto prompts = [&](uint64_t seed) {
    std::vector<std::string> out;
    for (const TaskItem& item : read_specbench(text, "s", 10, seed, true).value().items)
      out.push_back(item.prompt);
    return out;
  };
  EXPECT_EQ(prompts(1), prompts(1));
  EXPECT_NE(prompts(1), prompts(2));
  const std::vector<std::string> first = prompts(1);
  EXPECT_EQ(std::set<std::string>(first.begin(), first.end()).size(), 10u);
}

}  // namespace
}  // namespace mete
