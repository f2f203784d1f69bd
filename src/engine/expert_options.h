// How a model's routed experts are kept: all in memory, or some in slots and the rest on the drive.
#pragma once

#include <memory>
#include <string>

#include "models/model.h"
#include "weights/expert_store.h"
#include "weights/replace/learned_rule.h"

namespace mete {

struct ExpertOptions {
  int64_t slots_per_layer = 0;  ///< 0: see `slots`
  int64_t slots = 0;            ///< of all layers; 0 as well: all experts stay in memory
  ReplaceKind policy = ReplaceKind::kLfu;
  std::string rule_path;  ///< of the learned policy
  bool shared = false;    ///< one pool for all layers
  int32_t prefetch = -1;  ///< slots for experts read ahead of the next layer's router; -1: two reads' worth
  ReadWay way = ReadWay::kAuto;
  bool direct = true;
  int depth = 0;  ///< experts read at a time; 0: what the machine's profile says, 4 without one
  int threads = 4;
  std::string pack_path;  ///< expert pack; empty: from the model file
  bool streamed() const { return slots_per_layer > 0 || slots > 0; }
};

/// The store's configuration for a model; `rule` must outlive the store. Throws Error: kRuntime, kBadModel
/// for the rule's file, kUsage.
ExpertStoreConfig expert_store_config(const ExpertOptions& options, const ExpertDeclaration& declaration,
                                      LearnedRule* rule);

/// For LoadOptions::make_experts. `store` is set to the store, which the model owns.
MakeExperts make_expert_store(const ExpertOptions& options, LearnedRule* rule, ExpertStore** store);

/// Tells the ledger what the store did since `before`, which becomes what it has done by now.
void report_experts(const ExpertStore& store, ExpertStoreStats* before, Ledger& ledger);

}  // namespace mete
