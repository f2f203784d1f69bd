#include "text/grammar/automaton.h"

#include <xxhash.h>

#include <algorithm>

namespace mete {
namespace {

constexpr size_t kMaxStacks = 4096;  // of one state, and frames looked at to find them: 16 times as many
constexpr size_t kMaxNodes = size_t{1} << 20;   // all stacks
constexpr size_t kMaxStates = size_t{1} << 16;  // tables take 1 KiB each
constexpr size_t kEntryBytes = 40;              // of a hash table, beside the value

}  // namespace

size_t GrammarAutomaton::StacksHash::operator()(const std::vector<int32_t>& v) const {
  return XXH3_64bits(v.data(), v.size() * sizeof(int32_t));
}

GrammarAutomaton::GrammarAutomaton(GrammarProgram program) : program_(std::move(program)) {
  nodes_.push_back({GrammarProgram::kEnd, kBottom});
  states_.emplace_back();
  state_numbers_.emplace(std::vector<int32_t>{0}, kDead);
}

GrammarAutomaton::State GrammarAutomaton::start() {
  if (start_ >= 0) return start_;
  begin_closure();
  const auto root = static_cast<size_t>(program_.root);
  for (int32_t a = program_.first[root]; a < program_.first[root + 1]; ++a) {
    const int32_t position = program_.alternatives[static_cast<size_t>(a)];
    work_.push_back(program_.code[static_cast<size_t>(position)] == GrammarProgram::kEnd
                        ? kBottom
                        : push(position, kBottom));
  }
  return start_ = finish_closure();
}

GrammarAutomaton::State GrammarAutomaton::state_of(Stack stack) {
  begin_closure();
  work_.push_back(stack);
  return finish_closure();
}

GrammarAutomaton::State GrammarAutomaton::state_of(std::span<const Stack> stacks, bool complete) {
  std::vector<int32_t> key(stacks.begin(), stacks.end());
  key.push_back(complete ? 1 : 0);
  const auto [it, added] = state_numbers_.emplace(std::move(key), static_cast<State>(states_.size()));
  if (!added) return it->second;
  if (states_.size() >= kMaxStates) {
    state_numbers_.erase(it);
    exhausted_ = true;
    return kDead;
  }
  StateData data;
  data.stacks.assign(stacks.begin(), stacks.end());
  data.complete = complete;
  bytes_ +=
      sizeof(StateData) + kEntryBytes + sizeof(std::vector<int32_t>) + 2 * stacks.size() * sizeof(Stack);
  states_.push_back(std::move(data));
  return it->second;
}

int32_t* GrammarAutomaton::make_table(StateData& data) {
  data.table.reset(new int32_t[256]);
  bytes_ += 256 * sizeof(int32_t);
  std::fill_n(data.table.get(), 256, kUnknown);
  return data.table.get();
}

GrammarAutomaton::State GrammarAutomaton::compute(State state, uint8_t byte) {
  begin_closure();
  for (const Stack stack : states_[static_cast<size_t>(state)].stacks) {
    const Node node = nodes_[static_cast<size_t>(stack)];
    const int32_t set = program_.code[static_cast<size_t>(node.position)];
    if (program_.sets[static_cast<size_t>(set)].has(byte)) work_.push_back(after(node.position, node.below));
  }
  const State next = finish_closure();
  table(state)[byte] = next;
  return next;
}

GrammarAutomaton::Stack GrammarAutomaton::push(int32_t position, Stack below) {
  const uint64_t key =
      (static_cast<uint64_t>(static_cast<uint32_t>(position)) << 32) | static_cast<uint32_t>(below);
  const auto [it, added] = node_numbers_.emplace(key, static_cast<Stack>(nodes_.size()));
  if (!added) return it->second;
  if (nodes_.size() >= kMaxNodes) {
    node_numbers_.erase(it);
    exhausted_ = true;
    return kBottom;
  }
  nodes_.push_back({position, below});
  bytes_ += sizeof(Node) + kEntryBytes + sizeof(uint64_t);
  return it->second;
}

/// The last symbol of a production leaves no frame behind: what repeats by calling itself last keeps the
/// stack as it is.
GrammarAutomaton::Stack GrammarAutomaton::after(int32_t position, Stack below) {
  const int32_t next = position + 1;
  return program_.code[static_cast<size_t>(next)] == GrammarProgram::kEnd ? below : push(next, below);
}

void GrammarAutomaton::begin_closure() {
  ++closure_;
  work_.clear();
  result_.clear();
  complete_ = false;
}

/// Replaces rules on top of a stack by their alternatives until byte sets are on top.
void GrammarAutomaton::close(Stack stack) {
  if (stack == kBottom) {
    complete_ = true;
    return;
  }
  if (seen_.size() < nodes_.size()) seen_.resize(nodes_.size() * 2, 0);
  if (seen_[static_cast<size_t>(stack)] == closure_) return;
  seen_[static_cast<size_t>(stack)] = closure_;
  const Node node = nodes_[static_cast<size_t>(stack)];
  const int32_t symbol = program_.code[static_cast<size_t>(node.position)];
  if (symbol >= 0) {
    result_.push_back(stack);
    return;
  }
  const auto rule = static_cast<size_t>(GrammarProgram::rule_of(symbol));
  const Stack rest = after(node.position, node.below);
  for (int32_t a = program_.first[rule]; a < program_.first[rule + 1]; ++a) {
    const int32_t position = program_.alternatives[static_cast<size_t>(a)];
    work_.push_back(
        program_.code[static_cast<size_t>(position)] == GrammarProgram::kEnd ? rest : push(position, rest));
  }
}

GrammarAutomaton::State GrammarAutomaton::finish_closure() {
  for (size_t looked = 0; !work_.empty() && !exhausted_; ++looked) {
    const Stack stack = work_.back();
    work_.pop_back();
    close(stack);
    if (result_.size() > kMaxStacks || looked > 16 * kMaxStacks) exhausted_ = true;
  }
  if (exhausted_) return kDead;
  std::sort(result_.begin(), result_.end());
  return state_of(result_, complete_);
}

GrammarAutomaton::Stack GrammarAutomaton::top_of(Stack stack, int frames) {
  std::vector<int32_t> positions;
  for (; frames > 0 && stack != kBottom; --frames, stack = below(stack)) {
    positions.push_back(nodes_[static_cast<size_t>(stack)].position);
  }
  Stack top = kBottom;
  for (size_t i = positions.size(); i > 0; --i) top = push(positions[i - 1], top);
  return top;
}

int GrammarAutomaton::depth(Stack stack, int limit) const {
  int frames = 0;
  for (; frames < limit && stack != kBottom; stack = below(stack)) ++frames;
  return frames;
}

}  // namespace mete
