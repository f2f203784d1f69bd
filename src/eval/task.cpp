#include "eval/task.h"

#include <array>
#include <cctype>

#include "base/error.h"

namespace mete {
namespace {

constexpr std::array kNames = {"needle", "multikey", "recall", "gsm8k", "humaneval", "specbench"};

bool is_digit(char c) { return std::isdigit(static_cast<unsigned char>(c)) != 0; }
bool is_word(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0; }

}  // namespace

const char* name(TaskKind kind) { return kNames[static_cast<size_t>(kind)]; }

TaskKind parse_task(const std::string& name) {
  for (size_t i = 0; i < kNames.size(); ++i) {
    if (name == kNames[i]) return static_cast<TaskKind>(i);
  }
  throw bad_usage("--tasks: found '{}', expected needle, multikey, recall, gsm8k, humaneval or specbench",
                  name);
}

std::string final_number(const std::string& text) {
  const size_t mark = text.rfind("####");
  std::string last;
  for (size_t i = mark == std::string::npos ? 0 : mark + 4; i < text.size();) {
    if (!is_digit(text[i])) {
      ++i;
      continue;
    }
    const bool negative = i > 0 && text[i - 1] == '-' && (i < 2 || !is_word(text[i - 2]));
    std::string number = negative ? "-" : "";
    bool fraction = false;
    for (; i < text.size(); ++i) {
      const bool digit_follows = i + 1 < text.size() && is_digit(text[i + 1]);
      if (is_digit(text[i])) {
        number += text[i];
      } else if (text[i] == '.' && !fraction && digit_follows) {
        fraction = true;
        number += '.';
      } else if (text[i] != ',' || fraction || !digit_follows) {
        break;
      }
    }
    if (fraction) {
      while (number.back() == '0') number.pop_back();
      if (number.back() == '.') number.pop_back();
    }
    last = number;
    if (mark != std::string::npos) break;  // the first number after the mark
  }
  return last;
}

bool is_right(TaskKind kind, const TaskItem& item, const std::string& answer) {
  if (kind == TaskKind::kGsm8k) return final_number(answer) == item.expected;
  const size_t begin = answer.find_first_not_of(" \t\n\"'*");
  if (begin == std::string::npos || answer.compare(begin, item.expected.size(), item.expected) != 0)
    return false;
  const size_t end = begin + item.expected.size();
  return end == answer.size() || !is_word(answer[end]);
}

}  // namespace mete
