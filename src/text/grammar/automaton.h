// The grammar as a pushdown automaton over bytes. A stack is a chain of positions still to be read; a state
// is the set of stacks that the bytes so far can lead to. Stacks and states are numbered (equal ones have
// equal numbers), so that following a byte is a table look-up once it has been done before.
#pragma once

#include <atomic>
#include <memory>
#include <span>
#include <unordered_map>

#include "text/grammar/rules.h"

namespace mete {

class GrammarAutomaton {
 public:
  using Stack = int32_t;  ///< kBottom: nothing left to read
  using State = int32_t;
  static constexpr Stack kBottom = 0;
  static constexpr State kDead = 0;  ///< no way to go on, and not complete

  explicit GrammarAutomaton(GrammarProgram program);

  State start();
  /// kDead if the byte cannot follow.
  State step(State state, uint8_t byte) {
    int32_t& next = table(state)[byte];
    return next != kUnknown ? next : compute(state, byte);
  }
  /// The text may end here.
  bool complete(State state) const { return states_[static_cast<size_t>(state)].complete; }
  /// Stacks of a state, each with a byte set on top.
  std::span<const Stack> stacks(State state) const { return states_[static_cast<size_t>(state)].stacks; }
  /// The state of this one stack.
  State state_of(Stack stack);
  State state_of(std::span<const Stack> stacks, bool complete);

  Stack below(Stack stack) const { return nodes_[static_cast<size_t>(stack)].below; }
  /// The top `frames` frames of a stack alone, with nothing below.
  Stack top_of(Stack stack, int frames);
  int depth(Stack stack, int limit) const;  ///< frames, counted up to `limit`

  /// A state had to be cut because the grammar is too ambiguous, or memory has run out; from then on steps
  /// lead to kDead.
  bool exhausted() const { return exhausted_; }  // from any thread
  /// Memory of the stacks and states so far, about; from any thread.
  size_t bytes() const { return bytes_; }

 private:
  static constexpr int32_t kUnknown = -1;
  struct Node {
    int32_t position;
    Stack below;
  };
  struct StateData {
    std::vector<Stack> stacks;  // ascending
    bool complete = false;
    std::unique_ptr<int32_t[]> table;  // [256]
  };
  struct StacksHash {
    size_t operator()(const std::vector<int32_t>& v) const;
  };

  int32_t* table(State state) {
    StateData& data = states_[static_cast<size_t>(state)];
    return data.table ? data.table.get() : make_table(data);
  }
  int32_t* make_table(StateData& data);
  State compute(State state, uint8_t byte);
  Stack push(int32_t position, Stack below);
  /// What is left after the symbol at `position` was read.
  Stack after(int32_t position, Stack below);
  void begin_closure();
  void close(Stack stack);
  State finish_closure();

  GrammarProgram program_;
  std::vector<Node> nodes_;
  std::unordered_map<uint64_t, Stack> node_numbers_;
  std::vector<StateData> states_;
  std::unordered_map<std::vector<int32_t>, State, StacksHash> state_numbers_;  // key: stacks, then complete
  State start_ = -1;
  std::atomic<bool> exhausted_ = false;
  std::atomic<size_t> bytes_ = 0;
  // Of the running closure.
  std::vector<uint32_t> seen_;  // per node: the closure that saw it
  uint32_t closure_ = 0;
  std::vector<Stack> work_, result_;
  bool complete_ = false;
};

}  // namespace mete
