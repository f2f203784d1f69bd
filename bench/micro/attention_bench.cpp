// Attention and elementary functions: shares of the float32 FMA peak and of read bandwidth (bench_ceiling).
#include <benchmark/benchmark.h>

#include <vector>

#include "base/rng.h"
#include "kernels/cpu/table.h"
#include "kv/kv_cache.h"

namespace mete {
namespace {

std::vector<float> random_floats(int64_t n, uint64_t seed) {
  std::vector<float> x(static_cast<size_t>(n));
  for (size_t i = 0; i < x.size(); ++i) {
    x[i] = static_cast<float>(2.0 * random_unit(seed, i, Purpose::kTest) - 1.0);
  }
  return x;
}

struct Engine {
  explicit Engine(int threads) : pool(threads) {
    fill_floats(choose_cpu_tier(), table);
    fill_attention(choose_cpu_tier(), table);
  }
  KernelTable table{};
  ThreadPool pool;
  Context ctx{pool, table};
};

/// `rows` new rows on top of `depth`; args: heads, kv_heads, head_dim, rows, depth, codec, threads.
void attention(benchmark::State& state) {
  const int64_t heads = state.range(0), kv_heads = state.range(1), head_dim = state.range(2),
                rows = state.range(3), depth = state.range(4);
  const KvType codec = static_cast<KvType>(state.range(5));
  const int64_t layers = rows < 16 ? 8 : 1;  // decoding must read from memory, not from cache
  Engine engine(static_cast<int>(state.range(6)));
  KvCache cache({layers, kv_heads, head_dim, codec, codec, 32, depth + rows, false});
  const SeqId seq = cache.create();
  const std::vector<float> q = random_floats(rows * heads * head_dim, 1);
  const std::vector<float> kv = random_floats(std::max(rows, int64_t{512}) * kv_heads * head_dim, 2);
  std::vector<float> out(q.size());
  std::vector<Row> batch_rows;
  Batch batch;
  for (int64_t t = 0; t < depth;) {
    batch_rows.clear();
    for (int i = 0; i < 512 && t < depth; ++i, ++t) batch_rows.push_back({0, static_cast<int32_t>(t), seq});
    batch.rows = batch_rows;
    cache.begin_step(batch).or_throw();
    for (int l = 0; l < layers; ++l) cache.access().store(engine.ctx, l, kv.data(), kv.data());
    cache.end_step();
  }
  batch_rows.clear();
  for (int64_t i = 0; i < rows; ++i) batch_rows.push_back({0, static_cast<int32_t>(depth + i), seq});
  batch.rows = batch_rows;
  cache.begin_step(batch).or_throw();
  AttentionParams params{};
  params.heads = heads;
  params.scale = 0.125f;
  for (int l = 0; l < layers; ++l) cache.access().store(engine.ctx, l, kv.data(), kv.data());
  int layer = 0;
  for (auto _ : state) {
    cache.access().attend(engine.ctx, layer, q.data(), params, out.data());
    layer = (layer + 1) % static_cast<int>(layers);
  }
  double pairs = 0.0;
  for (int64_t i = 0; i < rows; ++i) pairs += static_cast<double>(depth + i + 1);
  const double n = static_cast<double>(state.iterations());
  const double bytes = static_cast<double>(cache.layout().page_bytes() * static_cast<size_t>(kv_heads)) *
                       static_cast<double>((depth + rows) / 32);
  state.counters["GFLOP/s"] = benchmark::Counter(n * pairs * static_cast<double>(heads * head_dim) * 4e-9,
                                                 benchmark::Counter::kIsRate);
  state.counters["GB/s"] = benchmark::Counter(n * bytes * 1e-9, benchmark::Counter::kIsRate);
}
constexpr int64_t kF16 = 1, kQ8 = 3;
BENCHMARK(attention)  // prefill
    ->Args({9, 3, 64, 512, 0, kF16, 1})
    ->Args({9, 3, 64, 512, 8192, kF16, 1})
    ->Args({14, 2, 64, 512, 0, kF16, 1})
    ->Args({4, 1, 256, 512, 0, kF16, 1})
    ->Args({12, 2, 128, 512, 0, kF16, 1})
    ->Args({9, 3, 64, 512, 0, kF16, 2})
    ->UseRealTime();
BENCHMARK(attention)  // decode
    ->Name("attention_decode")
    ->Args({9, 3, 64, 1, 8192, kF16, 1})
    ->Args({14, 2, 64, 1, 8192, kF16, 1})
    ->Args({16, 2, 64, 1, 8192, kF16, 1})
    ->Args({9, 3, 64, 4, 8192, kF16, 1})
    ->Args({14, 2, 64, 4, 8192, kF16, 1})
    ->Args({4, 1, 256, 1, 8192, kF16, 1})
    ->Args({12, 2, 128, 1, 8192, kF16, 1})
    ->Args({9, 3, 64, 1, 8192, kQ8, 1})
    ->Args({9, 3, 64, 1, 8192, kF16, 2})
    ->Args({9, 3, 64, 1, 128, kF16, 1})
    ->Args({9, 3, 64, 1, 128, kF16, 2})
    ->UseRealTime();

void kv_store_rows(benchmark::State& state) {
  const int64_t rows = state.range(0);
  Engine engine(1);
  KvCache cache(
      {1, 3, 64, static_cast<KvType>(state.range(1)), static_cast<KvType>(state.range(1)), 32, rows, false});
  const SeqId seq = cache.create();
  const std::vector<float> kv = random_floats(rows * 3 * 64, 2);
  std::vector<Row> batch_rows;
  for (int64_t i = 0; i < rows; ++i) batch_rows.push_back({0, static_cast<int32_t>(i), seq});
  Batch batch;
  batch.rows = batch_rows;
  cache.begin_step(batch).or_throw();
  for (auto _ : state) cache.access().store(engine.ctx, 0, kv.data(), kv.data());
  state.counters["elements"] = benchmark::Counter(static_cast<double>(state.iterations() * rows * 3 * 64 * 2),
                                                  benchmark::Counter::kIsRate);
}
BENCHMARK(kv_store_rows)->Args({512, kF16})->Args({512, kQ8})->Args({1, kF16});

template <typename Call>
void over_elements(benchmark::State& state, Call call) {
  Engine engine(1);
  const int64_t n = 1536;
  std::vector<float> x = random_floats(n, 1), out(x.size());
  for (auto _ : state) {
    call(engine.table.floats, x.data(), n, out.data());
    benchmark::DoNotOptimize(out.data());
    benchmark::ClobberMemory();
  }
  state.counters["elements"] =
      benchmark::Counter(static_cast<double>(state.iterations() * n), benchmark::Counter::kIsRate);
}
using Floats = FloatKernels;
BENCHMARK_CAPTURE(over_elements, exp, [](const Floats& f, float* x, int64_t n, float* y) { f.exp(x, n, y); });
BENCHMARK_CAPTURE(over_elements, silu_mul,
                  [](const Floats& f, float* x, int64_t n, float* y) { f.silu_mul(x, x, n, y); });
BENCHMARK_CAPTURE(over_elements, gelu_mul,
                  [](const Floats& f, float* x, int64_t n, float* y) { f.gelu_mul(x, x, n, y); });
BENCHMARK_CAPTURE(over_elements, softcap,
                  [](const Floats& f, float* x, int64_t n, float* y) { f.softcap(x, 30.0f, n, y); });
BENCHMARK_CAPTURE(over_elements, rms_norm,
                  [](const Floats& f, float* x, int64_t n, float* y) { f.rms_norm(x, x, 1e-5f, n, y); });
BENCHMARK_CAPTURE(over_elements, row_stats, [](const Floats& f, float* x, int64_t n, float* y) {
  const RowStats s = f.row_stats(x, n);
  y[0] = s.entropy;
});

}  // namespace
}  // namespace mete
