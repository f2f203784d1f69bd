#include "apps/routing.h"

#include <algorithm>

#include "apps/conversation.h"
#include "apps/progress.h"
#include "engine/routing_recorder.h"

namespace mete {

void RoutingArgs::add_to(CLI::App& app) {
  const char* group = "Routing trace of a mixture-of-experts model";
  app.add_option("--routing", out, "run a text and write the routers' choices to this file")->group(group);
  const auto add = [&](const char* names, auto& value, const char* help) {
    CLI::Option* option = app.add_option(names, value, help)->group(group)->capture_default_str();
    of_routing_.push_back(option);
    return option;
  };
  add("-p,--prompt", prompt, "the text");
  add("-f,--file", file, "file that holds the text");
  add("-c,--ctx-size", window, "tokens per window, each a sequence of its own")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20));
  add("--tokens", tokens, "tokens at most; -1: the whole text");
  add("--ubatch-size", rows, "(-ub) rows per step; 1: as in decoding")->check(CLI::Range(1, 65536));
  add("-t,--threads", threads, "threads")->check(CLI::Range(1, 1024));
  experts.add_to(app);
}

void RoutingArgs::finish() {
  for (const CLI::Option* option : of_routing_) {
    if (option->count() > 0 && !wanted()) {
      throw bad_usage("{} has no effect without --routing", option->get_name(false, false));
    }
  }
  store = experts.finish(false);
  if (store.streamed() && !wanted()) throw bad_usage("--expert-slots has no effect without --routing");
  if (wanted() && prompt.empty() == file.empty()) throw bad_usage("--routing: expected a text, -p or -f");
}

void record_routing(const std::string& model, const RoutingArgs& args) {
  const std::string text = args.prompt.empty() ? read_text_file(args.file) : args.prompt;
  RuntimeConfig config;
  config.model_path = model;
  config.threads = args.threads;
  config.context = args.window;
  config.max_rows = std::min(args.rows, args.window);
  config.experts = args.store;
  Progress progress("recording");
  Runtime runtime(config);
  RoutingRecorder recorder(args.out, runtime.model_config());
  if (runtime.expert_store() != nullptr) runtime.expert_store()->set_log(&recorder);
  std::vector<int32_t> tokens = encode_raw(runtime.tokenizer(), text);
  if (tokens.empty()) throw bad_usage("--routing: the text is empty");
  if (args.tokens >= 0 && static_cast<int64_t>(tokens.size()) > args.tokens) {
    tokens.resize(static_cast<size_t>(args.tokens));
  }
  const auto count = static_cast<int64_t>(tokens.size());
  AlignedBuffer logits(static_cast<size_t>(config.max_rows * runtime.model_config().vocab) * sizeof(float));
  std::vector<Row> rows;
  std::vector<int32_t> wanted;  // all: the last layer computes only rows whose logits are wanted
  for (int64_t begin = 0; begin < count; begin += args.window) {
    const SeqId seq = runtime.kv().create();
    recorder.sequence();
    const int64_t end = std::min(count, begin + args.window);
    for (int64_t at = begin; at < end; at += config.max_rows) {
      rows.clear();
      wanted.clear();
      for (int64_t i = at; i < std::min(end, at + config.max_rows); ++i) {
        rows.push_back({tokens[static_cast<size_t>(i)], static_cast<int32_t>(i - begin), seq});
        wanted.push_back(static_cast<int32_t>(i - at));
      }
      Batch batch;
      batch.rows = rows;
      batch.logits_rows = wanted;
      Outputs outputs;
      outputs.logits = logits.as<float>();
      outputs.routing = &recorder;
      runtime.step(batch, outputs).or_throw();
      progress.update(at, count);
    }
    runtime.kv().release(seq);
  }
  recorder.close();
  progress.clear();
  fmt::print("{} tokens in {} windows of {}, {} rows per step, written to {}\n", count,
             (count + args.window - 1) / args.window, args.window, config.max_rows, args.out);
  if (ExpertStore* store = runtime.expert_store()) {
    const ExpertCounts counts = store->stats().counts;
    fmt::print("experts {} hit, {} missed, read ahead {}, useful {} ({} slots, {}; {})\n", counts.hits,
               counts.misses, counts.guesses, counts.useful_guesses, store->slots(), store->policy(),
               store->how());
  }
}

}  // namespace mete
