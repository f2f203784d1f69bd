// mete replay: hit rates of replacement policies and bounds on a routing trace.
#include <cmath>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "apps/args.h"
#include "apps/commands.h"
#include "apps/progress.h"
#include "apps/svg_curves.h"
#include "weights/replay.h"

namespace mete {
namespace {

using Json = nlohmann::ordered_json;

struct ReplayArgs {
  std::string trace, rule, train, svg, order = "tokens", pool = "layers";
  std::vector<int64_t> slots;
  int32_t prefetch = 0;
  double half_life = ReplaceConfig{}.lrfu_half_life;
  int64_t sch = 16;
  bool json = false;
};

std::vector<uint8_t> read_bytes(const std::string& path) {
  const std::string text = read_text_file(path);
  return {text.begin(), text.end()};
}

/// One column of the table.
struct Column {
  std::string name;
  std::function<ExpertCounts(const ExpertCacheConfig&)> run;
};

std::vector<Column> columns(const std::vector<ReplayEvent>& events, const ReplayArgs& args,
                            const LearnedRule* rule, int32_t layers) {
  std::vector<Column> out;
  for (const ReplaceKind kind : kAllReplaceKinds) {
    if (kind == ReplaceKind::kLearned && rule == nullptr) continue;
    out.push_back({name(kind), [&events, &args, rule, kind](ExpertCacheConfig c) {
                     c.replace.kind = kind;
                     c.replace.learned = rule;
                     c.replace.lrfu_half_life = args.half_life;
                     c.guesses = args.prefetch;
                     return replay(events, c);
                   }});
  }
  const int64_t window = args.sch * (args.pool == "shared" ? layers : 1);
  out.push_back({fmt::format("sch({})", args.sch),
                 [&events, window](const ExpertCacheConfig& c) { return replay_sch(events, c, window); }});
  out.push_back({"belady", [&events](const ExpertCacheConfig& c) { return replay_belady(events, c); }});
  out.push_back(
      {"bypass", [&events](const ExpertCacheConfig& c) { return replay_belady_bypass(events, c); }});
  return out;
}

/// Slots per layer to look at: those asked for, or k, 2k, ... and shares of all.
std::vector<int64_t> slot_list(const ReplayArgs& args, const RoutingTrace& trace) {
  std::set<int64_t> out(args.slots.begin(), args.slots.end());
  if (out.empty()) {
    for (int64_t eighth = 1; eighth <= 8; ++eighth)
      out.insert(std::max<int64_t>(1, trace.experts * eighth / 8));
    out.insert(trace.used);
  }
  if (*out.begin() < 1 || *out.rbegin() > trace.experts) {
    throw bad_usage("--slots: found {}, expected 1 to {}, the experts of a layer",
                    *out.begin() < 1 ? *out.begin() : *out.rbegin(), trace.experts);
  }
  return {out.begin(), out.end()};
}

Json locality(const std::vector<ReplayEvent>& tokens, const RoutingTrace& trace) {
  Json out = Json::array();
  for (const int64_t m : {4, 16, 64, 256}) {
    const SegmentScore score = segment_score(tokens, trace.layers, trace.experts, m);
    out.push_back({{"window", m}, {"srp", score.srp}, {"size_ratio", score.size_ratio}});
  }
  return out;
}

double rate(const ExpertCounts& c) {
  return c.hits + c.misses > 0 ? static_cast<double>(c.hits) / static_cast<double>(c.hits + c.misses) : 0;
}

void print_table(const Json& json) {
  std::printf("%s\n", json["title"].get<std::string>().c_str());
  std::printf(
      "hit rate, cold misses counted; c/N is what a router without pattern gives any causal policy\n");
  bool first = true;
  for (const Json& row : json["rows"]) {
    std::string head, line;
    for (const auto& [key, value] : row.items()) {
      if (key == "counts") continue;
      head += fmt::format("{:>10}", key == "slots_per_layer" ? "slots" : key);
      line += value.is_number_float() ? fmt::format("{:10.4f}", value.get<double>())
                                      : fmt::format("{:>10}", value.get<int64_t>());
    }
    if (first) std::printf("%s\n", head.c_str());
    first = false;
    std::printf("%s\n", line.c_str());
  }
  std::printf("\nlocality of the router: SRP(m), and the cache size in units of k where it is reached\n");
  for (const Json& l : json["locality"]) {
    std::printf("  m = %3lld  SRP %.3f  size ratio %.2f\n",
                static_cast<long long>(l["window"].get<int64_t>()), l["srp"].get<double>(),
                l["size_ratio"].get<double>());
  }
}

void write_file(const std::string& path, const void* data, size_t bytes) {
  std::ofstream file(path, std::ios::binary);
  file.write(static_cast<const char*>(data), static_cast<std::streamsize>(bytes));
  if (!file.flush()) throw run_failure("{}: cannot write", path);
}

Json run_all(const std::vector<ReplayEvent>& events, const RoutingTrace& trace, const ReplayArgs& args,
             const LearnedRule* rule) {
  Json rows = Json::array();
  Progress progress("replaying");
  const std::vector<int64_t> slots = slot_list(args, trace);
  for (size_t i = 0; i < slots.size(); ++i) {
    ExpertCacheConfig config;
    config.layers = trace.layers;
    config.experts = trace.experts;
    config.slots = slots[i] * trace.layers;
    config.shared = args.pool == "shared";
    Json row{{"slots_per_layer", slots[i]},
             {"c/N", static_cast<double>(slots[i]) / static_cast<double>(trace.experts)}};
    Json counts = Json::object();
    for (const Column& column : columns(events, args, rule, trace.layers)) {
      const ExpertCounts c = column.run(config);
      row[column.name] = rate(c);
      counts[column.name] = {
          {"hits", c.hits}, {"misses", c.misses}, {"bytes", c.misses * trace.expert_bytes}};
      if (c.guesses > 0) counts[column.name].update({{"guesses", c.guesses}, {"useful", c.useful_guesses}});
    }
    row["counts"] = std::move(counts);
    rows.push_back(std::move(row));
    progress.update(static_cast<int64_t>(i) + 1, static_cast<int64_t>(slots.size()));
  }
  return rows;
}

std::string svg(const Json& json) {
  std::vector<Curve> curves;
  for (const Json& row : json["rows"]) {
    size_t i = 0;
    for (const auto& [key, value] : row.items()) {
      if (key == "counts" || key == "slots_per_layer") continue;
      if (i == curves.size()) curves.push_back({key, {}, {}});
      curves[i].x.push_back(row["slots_per_layer"].get<double>());
      curves[i++].y.push_back(value.get<double>());
    }
  }
  return svg_curves(json["title"], "slots per layer", "hit rate", curves);
}

void add_options(CLI::App& app, ReplayArgs& o) {
  app.add_option("TRACE", o.trace, "what mete inspect --routing wrote")->required();
  app.add_option("--slots", o.slots, "slots per layer, several with commas (default: a sweep)")
      ->delimiter(',');
  app.add_option("--order", o.order,
                 "tokens: every token a step of its own, as in decoding; steps: as recorded, with its hints")
      ->check(CLI::IsMember({"tokens", "steps"}))
      ->capture_default_str();
  app.add_option("--pool", o.pool, "layers: slots of its own for each layer; shared: one pool")
      ->check(CLI::IsMember({"layers", "shared"}))
      ->capture_default_str();
  app.add_option("--prefetch", o.prefetch, "slots for the recorded hints (with --order steps)")
      ->check(CLI::Range(0, 4096));
  app.add_option("--lrfu-half-life", o.half_life, "visits after which a use counts half")
      ->check(CLI::Range(1.0, 1e9))
      ->capture_default_str();
  app.add_option("--sch", o.sch, "tokens that the SCH oracle sees")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20))
      ->capture_default_str();
  app.add_option("--rule", o.rule, "learned rule to replay too");
  app.add_option("--train", o.train, "train a learned rule on the trace and write it to this file");
  app.add_option("--svg", o.svg, "write the curves to this file");
  app.add_flag("--json", o.json, "print one JSON object on stdout and nothing else");
}

}  // namespace

int cmd_replay(const std::vector<std::string>& args) {
  CLI::App app(
      "Hit rates of expert replacement policies on a routing trace, beside bounds (docs/experts.md).",
      "mete replay");
  ReplayArgs o;
  add_options(app, o);
  if (const int code = parse(app, args); code >= 0) return code;
  if (o.prefetch > 0 && o.order != "steps") throw bad_usage("--prefetch has no effect without --order steps");
  auto trace = RoutingTrace::parse(read_bytes(o.trace));
  if (!trace) throw bad_model("{}: {}", o.trace, trace.error().message());
  const std::vector<ReplayEvent> tokens = tokens_of(*trace);
  if (tokens.empty()) throw bad_model("{}: holds no visits", o.trace);
  if (!o.train.empty()) {
    const std::vector<uint8_t> rule =
        train_learned_rule(visits_of(tokens, trace->layers), trace->experts).serialise();
    write_file(o.train, rule.data(), rule.size());
    std::fprintf(stderr, "mete replay: trained on %zu visits, rule written to %s\n", tokens.size(),
                 o.train.c_str());
  }
  std::optional<LearnedRule> rule;
  if (!o.rule.empty()) {
    auto read = LearnedRule::parse(read_bytes(o.rule));
    if (!read) throw bad_model("{}: {}", o.rule, read.error().message());
    if (read->layers() != trace->layers) {
      throw bad_model("{}: a rule for {} layers, the trace has {}", o.rule, read->layers(), trace->layers);
    }
    rule = std::move(*read);
  }
  Json json{{"title", fmt::format("{} layers, {} of {} experts, {} visits by {}, {}", trace->layers,
                                  trace->used, trace->experts, tokens.size(), o.order,
                                  o.pool == "shared" ? "one shared pool" : "a pool per layer")},
            {"layers", trace->layers},
            {"experts", trace->experts},
            {"used", trace->used},
            {"expert_bytes", trace->expert_bytes}};
  json["rows"] = run_all(o.order == "tokens" ? tokens : steps_of(*trace), *trace, o, rule ? &*rule : nullptr);
  json["locality"] = locality(tokens, *trace);
  if (!o.svg.empty()) {
    const std::string text = svg(json);
    write_file(o.svg, text.data(), text.size());
  }
  if (o.json) std::printf("%s\n", json.dump(2).c_str());
  if (!o.json) print_table(json);
  return std::fflush(stdout) == 0 ? 0 : 1;
}

}  // namespace mete
