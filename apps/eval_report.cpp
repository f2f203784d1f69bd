#include "apps/eval_report.h"

namespace mete {
namespace {

/// The fields of a comparison. Against a compact reference KL is a lower bound, under another name.
void add_comparison(nlohmann::ordered_json& out, const Quality& q, bool lower_bound) {
  const std::string kl = lower_bound ? "kl_lower_bound" : "kl";
  out[lower_bound ? kl : "kl_mean"] = q.kl_mean;
  out[kl + "_se"] = q.kl_se;
  out[kl + "_p99"] = q.kl_p99;
  out[kl + "_max"] = q.kl_max;
  if (lower_bound) {
    out["mass_outside_mean"] = q.outside_mean;
    out["mass_outside_max"] = q.outside_max;
  }
  out["same_top1"] = q.same_top1;
}

}  // namespace

nlohmann::ordered_json quality_json(const EvalOptions& o, const QualityResult& result) {
  const bool lower_bound = result.compact > 0;
  nlohmann::ordered_json out = {{"ppl", result.all.ppl},
                                {"ppl_se", result.all.ppl_se},
                                {"tokens", result.all.rows},
                                {"windows", result.windows},
                                {"n_ctx", o.window},
                                {"numerics", o.numerics},
                                {"model", o.model.model},
                                {"cache_type_k", o.model.cache_k},
                                {"cache_type_v", o.model.cache_v},
                                {"bytes", result.bytes()},
                                {"weight_bytes", result.weight_bytes},
                                {"kv_bytes", result.kv_bytes}};
  if (result.compared) {
    out["reference"] = o.reference;
    out["reference_ppl"] = result.all.reference_ppl;
    if (lower_bound) out["reference_compact"] = result.compact;
    add_comparison(out, result.all, lower_bound);
  }
  for (const PositionRange& range : result.by_position) {
    nlohmann::ordered_json entry = {{"first", range.first},
                                    {"last", range.last},
                                    {"tokens", range.quality.rows},
                                    {"ppl", range.quality.ppl},
                                    {"ppl_se", range.quality.ppl_se}};
    if (result.compared) add_comparison(entry, range.quality, lower_bound);
    out["by_position"].push_back(entry);
  }
  return out;
}

std::string quality_text(const EvalOptions& o, const QualityResult& result) {
  const Quality& q = result.all;
  std::string out = fmt::format("perplexity {:.4f} +- {:.5f} ({} tokens in {} windows of {})\n", q.ppl,
                                q.ppl_se, q.rows, result.windows, o.window);
  const char* kl = result.compact > 0 ? "KL lower bound" : "KL";
  if (result.compared) {
    out += fmt::format("reference {}: perplexity {:.4f}\n", o.reference, q.reference_ppl);
    out += fmt::format("{}, nats: mean {:.4g} +- {:.2g}, 99 % {:.4g}, max {:.4g}; same top token {:.2f} %\n",
                       kl, q.kl_mean, q.kl_se, q.kl_p99, q.kl_max, 100 * q.same_top1);
  }
  if (result.compact > 0) {
    out +=
        fmt::format("the reference keeps {} tokens per row; its mass outside them: mean {:.3g}, max {:.3g}\n",
                    result.compact, q.outside_mean, q.outside_max);
  }
  out += fmt::format("bytes: {} (weights {}, KV of a window {})\n", result.bytes(), result.weight_bytes,
                     result.kv_bytes);
  out += fmt::format("\n{:>15} {:>7} {:>12}", "positions", "tokens", "perplexity");
  out += result.compared ? fmt::format(" {:>14} {:>10} {:>10} {:>9}\n", kl, "99 %", "max", "same top") : "\n";
  for (const PositionRange& range : result.by_position) {
    const Quality& r = range.quality;
    out +=
        fmt::format("{:>15} {:>7} {:>12.4f}", fmt::format("{}..{}", range.first, range.last), r.rows, r.ppl);
    out += result.compared ? fmt::format(" {:>14.4g} {:>10.3g} {:>10.3g} {:>7.2f} %\n", r.kl_mean, r.kl_p99,
                                         r.kl_max, 100 * r.same_top1)
                           : "\n";
  }
  return out;
}

nlohmann::ordered_json tasks_json(const std::vector<NamedTaskResult>& results) {
  nlohmann::ordered_json out = nlohmann::ordered_json::array();
  for (const auto& [kind, r] : results) {
    nlohmann::ordered_json entry = {{"task", name(kind)}, {"samples", r.score.items}};
    if (r.judged) {
      entry["right"] = r.score.right;
      entry["score"] = r.score.share();
      entry["score_se"] = r.score.error();
    }
    entry["prompt_tokens_mean"] = r.prompt_tokens;
    entry["answer_tokens_mean"] = r.answer_tokens;
    entry["cut_off"] = r.cut_off;
    entry["decode_tokens_per_s"] = r.decode_rate;
    for (const auto& [group, score] : r.groups) {
      if (group.empty()) continue;
      entry["groups"][group]["samples"] = score.items;
      if (r.judged) entry["groups"][group]["right"] = score.right;
    }
    out.push_back(entry);
  }
  return out;
}

std::string tasks_text(const std::vector<NamedTaskResult>& results) {
  std::string out = fmt::format("{:<10} {:>16} {:>14} {:>14} {:>8} {:>9}\n", "task", "right", "prompt tokens",
                                "answer tokens", "cut off", "tokens/s");
  for (const auto& [kind, r] : results) {
    const std::string right =
        r.judged ? fmt::format("{}/{} = {:.3f}", r.score.right, r.score.items, r.score.share())
                 : fmt::format("({} prompts)", r.score.items);
    out += fmt::format("{:<10} {:>16} {:>14.1f} {:>14.1f} {:>8} {:>9.1f}\n", name(kind), right,
                       r.prompt_tokens, r.answer_tokens, r.cut_off, r.decode_rate);
    for (const auto& [group, score] : r.groups) {
      if (!group.empty() && r.judged) {
        out += fmt::format("  {:<8} {:>16}\n", group, fmt::format("{}/{}", score.right, score.items));
      }
    }
  }
  return out;
}

}  // namespace mete
