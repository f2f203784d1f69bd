// What a request cost.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "base/ledger.h"
#include "weights/expert_store.h"
#include "weights/row_store.h"

namespace mete {

/// Of one sequence. Times are wall seconds of the engine's steps that carried its rows.
struct SequenceLedger {
  int64_t prompt_tokens = 0;   ///< tokens of the prompt, BOS included
  int64_t prefill_tokens = 0;  ///< of those, computed now (the rest was in the KV cache)
  int64_t decode_tokens = 0;   ///< generated tokens after the first
  int64_t preemptions = 0;     ///< times that it had to start anew for want of KV memory, or for a better one
  double submitted = 0;        ///< clock at submission
  double prefill_s = 0;        ///< submission's first step to the end of the step that gave the first token
  double first_token = 0;      ///< clock when the first token was sampled
  double last_token = 0;       ///< clock when the last token was sampled
  double sample_s = 0;         ///< within the steps: choosing tokens
  /// The engine's ledger at submission, at the first and at the last token: what the engine did meanwhile,
  /// for every sequence that shared its steps.
  LedgerMark at_submit{}, at_first{}, at_last{};

  LedgerReport prefill() const { return between(at_submit, at_first); }
  LedgerReport decode() const { return between(at_first, at_last); }
  LedgerReport spent() const { return between(at_submit, at_last); }
  double ttft_s() const { return first_token - submitted; }
  double decode_s() const { return last_token - first_token; }
};

/// {"wall_s", "parts": {name: {"s", "bytes"}}, "bytes_read", "reports" (to the ledger), counters}; parts
/// without time and counters of 0 are left out.
nlohmann::ordered_json to_json(const LedgerReport& report);

/// For people: one line per part with its seconds, share of wall time and GB/s, then the counters.
std::string describe(const std::string& title, const LedgerReport& report);

/// {"slots", "slots_per_layer", "experts_hit", "experts_missed", "disk_bytes", "stall_s", ...} of what
/// `report` covers; prefetch counts since the store was made.
nlohmann::ordered_json experts_json(const ExpertStore& store, const LedgerReport& report);
std::string experts_text(const nlohmann::ordered_json& json);  ///< one line for people

/// {"tables", "rows_hit", "rows_missed", "disk_bytes", "disk_reads", "stall_s", "cached_rows",
/// "read_retries", "io"} of what `report` covers, of embedding tables on the drive; hits and misses count
/// distinct rows of a step. `stores` is not empty; retries count since they were made.
nlohmann::ordered_json embeddings_json(std::span<RowStore* const> stores, const LedgerReport& report);
std::string embeddings_text(const nlohmann::ordered_json& json);  ///< one line for people

}  // namespace mete
