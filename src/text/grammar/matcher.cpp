#include "text/grammar/matcher.h"

namespace mete {
namespace {

constexpr int kMaxFrames = 8;           // of a top
constexpr int64_t kEscapeLimit = 4096;  // tokens that run past a top before a deeper top is tried
constexpr size_t kFew = 1024;           // a list of ids beats a mask up to here
constexpr size_t kMasks = 128;          // kept; all are dropped when full

void set(std::vector<uint64_t>& mask, int32_t token) {
  mask[static_cast<size_t>(token) / 64] |= uint64_t{1} << (static_cast<size_t>(token) % 64);
}

}  // namespace

GrammarMatcher::GrammarMatcher(GrammarProgram program, std::shared_ptr<const VocabTree> tree,
                               std::vector<int32_t> end_tokens)
    : automaton_(std::move(program)),
      tree_(std::move(tree)),
      end_tokens_(std::move(end_tokens)),
      words_((static_cast<size_t>(tree_->vocab()) + 63) / 64),
      path_(static_cast<size_t>(tree_->max_depth()) + 1),
      outer_path_(path_.size()) {}

GrammarAutomaton::State GrammarMatcher::advance(GrammarAutomaton::State state, std::string_view bytes) {
  for (const char c : bytes) {
    if (state == GrammarAutomaton::kDead) break;
    state = automaton_.step(state, static_cast<uint8_t>(c));
  }
  return state;
}

std::shared_ptr<const GrammarMatcher::Mask> GrammarMatcher::mask(GrammarAutomaton::State state) {
  if (const auto known = masks_.find(state); known != masks_.end()) return known->second;
  auto made = std::make_shared<Mask>(words_, 0);
  Mask& mask = *made;
  const std::span<const GrammarAutomaton::Stack> all = automaton_.stacks(state);
  const std::vector<GrammarAutomaton::Stack> stacks(all.begin(), all.end());  // the automaton grows meanwhile
  for (const GrammarAutomaton::Stack stack : stacks) {
    GrammarAutomaton::Stack below = GrammarAutomaton::kBottom;
    const Top& top = top_below(stack, &below);
    for (const int32_t token : top.few) set(mask, token);
    for (size_t w = 0; w < top.many.size(); ++w) mask[w] |= top.many[w];
    add_escapes(top, below, mask);
  }
  if (automaton_.complete(state)) {
    for (const int32_t token : end_tokens_) set(mask, token);
  }
  if (masks_.size() >= kMasks) masks_.clear();
  masks_.emplace(state, made);
  masks_bytes_ = masks_.size() * words_ * sizeof(uint64_t);
  return made;
}

/// The top of `stack`, as few frames as leave few tokens undecided, and the stack below it.
const GrammarMatcher::Top& GrammarMatcher::top_below(GrammarAutomaton::Stack stack,
                                                     GrammarAutomaton::Stack* below) {
  const int depth = automaton_.depth(stack, kMaxFrames);
  int& frames = frames_.try_emplace(automaton_.top_of(stack, 1), 1).first->second;
  for (;; ++frames) {
    const int used = std::min(frames, depth);
    const GrammarAutomaton::Stack key = automaton_.top_of(stack, used);
    auto known = tops_.find(key);
    if (known == tops_.end()) {
      Top top;
      if (!classify(key, used < depth ? kEscapeLimit : INT64_MAX, top)) continue;
      known = tops_.emplace(key, std::move(top)).first;
      const Top& kept = known->second;
      tops_bytes_ += sizeof(Top) + 64 + 4 * (kept.few.size() + kept.escapes.size()) + 8 * kept.many.size();
    }
    *below = stack;
    for (int i = 0; i < used; ++i) *below = automaton_.below(*below);
    return known->second;
  }
}

/// False if more than `limit` tokens run past the top.
bool GrammarMatcher::classify(GrammarAutomaton::Stack key, int64_t limit, Top& top) {
  std::vector<int32_t> allowed;
  int64_t undecided = 0;
  const VocabTree& tree = *tree_;
  const GrammarAutomaton::State start = automaton_.state_of(key);
  walk(
      tree, -1, start, path_, [this](int32_t state, uint8_t byte) { return automaton_.step(state, byte); },
      [&](size_t node, int32_t state) {
        const std::span<const int32_t> here = tree.tokens_at(node);
        allowed.insert(allowed.end(), here.begin(), here.end());
        if (automaton_.complete(state)) {
          if (const int64_t behind = tree.tokens_below(node); behind > 0) {
            top.escapes.push_back(static_cast<int32_t>(node));
            undecided += behind;
          }
        }
        return undecided <= limit;
      });
  if (undecided > limit) return false;
  if (allowed.size() <= kFew) {
    top.few = std::move(allowed);
  } else {
    top.many.assign(words_, 0);
    for (const int32_t token : allowed) set(top.many, token);
  }
  return true;
}

void GrammarMatcher::add_escapes(const Top& top, GrammarAutomaton::Stack below, Mask& mask) {
  if (top.escapes.empty() || below == GrammarAutomaton::kBottom) return;
  const VocabTree& tree = *tree_;
  const GrammarAutomaton::State outside = automaton_.state_of(below);
  for (const int32_t escape : top.escapes) {
    walk(
        tree, escape, outside, outer_path_,
        [this](int32_t state, uint8_t byte) { return automaton_.step(state, byte); },
        [&](size_t node, int32_t) {
          for (const int32_t token : tree.tokens_at(node)) set(mask, token);
          return true;
        });
  }
}

}  // namespace mete
