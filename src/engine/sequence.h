// One sequence of the engine. Private to src/engine.
#pragma once

#include <xxhash.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "sample/sampler.h"
#include "text/grammar.h"

namespace mete {

struct Engine::Sequence {
  enum class State { kWaiting, kRunning, kEnded };

  Sequence(SeqId own_id, const Request& asked) : id(own_id), request(asked), tokens(asked.prompt) {
    XXH3_64bits_reset(hash.get());
  }

  SeqId id;
  Request request;
  State state = State::kWaiting;
  SeqId kv = -1;                // in the KV cache, while running
  std::vector<int32_t> tokens;  // prompt, then generated
  int64_t cached = 0;           // leading tokens whose KV is written
  bool admitted = false;        // at least once
  PrefixCache::Place place;
  // While `leader` computes the KV of the first `leader_tokens` tokens, this one waits to share it.
  SeqId leader = -1;
  int64_t leader_tokens = 0;

  // Made when the sequence first runs, dropped when it ends.
  std::optional<Sampler> sampler;
  std::unique_ptr<GrammarState> grammar;  // null: unconstrained
  float prob = 0;                         // of the chosen token, and of the likeliest
  std::vector<TokenLogprob> probs;        // (Request::post_sampling_probs)
  std::vector<double> pooled;             // [d_model], sum of the states so far (Pooling::kMean)

  SequenceLedger ledger;
  std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> hash{XXH3_createState(), &XXH3_freeState};
  std::vector<float> embedding;
  std::string error;

  bool embeds() const { return request.pooling != Pooling::kNone; }
  int64_t pending() const { return static_cast<int64_t>(tokens.size()) - cached; }
  int64_t generated() const { return static_cast<int64_t>(tokens.size() - request.prompt.size()); }
};

/// What a sequence has in the step under way.
struct Engine::Granted {
  Sequence* seq;
  int64_t rows;
  bool prompt;        // not a decode step
  int64_t logits_at;  // index among the step's logits rows, -1: none
  int64_t hidden_at;  // first index among the step's hidden rows, -1: none
  std::span<const uint64_t> allowed{};
  int32_t token = -1;  // chosen from the logits row
  double sample_s = 0;
};

}  // namespace mete
