#include "apps/eval_quality.h"

#include <filesystem>

#include "apps/memory.h"
#include "apps/progress.h"

namespace mete {
namespace {

/// What --reference names, opened; the runtime is null for a file.
struct OpenReference {
  std::unique_ptr<Runtime> runtime;
  std::unique_ptr<Reference> reference;
};

OpenReference open_reference(const EvalOptions& o, const Runtime& own, const Windows& windows,
                             const std::string& text) {
  OpenReference open;
  if (o.reference.empty()) return open;
  const int64_t vocab = own.model_config().vocab;
  if (is_logits_file(o.reference)) {
    if (o.reference_numerics != "standard") {
      throw bad_usage("--reference-numerics has no effect: {} is a logits file", o.reference);
    }
    open.reference = std::make_unique<FileReference>(o.reference, vocab, windows);
    return open;
  }
  const bool self = o.reference == "self";
  RuntimeConfig config = o.runtime_config(o.window);
  if (config.memory_bytes > 0) {
    throw bad_usage("--memory is a ceiling for one model: found --reference {}, expected a logits file",
                    o.reference);
  }
  config.key_codec = config.value_codec = KvType::kF16;
  config.model_path = self ? o.model.model : o.reference;
  if (!self) {  // options of the other file
    config.experts = {};
    config.embeddings = EmbeddingPlace::kAuto;
  }
  config.mode =
      self || o.reference_numerics == "reference" ? NumericMode::kReference : NumericMode::kStandard;
  open.runtime = load_with_progress(config, "loading the reference");
  if (open.runtime->model_config().vocab != vocab) {
    throw bad_usage("{}: a reference of another tokenizer: {} logits, expected {}", o.reference,
                    open.runtime->model_config().vocab, vocab);
  }
  require_same_tokenizer(own.tokenizer(), open.runtime->tokenizer(), o.reference, text);
  open.reference = std::make_unique<ModelReference>(*open.runtime, windows);
  return open;
}

std::vector<PositionRange> by_position(const RowLog& log, const Windows& windows, int64_t buckets) {
  std::vector<PositionRange> ranges;
  const int64_t first = windows.first_scored(), count = windows.scored();
  for (int64_t b = 0; b < std::min(buckets, count); ++b) {
    const int64_t n = std::min(buckets, count);
    const int64_t begin = first + count * b / n, end = first + count * (b + 1) / n;
    ranges.push_back({begin, end - 1, log.summary(begin, end - 1)});
  }
  return ranges;
}

/// Tokens/s of up to 32 tokens, one by one, after the first half of the first window.
double time_decoding(Runtime& runtime, const Windows& windows) {
  const std::span<const int32_t> tokens = windows.window(0);
  const int64_t begin = windows.first_scored(), end = std::min(windows.size, begin + 32);
  AlignedBuffer logits(static_cast<size_t>(runtime.model_config().vocab) * sizeof(float));
  const SeqId seq = runtime.kv().create();
  double start = 0;
  std::vector<Row> rows;
  for (int64_t at = 0; at < end;) {
    const int64_t stop = at < begin ? std::min(begin, at + runtime.max_rows()) : at + 1;
    rows.clear();
    for (int64_t i = at; i < stop; ++i) {
      rows.push_back({tokens[static_cast<size_t>(i)], static_cast<int32_t>(i), seq});
    }
    const auto last = static_cast<int32_t>(rows.size()) - 1;
    if (at == begin) start = now_seconds();
    Batch batch;
    batch.rows = rows;
    batch.logits_rows = std::span(&last, 1);
    Outputs outputs;
    outputs.logits = logits.as<float>();
    runtime.step(batch, outputs).or_throw();
    at = stop;
  }
  const double seconds = now_seconds() - start;
  runtime.kv().release(seq);
  return static_cast<double>(end - begin) / seconds;
}

/// Throws Error(kRuntime) if there is less room where the file is or will be.
void require_space(const std::string& path, int64_t bytes) {
  namespace fs = std::filesystem;
  const fs::path place = fs::exists(path) ? fs::path(path) : fs::absolute(path).parent_path();
  std::error_code failed;
  const fs::space_info space = fs::space(place, failed);
  if (!failed && space.available < static_cast<uint64_t>(bytes)) {
    throw run_failure("{}: logits of {} bytes, but {} are free there (--chunks, --compact)", path, bytes,
                      space.available);
  }
}

}  // namespace

QualityResult measure_quality(const EvalOptions& o, int decode_repetitions) {
  const std::string path = find_data_file(o.file, o.data);
  const std::string text = read_text_file(path);
  if (text.empty()) throw bad_usage("{}: the text is empty", path);
  RuntimeConfig config = o.runtime_config(o.window);
  config.text_bytes = static_cast<int64_t>(text.size()) * kTextCopies;
  const std::unique_ptr<Runtime> runtime = load_with_progress(config, "loading");
  announce_memory("eval", *runtime);
  const Windows windows = cut_windows(runtime->tokenizer(), text, path, o.window, o.chunks);
  const int64_t vocab = runtime->model_config().vocab;
  if (o.compact > vocab)
    throw bad_usage("--compact: found {}, the vocabulary has {} tokens", o.compact, vocab);
  const OpenReference open = open_reference(o, *runtime, windows, text);

  std::unique_ptr<LogitsWriter> save;
  RowSink sink;
  if (!o.save_logits.empty()) {
    require_space(o.save_logits, LogitsWriter::bytes(vocab, windows, o.compact));
    save = std::make_unique<LogitsWriter>(o.save_logits, vocab, windows, o.compact);
    sink = [&](const float* logits, int32_t target) { save->row(logits, target); };
  }
  QualityResult result;
  {
    Progress progress("eval");
    ModelLogits source(*runtime, windows);
    const RowLog log = score_rows(source, windows, vocab, open.reference.get(), sink,
                                  [&](int64_t done, int64_t total) { progress.update(done, total); });
    result.all = log.summary();
    result.by_position = by_position(log, windows, o.buckets);
  }
  if (save) save->close();
  result.compared = open.reference != nullptr;
  result.compact = open.reference ? open.reference->compact() : 0;
  result.windows = windows.count();
  result.weight_bytes = runtime->model_config().weight_bytes;
  result.kv_bytes = static_cast<int64_t>(runtime->kv().capacity_bytes());
  for (int i = 0; i < decode_repetitions; ++i)
    result.decode_rates.push_back(time_decoding(*runtime, windows));
  return result;
}

}  // namespace mete
