#include "eval/retrieval.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>

#include "base/error.h"
#include "base/rng.h"

namespace mete {
namespace {

constexpr std::array kKeys = {
    "garden",  "harbor",  "castle",  "violin",  "market", "forest", "bridge", "palace",  "temple",  "island",
    "library", "kitchen", "station", "theater", "valley", "tower",  "museum", "village", "orchard", "stable",
    "cellar",  "chapel",  "factory", "school",  "prison", "desert", "meadow", "tunnel",  "tavern",  "lantern",
    "mirror",  "saddle",  "basket",  "hammer",  "ladder", "pencil", "pillow", "ribbon",  "rocket",  "wagon"};
constexpr std::array kValues = {
    "red",   "blue", "green", "black", "white",  "brown",  "silver", "gold",    "horse",  "dog",
    "cat",   "bird", "fish",  "bear",  "lion",   "wolf",   "north",  "south",   "east",   "west",
    "bread", "milk", "water", "wine",  "stone",  "wood",   "iron",   "glass",   "paper",  "cotton",
    "rain",  "snow", "king",  "queen", "doctor", "father", "mother", "brother", "summer", "winter"};

/// Numbers of one sample, each a function of (seed, sample, index).
class Draws {
 public:
  Draws(uint64_t seed, int64_t sample) : seed_(seed), next_(static_cast<uint64_t>(sample) << 16) {}
  uint64_t below(uint64_t n) { return random_bits(seed_, next_++, Purpose::kEval) % n; }
  double unit() { return random_unit(seed_, next_++, Purpose::kEval); }
  /// The first `count` of 0 .. n - 1 in random order.
  std::vector<size_t> some_of(size_t n, size_t count) {
    std::vector<size_t> order(n);
    for (size_t i = 0; i < n; ++i) order[i] = i;
    for (size_t i = 0; i < count; ++i) std::swap(order[i], order[i + below(n - i)]);
    order.resize(count);
    return order;
  }

 private:
  uint64_t seed_, next_;
};

struct Fact {
  double depth;
  std::string sentence;
};

/// White space becomes single spaces; the text ends after every ". ".
std::vector<std::string> sentences_of(const std::string& text) {
  std::vector<std::string> sentences(1);
  for (const char c : text) {
    std::string& last = sentences.back();
    if (std::isspace(static_cast<unsigned char>(c)) == 0) {
      last += c;
    } else if (!last.empty() && last.back() == '.') {
      sentences.emplace_back();
    } else if (!last.empty() && last.back() != ' ') {
      last += ' ';
    }
  }
  sentences.pop_back();  // cut off somewhere
  std::erase(sentences, "");
  return sentences;
}

std::string with_facts(const std::vector<std::string>& sentences, size_t count, std::vector<Fact> facts,
                       const std::string& question) {
  std::stable_sort(facts.begin(), facts.end(),
                   [](const Fact& a, const Fact& b) { return a.depth < b.depth; });
  std::string prompt = "Remember the secret numbers in this text.\n\n";
  size_t fact = 0;
  for (size_t i = 0; i <= count; ++i) {
    for (; fact < facts.size() &&
           std::llround(facts[fact].depth * static_cast<double>(count)) == static_cast<long long>(i);
         ++fact) {
      prompt += facts[fact].sentence + " ";
    }
    if (i < count) prompt += sentences[i] + " ";
  }
  prompt.back() = '\n';
  return prompt + question;
}

std::string depth_name(double depth) { return fmt::format("depth {:.2f}", depth); }

}  // namespace

Task make_needles(TaskKind kind, const std::string& text, const std::string& name,
                  const RetrievalOptions& options, const CountTokens& count) {
  Task task{kind, false, 12, {"\n"}, {}};
  const size_t stretch =
      static_cast<size_t>(options.tokens) * 8 + 4096;  // English has 4 to 5 bytes per token
  const size_t keys = kind == TaskKind::kNeedle ? 1 : 4;
  for (int64_t i = 0; i < options.samples; ++i) {
    Draws draws(options.seed, i);
    const double depth = options.depths[static_cast<size_t>(i) % options.depths.size()];
    size_t start = text.size() > stretch ? draws.below(text.size() - stretch) : 0;
    if (start > 0) start = std::min(text.find(". ", start), text.size() - 2) + 2;
    const std::vector<std::string> sentences = sentences_of(text.substr(start, stretch));
    std::vector<Fact> facts;
    TaskItem item;
    std::string question;
    for (const size_t key : draws.some_of(kKeys.size(), keys)) {
      const bool asked = facts.empty();
      const std::string number = std::to_string(1000000 + draws.below(9000000));
      facts.push_back({asked ? depth : draws.unit(),
                       fmt::format("The secret number of the {} is {}.", kKeys[key], number)});
      if (asked) {
        item.expected = number;
        question = fmt::format(
            "\nQuestion: What is the secret number of the {0}?\nAnswer: The secret number of the "
            "{0} is",
            kKeys[key]);
      }
    }
    size_t fits = 0, too_many = sentences.size() + 1;
    while (fits + 1 < too_many) {
      const size_t middle = fits + (too_many - fits) / 2;
      (count(with_facts(sentences, middle, facts, question)) <= options.tokens ? fits : too_many) = middle;
    }
    if (fits == 0) throw bad_usage("--task-tokens: found {}, too few for a question", options.tokens);
    if (fits == sentences.size()) {
      throw bad_usage("{}: too short for prompts of {} tokens (--task-tokens)", name, options.tokens);
    }
    item.group = depth_name(depth);
    item.prompt = with_facts(sentences, fits, facts, question);
    task.items.push_back(std::move(item));
  }
  return task;
}

Task make_recall(const RetrievalOptions& options, const CountTokens& count) {
  Task task{TaskKind::kRecall, false, 4, {"\n"}, {}};
  for (int64_t i = 0; i < options.samples; ++i) {
    Draws draws(options.seed, i);
    const double depth = options.depths[static_cast<size_t>(i) % options.depths.size()];
    const std::vector<size_t> keys = draws.some_of(kKeys.size(), kKeys.size());
    const std::vector<size_t> values = draws.some_of(kValues.size(), kKeys.size());
    size_t pairs = kKeys.size();
    for (; pairs > 0; --pairs) {
      const auto asked = static_cast<size_t>(std::llround(depth * static_cast<double>(pairs - 1)));
      TaskItem item{depth_name(depth), "", kValues[values[asked]]};
      for (size_t p = 0; p < pairs; ++p)
        item.prompt += fmt::format("{}: {}\n", kKeys[keys[p]], kValues[values[p]]);
      item.prompt += fmt::format("\nThe same pair again:\n{}:", kKeys[keys[asked]]);
      if (count(item.prompt) > options.tokens) continue;
      task.items.push_back(std::move(item));
      break;
    }
    if (pairs == 0) throw bad_usage("--task-tokens: found {}, too few for a question", options.tokens);
  }
  return task;
}

}  // namespace mete
