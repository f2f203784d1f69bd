// Encoding speed in MB/s on one thread: $METE_MODEL_DIR's models over $METE_DATA_DIR/war-and-peace.txt.
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>

#include "format/gguf.h"
#include "text/tokenizer.h"

namespace mete {
namespace {

std::string directory(const char* variable) {
  const char* value = std::getenv(variable);
  return value == nullptr ? "." : value;
}

void encode(benchmark::State& state, const char* model) {
  std::ifstream file(directory("METE_DATA_DIR") + "/war-and-peace.txt", std::ios::binary);
  std::stringstream content;
  content << file.rdbuf();
  const std::string text = content.str();
  const auto gguf = GgufFile::open(directory("METE_MODEL_DIR") + "/" + model);
  if (text.empty() || !gguf) {
    state.SkipWithError("set METE_MODEL_DIR and METE_DATA_DIR");
    return;
  }
  const auto tokenizer = Tokenizer::create(gguf->metadata()).value();
  std::vector<int32_t> ids;
  for (auto _ : state) {
    ids.clear();
    tokenizer->encode(text, false, ids);
    benchmark::DoNotOptimize(ids.data());
  }
  state.SetBytesProcessed(static_cast<int64_t>(text.size()) * static_cast<int64_t>(state.iterations()));
  state.counters["ids"] = static_cast<double>(ids.size());
}
BENCHMARK_CAPTURE(encode, qwen2, "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf")->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(encode, smollm, "SmolLM2-135M-Instruct.Q4_1.gguf")->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(encode, gemma, "gemma-3-270m-q4_k_m.gguf")->Unit(benchmark::kMillisecond);

void create(benchmark::State& state, const char* model) {
  const auto gguf = GgufFile::open(directory("METE_MODEL_DIR") + "/" + model);
  if (!gguf) {
    state.SkipWithError("set METE_MODEL_DIR");
    return;
  }
  for (auto _ : state) benchmark::DoNotOptimize(Tokenizer::create(gguf->metadata()).value());
}
BENCHMARK_CAPTURE(create, qwen2, "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf")->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(create, gemma, "gemma-3-270m-q4_k_m.gguf")->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace mete
