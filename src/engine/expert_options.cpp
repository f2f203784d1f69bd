#include "engine/expert_options.h"

#include <algorithm>

#include "base/text_file.h"
#include "format/machine_profile.h"

namespace mete {
namespace {

LearnedRule read_rule(const std::string& path, size_t layers) {
  const std::string text = read_text_file(path);
  auto rule = LearnedRule::parse({reinterpret_cast<const uint8_t*>(text.data()), text.size()});
  if (!rule) throw bad_model("{}: {}", path, rule.error().message());
  if (static_cast<size_t>(rule->layers()) != layers) {
    throw bad_model("{}: a rule for {} layers, the model has {} with experts", path, rule->layers(), layers);
  }
  return std::move(*rule);
}

/// Experts whose reads fill the drive's queue as the kept profile says.
int profile_depth(const ExpertDeclaration& declaration, bool packed) {
  constexpr int kDefault = 4, kLeast = 2, kMost = 8;
  const Result<MachineProfile> profile = load_profile(profile_path());
  if (!profile || declaration.layers.empty()) return kDefault;
  const ExpertLayer& layer = declaration.layers.front();
  const int pieces = packed ? 1 : layer.gate != nullptr ? 3 : 2;
  const int depth = profile->drive_depth(stored_expert_bytes(declaration, layer) / pieces);
  return depth > 0 ? std::clamp((depth + pieces - 1) / pieces, kLeast, kMost) : kDefault;
}

}  // namespace

ExpertStoreConfig expert_store_config(const ExpertOptions& o, const ExpertDeclaration& declaration,
                                      LearnedRule* rule) {
  ExpertStoreConfig config;
  const auto layers = static_cast<int64_t>(declaration.layers.size());
  config.slots = o.slots > 0 ? o.slots : o.slots_per_layer * layers;
  config.shared = o.shared;
  config.depth = o.depth > 0 ? o.depth : profile_depth(declaration, !o.pack_path.empty());
  config.guesses = o.prefetch >= 0 ? o.prefetch : 2 * config.depth;
  config.replace.kind = o.policy;
  if (o.policy == ReplaceKind::kLearned) {
    if (o.rule_path.empty()) throw bad_usage("the learned expert policy needs a rule (--expert-rule)");
    *rule = read_rule(o.rule_path, declaration.layers.size());
    config.replace.learned = rule;
  }
  config.way = o.way;
  config.direct = o.direct;
  config.threads = o.threads;
  config.pack_path = o.pack_path;
  return config;
}

MakeExperts make_expert_store(const ExpertOptions& options, LearnedRule* rule, ExpertStore** store) {
  return [options, rule, store](Context& ctx, const GgufFile& file, const ExpertDeclaration& declaration,
                                const LoadOptions&) {
    auto made = std::make_unique<ExpertStore>(ctx, file, declaration,
                                              expert_store_config(options, declaration, rule));
    *store = made.get();
    return made;
  };
}

void report_experts(const ExpertStore& store, ExpertStoreStats* before, Ledger& ledger) {
  const ExpertStoreStats now = store.stats();
  ledger.add(Counter::kExpertHits, now.counts.hits - before->counts.hits);
  ledger.add(Counter::kExpertMisses, now.counts.misses - before->counts.misses);
  ledger.add(Counter::kDiskBytes, now.disk_bytes - before->disk_bytes);
  ledger.add(Counter::kDiskReads, now.reads - before->reads);
  *before = now;
}

}  // namespace mete
