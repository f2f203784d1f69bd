// Perplexity with llama-perplexity's windows and scoring: windows of -c tokens without overlap, each starting
// with BOS where the model uses one; positions c/2 .. c-2 of a window predict the token after them.
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <optional>

#include "apps/args.h"
#include "apps/commands.h"
#include "apps/conversation.h"
#include "apps/logits_file.h"
#include "apps/progress.h"
#include "engine/runtime.h"

namespace mete {
namespace {

struct EvalOptions {
  ModelOptions model;
  std::string file, save_logits, numerics = "standard";
  int64_t window = 512, chunks = -1;
  bool json = false;
};

/// Negative log-likelihood sums over scored positions.
struct Score {
  double sum = 0, sum_squares = 0;
  int64_t count = 0;
  void add(double nll) {
    sum += nll;
    sum_squares += nll * nll;
    ++count;
  }
  double perplexity() const { return std::exp(sum / static_cast<double>(count)); }
  /// Standard error of the perplexity, from that of the mean by the delta method.
  double standard_error() const {
    if (count < 2) return 0;
    const auto n = static_cast<double>(count);
    const double mean = sum / n, variance = sum_squares / n - mean * mean;
    return variance > 0 ? perplexity() * std::sqrt(variance / (n - 1)) : 0;
  }
};

/// -log softmax(logits)[target], in double.
double negative_log_likelihood(const float* logits, int64_t vocab, int32_t target) {
  float max = logits[0];
  for (int64_t i = 1; i < vocab; ++i) max = std::max(max, logits[i]);
  double sum = 0;
  for (int64_t i = 0; i < vocab; ++i) sum += std::exp(static_cast<double>(logits[i]) - max);
  return std::log(sum) + max - logits[target];
}

/// Scores one window; appends its scored logits rows to `save` if given. Rows are fed in steps of at most
/// runtime.max_rows(), fewer where logits are wanted so that their buffer stays small.
void score_window(Runtime& runtime, std::span<const int32_t> tokens, AlignedBuffer& buffer, Score& score,
                  LogitsWriter* save) {
  constexpr int64_t kLogitsRows = 64;
  const int64_t vocab = runtime.model_config().vocab, count = static_cast<int64_t>(tokens.size());
  const int64_t first_scored = count / 2, last_scored = count - 2;
  const SeqId seq = runtime.kv().create();
  std::vector<Row> rows;
  std::vector<int32_t> wanted;
  for (int64_t begin = 0; begin <= last_scored;) {
    int64_t end = std::min(begin + runtime.max_rows(), last_scored + 1);
    if (begin < first_scored) end = std::min(end, first_scored);
    if (begin >= first_scored) end = std::min(end, begin + kLogitsRows);
    rows.clear();
    wanted.clear();
    for (int64_t i = begin; i < end; ++i) {
      rows.push_back({tokens[static_cast<size_t>(i)], static_cast<int32_t>(i), seq});
      if (i >= first_scored) wanted.push_back(static_cast<int32_t>(i - begin));
    }
    Batch batch;
    batch.rows = rows;
    batch.logits_rows = wanted;
    Outputs outputs;
    outputs.logits = buffer.as<float>();
    runtime.step(batch, outputs).or_throw();
    for (size_t w = 0; w < wanted.size(); ++w) {
      const float* logits = outputs.logits + static_cast<int64_t>(w) * vocab;
      score.add(negative_log_likelihood(logits, vocab, tokens[static_cast<size_t>(begin + wanted[w] + 1)]));
      if (save != nullptr) save->row(logits);
    }
    begin = end;
  }
  runtime.kv().release(seq);
}

}  // namespace

int cmd_eval(const std::vector<std::string>& args) {
  CLI::App app("Perplexity of a text, with llama-perplexity's windows and scoring.", "mete eval");
  EvalOptions o;
  o.model.add_to(app, false);
  app.add_option("-f,--file", o.file, "text to score")->required();
  app.add_option("-c,--ctx-size", o.window, "tokens per window")
      ->check(CLI::Range(int64_t{4}, int64_t{1} << 20))
      ->capture_default_str();
  app.add_option("--chunks", o.chunks, "windows to score; -1: all")->capture_default_str();
  app.add_option("--numerics", o.numerics,
                 "standard, or reference: float32 activations, sums in double (slow)")
      ->check(CLI::IsMember({"standard", "reference"}))
      ->capture_default_str();
  app.add_option("--save-logits", o.save_logits,
                 "write the scored logits rows as float32 (format: docs/numerics.md)");
  app.add_flag("--json", o.json, "print one JSON object on stdout and nothing else");
  if (const int code = parse(app, args); code >= 0) return code;
  if (o.chunks == 0 || o.chunks < -1)
    throw bad_usage("--chunks: found {}, expected -1 or at least 1", o.chunks);

  const std::string text = read_text_file(o.file);
  if (text.empty()) throw bad_usage("{}: the text is empty", o.file);
  RuntimeConfig config = o.model.config();
  config.context = o.window;
  config.mode = o.numerics == "reference" ? NumericMode::kReference : NumericMode::kStandard;
  std::optional<Runtime> runtime;
  {
    Progress progress("loading");
    config.progress = Progress::callback;
    config.progress_user = &progress;
    runtime.emplace(config);
  }
  const Tokenizer& tokenizer = runtime->tokenizer();
  std::vector<int32_t> tokens = encode_raw(tokenizer, text);
  const int64_t available = static_cast<int64_t>(tokens.size()) / o.window;
  if (available == 0) {
    throw bad_usage("{}: {} tokens, fewer than one window of {} (-c)", o.file, tokens.size(), o.window);
  }
  if (o.chunks > available) {
    throw bad_usage("--chunks: found {}, but {} has {} windows of {} tokens", o.chunks, o.file, available,
                    o.window);
  }
  const int64_t chunks = o.chunks == -1 ? available : o.chunks;
  tokens.resize(static_cast<size_t>(chunks * o.window));
  if (tokenizer.add_bos()) {
    for (int64_t i = 0; i < chunks; ++i) tokens[static_cast<size_t>(i * o.window)] = tokenizer.bos();
  }

  const int64_t vocab = runtime->model_config().vocab;
  std::optional<LogitsWriter> save;
  if (!o.save_logits.empty()) save.emplace(o.save_logits, vocab, o.window, tokens);
  AlignedBuffer buffer(static_cast<size_t>(64 * vocab) * sizeof(float));
  Score score;
  {
    Progress progress("eval");
    for (int64_t i = 0; i < chunks; ++i) {
      const std::span<const int32_t> window(tokens.data() + i * o.window, static_cast<size_t>(o.window));
      score_window(*runtime, window, buffer, score, save ? &*save : nullptr);
      progress.update(i + 1, chunks);
    }
  }
  if (save) save->close();
  if (o.json) {
    const nlohmann::ordered_json out = {{"ppl", score.perplexity()}, {"ppl_se", score.standard_error()},
                                        {"tokens", score.count},     {"windows", chunks},
                                        {"n_ctx", o.window},         {"numerics", o.numerics}};
    std::printf("%s\n", out.dump(2).c_str());
  } else {
    std::printf("perplexity %.4f +- %.5f (%lld tokens in %lld windows of %lld)\n", score.perplexity(),
                score.standard_error(), static_cast<long long>(score.count), static_cast<long long>(chunks),
                static_cast<long long>(o.window));
  }
  return std::fflush(stdout) == 0 ? 0 : 1;
}

}  // namespace mete
