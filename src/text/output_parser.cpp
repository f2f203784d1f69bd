#include "text/output_parser.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <span>

namespace mete {
namespace {

constexpr std::string_view kOpen = "<think>", kClose = "</think>", kBlank = " \t\r\n";
constexpr std::string_view kMessageMark = "<|message|>";
constexpr std::string_view kMessageEnds[] = {"<|end|>", "<|call|>", "<|return|>", "<|start|>", "<|channel|>"};

/// Length of the longest suffix of `text` that is a proper prefix of `mark`.
size_t partial(std::string_view text, std::string_view mark) {
  for (size_t n = std::min(text.size(), mark.size() - 1); n > 0; --n) {
    if (text.substr(text.size() - n) == mark.substr(0, n)) return n;
  }
  return 0;
}

size_t skip_blank(std::string_view text) { return std::min(text.find_first_not_of(kBlank), text.size()); }

bool could_become(std::string_view text, std::string_view mark) {
  return text.size() < mark.size() && mark.substr(0, text.size()) == text;
}

}  // namespace

OutputParser::OutputParser(const OutputOptions& options)
    : options_(options),
      state_(options.format == ChatFormat::kHarmony                   ? State::kHeader
             : options.split_reasoning && options.starts_in_reasoning ? State::kReasoning
                                                                      : State::kStart) {}

OutputPiece OutputParser::put(std::string_view text) {
  OutputPiece out;
  held_ += text;
  for (bool more = true; more;) {
    switch (state_) {
      case State::kStart:
        more = start(false);
        break;
      case State::kReasoning:
      case State::kAfterReasoning:
        more = reasoning(out, false);
        break;
      case State::kText:
        more = this->text(out, false);
        break;
      case State::kCall:
        more = call(out, false);
        break;
      case State::kHeader:
        more = header();
        break;
      case State::kMessage:
        more = message(out, false);
        break;
    }
  }
  return out;
}

OutputPiece OutputParser::finish() {
  OutputPiece out = put("");
  if (state_ == State::kStart) start(true);
  if (state_ == State::kReasoning || state_ == State::kAfterReasoning) reasoning(out, true);
  if (state_ == State::kText) text(out, true);
  if (state_ == State::kCall) call(out, true);
  if (state_ == State::kMessage) message(out, true);
  held_.clear();
  return out;
}

bool OutputParser::start(bool final) {
  const size_t first = skip_blank(held_);
  const std::string_view rest = std::string_view(held_).substr(first);
  if (options_.split_reasoning) {
    if (rest.substr(0, kOpen.size()) == kOpen) {
      held_.erase(0, first + kOpen.size());
      state_ = State::kReasoning;
      return true;
    }
    if (!final && could_become(rest, kOpen)) return false;
  }
  if (options_.tool_calls && options_.format == ChatFormat::kLlama3) {
    if (!final && rest.empty()) return false;
    if (rest.substr(0, 1) == "{") {
      open_ = held_.substr(0, first);
      held_.erase(0, first);
      close_ = "";
      state_ = State::kCall;
      return true;
    }
  }
  state_ = State::kText;
  return true;
}

bool OutputParser::reasoning(OutputPiece& out, bool final) {
  if (state_ == State::kReasoning) {
    // Blank space is held: at the start and before the closing mark it does not belong to the reasoning.
    if (!reasoned_) held_.erase(0, skip_blank(held_));
    const size_t close = held_.find(kClose);
    const bool closed = close != std::string::npos;
    std::string_view part = std::string_view(held_).substr(0, close);
    if (!closed && !final) part.remove_suffix(partial(part, kClose));
    const size_t last = part.find_last_not_of(kBlank);
    part = part.substr(0, last == std::string_view::npos ? 0 : last + 1);
    out.reasoning += part;
    reasoned_ = reasoned_ || !part.empty();
    held_.erase(0, closed ? close + kClose.size() : part.size());
    if (!closed) return false;
    state_ = State::kAfterReasoning;
  }
  held_.erase(0, skip_blank(held_));
  if (held_.empty()) return false;
  state_ = State::kText;
  return true;
}

/// Text that is certain not to belong to a mark; its blank end waits, in case a call follows.
void OutputParser::add_text(std::string_view text, OutputPiece& out) {
  if (!options_.tool_calls) {
    out.text += text;
    return;
  }
  const size_t last = text.find_last_not_of(kBlank);
  if (last == std::string_view::npos) {
    if (!called_) blanks_ += text;
    return;
  }
  if (called_) text.remove_prefix(skip_blank(text));
  out.text += blanks_;
  blanks_.clear();
  const size_t end = text.find_last_not_of(kBlank) + 1;
  out.text += text.substr(0, end);
  blanks_ = text.substr(end);
  called_ = false;
}

bool OutputParser::text(OutputPiece& out, bool final) {
  size_t found = std::string::npos, keep = 0;
  if (options_.tool_calls) {
    for (const ToolMarks& marks : tool_marks(options_.format)) {
      const size_t at = held_.find(marks.open);
      if (at < found) {
        found = at;
        open_ = marks.open;
        close_ = marks.close;
      }
      keep = std::max(keep, partial(held_, marks.open));
    }
  }
  if (found != std::string::npos) {
    add_text(std::string_view(held_).substr(0, found), out);
    held_.erase(0, found + open_.size());
    state_ = State::kCall;
    return true;
  }
  const size_t ready = held_.size() - (final ? 0 : keep);
  add_text(std::string_view(held_).substr(0, ready), out);
  held_.erase(0, ready);
  if (final) {
    out.text += blanks_;
    blanks_.clear();
  }
  return false;
}

bool OutputParser::call(OutputPiece& out, bool final) {
  const size_t close = close_.empty() ? std::string::npos : held_.find(close_);
  if (close == std::string::npos && !final) return false;
  const std::string body = held_.substr(0, close);
  const bool tags = options_.json_calls && body[skip_blank(body)] == '<';
  if (auto calls = tags ? std::nullopt : parse_tool_calls(options_.format, body)) {
    blanks_.clear();
    called_ = true;
    for (ToolCall& c : *calls) out.tool_calls.push_back(std::move(c));
  } else {
    add_text(open_ + body + (close == std::string::npos ? "" : std::string(close_)), out);
  }
  held_.erase(0, close == std::string::npos ? held_.size() : close + close_.size());
  if (final) out.text += blanks_;
  state_ = State::kText;
  return !held_.empty() || !final;
}

bool OutputParser::header() {
  const size_t mark = held_.find(kMessageMark);
  if (mark == std::string::npos) return false;
  const std::string_view all = std::string_view(held_).substr(0, mark);
  const auto word_after = [&](std::string_view key) {
    const size_t at = all.rfind(key);
    if (at == std::string_view::npos) return std::string();
    const std::string_view rest = all.substr(at + key.size());
    return std::string(rest.substr(0, rest.find_first_of(" \t\r\n<")));
  };
  channel_ = word_after("<|channel|>");
  callee_ = word_after("to=functions.");
  arguments_.clear();
  held_.erase(0, mark + kMessageMark.size());
  state_ = State::kMessage;
  return true;
}

bool OutputParser::message(OutputPiece& out, bool final) {
  size_t end = std::string::npos, keep = 0;
  bool begins_next = false;
  for (const std::string_view mark : kMessageEnds) {
    const size_t at = held_.find(mark);
    if (at < end) {
      end = at;
      begins_next = mark == "<|start|>" || mark == "<|channel|>";
    }
    keep = std::max(keep, partial(held_, mark));
  }
  const bool ended = end != std::string::npos;
  const size_t ready = ended ? end : held_.size() - (final ? 0 : keep);
  const std::string_view part = std::string_view(held_).substr(0, ready);
  if (!callee_.empty() && options_.tool_calls) {
    arguments_ += part;
  } else if (channel_ == "analysis" && options_.split_reasoning) {
    out.reasoning += part;
  } else {
    out.text += part;
  }
  held_.erase(0, ready);
  if (!ended && !final) return false;
  end_message(out);
  if (ended && !begins_next) held_.erase(0, held_.find("|>") + 2);
  state_ = State::kHeader;
  return true;
}

void OutputParser::end_message(OutputPiece& out) {
  if (callee_.empty() || !options_.tool_calls) return;
  const nlohmann::ordered_json arguments = nlohmann::ordered_json::parse(arguments_, nullptr, false);
  if (arguments.is_object()) {
    out.tool_calls.push_back({callee_, arguments.dump()});
  } else {
    out.text += arguments_;
  }
}

}  // namespace mete
