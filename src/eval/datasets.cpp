#include "eval/datasets.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/rng.h"

namespace mete {
namespace {

using Json = nlohmann::json;

/// Turns one line's object into an item; an error says what is wrong with it.
using MakeItem = std::function<Result<TaskItem>(const Json&)>;

/// The field as text, or an error naming it.
Result<std::string> text_field(const Json& object, const char* field) {
  const auto found = object.find(field);
  if (found == object.end() || !found->is_string()) return bad_usage("no text in the field '{}'", field);
  return found->get<std::string>();
}

Result<std::vector<TaskItem>> read_items(const std::string& text, const std::string& name, int64_t samples,
                                         uint64_t seed, const MakeItem& make) {
  std::vector<TaskItem> items;
  size_t line_number = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string line = text.substr(begin, end - begin);
    begin = end + 1;
    ++line_number;
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const Json object = Json::parse(line, nullptr, false);
    if (!object.is_object()) return bad_usage("{}: line {}: not a JSON object", name, line_number);
    Result<TaskItem> item = make(object);
    if (!item) return bad_usage("{}: line {}: {}", name, line_number, item.error().message());
    items.push_back(*std::move(item));
  }
  if (items.empty()) return bad_usage("{}: no questions in it", name);
  const auto count = static_cast<int64_t>(items.size());
  if (samples > count) return bad_usage("--samples: found {}, but {} has {} questions", samples, name, count);
  if (samples == -1 || samples == count) return items;
  std::vector<size_t> order(items.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return random_bits(seed, a, Purpose::kEval) < random_bits(seed, b, Purpose::kEval);
  });
  std::vector<TaskItem> chosen;
  for (int64_t i = 0; i < samples; ++i) chosen.push_back(std::move(items[order[static_cast<size_t>(i)]]));
  return chosen;
}

}  // namespace

Result<Task> read_gsm8k(const std::string& text, const std::string& name, int64_t samples, uint64_t seed,
                        bool chat) {
  const MakeItem make = [&](const Json& object) -> Result<TaskItem> {
    const Result<std::string> question = text_field(object, "question"),
                              answer = text_field(object, "answer");
    if (!question) return question.error();
    if (!answer) return answer.error();
    const std::string number = answer->find("####") == std::string::npos ? "" : final_number(*answer);
    if (number.empty()) return bad_usage("the field 'answer' has no '#### NUMBER'");
    const std::string prompt = chat ? *question + "\nThink step by step. Write the final number after ####."
                                    : "Question: " + *question + "\nAnswer:";
    return TaskItem{"", prompt, number};
  };
  Result<std::vector<TaskItem>> items = read_items(text, name, samples, seed, make);
  if (!items) return items.error();
  return Task{TaskKind::kGsm8k, chat, 400, {"\nQuestion:"}, *std::move(items)};
}

Result<Task> read_humaneval(const std::string& text, const std::string& name, int64_t samples,
                            uint64_t seed) {
  const MakeItem make = [](const Json& object) -> Result<TaskItem> {
    const Result<std::string> prompt = text_field(object, "prompt"), test = text_field(object, "test"),
                              entry = text_field(object, "entry_point");
    if (!prompt) return prompt.error();
    if (!test) return test.error();
    if (!entry) return entry.error();
    return TaskItem{"", *prompt, *test + "\ncheck(" + *entry + ")\n"};
  };
  Result<std::vector<TaskItem>> items = read_items(text, name, samples, seed, make);
  if (!items) return items.error();
  const std::vector<std::string> stops = {"\nclass ", "\ndef ", "\n#", "\nif ", "\nprint(", "\n@", "\n```"};
  return Task{TaskKind::kHumanEval, false, 384, stops, *std::move(items)};
}

Result<Task> read_specbench(const std::string& text, const std::string& name, int64_t samples, uint64_t seed,
                            bool chat) {
  const MakeItem make = [](const Json& object) -> Result<TaskItem> {
    const Result<std::string> category = text_field(object, "category");
    if (!category) return category.error();
    const auto turns = object.find("turns");
    if (turns == object.end() || !turns->is_array() || turns->empty() || !turns->front().is_string()) {
      return bad_usage("no texts in the field 'turns'");
    }
    return TaskItem{*category, turns->front().get<std::string>(), ""};
  };
  Result<std::vector<TaskItem>> items = read_items(text, name, samples, seed, make);
  if (!items) return items.error();
  return Task{TaskKind::kSpecBench, chat, 128, {}, *std::move(items)};
}

}  // namespace mete
