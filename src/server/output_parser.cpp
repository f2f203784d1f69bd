#include "server/output_parser.h"

#include <algorithm>

namespace mete {
namespace {

constexpr std::string_view kOpen = "<think>", kClose = "</think>", kBlank = " \t\r\n";

/// Length of the longest suffix of `text` that is a proper prefix of `mark`.
size_t partial(std::string_view text, std::string_view mark) {
  for (size_t n = std::min(text.size(), mark.size() - 1); n > 0; --n) {
    if (text.substr(text.size() - n) == mark.substr(0, n)) return n;
  }
  return 0;
}

}  // namespace

OutputParser::OutputParser(bool split_reasoning, bool starts_in_reasoning)
    : state_(!split_reasoning      ? State::kText
             : starts_in_reasoning ? State::kReasoning
                                   : State::kStart) {}

OutputPiece OutputParser::put(std::string_view text) {
  OutputPiece out;
  held_ += text;
  advance(out, false);
  return out;
}

OutputPiece OutputParser::finish() {
  OutputPiece out;
  advance(out, true);
  return out;
}

void OutputParser::advance(OutputPiece& out, bool final) {
  if (state_ == State::kStart) {
    const size_t first = std::min(held_.find_first_not_of(kBlank), held_.size());
    const std::string_view rest = std::string_view(held_).substr(first);
    if (rest.substr(0, kOpen.size()) == kOpen) {
      held_.erase(0, first + kOpen.size());
      state_ = State::kReasoning;
    } else if (!final && rest.size() < kOpen.size() && kOpen.substr(0, rest.size()) == rest) {
      return;
    } else {
      state_ = State::kText;
    }
  }
  if (state_ == State::kReasoning) {
    // Blank space is held: at the start and before the closing mark it does not belong to the reasoning.
    if (!reasoned_) held_.erase(0, std::min(held_.find_first_not_of(kBlank), held_.size()));
    const size_t close = held_.find(kClose);
    const bool closed = close != std::string::npos;
    std::string_view part = std::string_view(held_).substr(0, close);
    if (!closed && !final) part.remove_suffix(partial(part, kClose));
    const size_t last = part.find_last_not_of(kBlank);
    part = part.substr(0, last == std::string_view::npos ? 0 : last + 1);
    out.reasoning += part;
    reasoned_ = reasoned_ || !part.empty();
    held_.erase(0, closed ? close + kClose.size() : part.size());
    if (!closed) {
      if (final) held_.clear();
      return;
    }
    state_ = State::kAfterReasoning;
  }
  if (state_ == State::kAfterReasoning) {
    held_.erase(0, std::min(held_.find_first_not_of(kBlank), held_.size()));
    if (held_.empty()) return;
    state_ = State::kText;
  }
  out.text += held_;
  held_.clear();
}

}  // namespace mete
