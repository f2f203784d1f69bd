// Grouped matmul of one MoE layer's gate and up matrices, one thread: 32 experts, each with the same number
// of rows. `GOPS` is the best rate; `of_512` its share of what groups of 512 rows reach, measured in the same
// iteration, so that both see the same machine; `GB/s` the weights read per second.
//   bench_micro --benchmark_filter='grouped/Q4_0'
#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <vector>

#include "base/rng.h"
#include "ops/matmul_grouped.h"
#include "quant/quantize.h"

namespace mete {
namespace {

constexpr int64_t kExperts = 32;

template <class F>
double seconds(F&& f) {
  const auto start = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

struct Layer {
  Layer(DType type, int64_t n, int64_t k)
      : panels(panel_bytes(type, k) * static_cast<size_t>(panel_count(n) * 2 * kExperts), true),
        linears(2 * kExperts) {
    std::vector<float> values(static_cast<size_t>(k));
    std::vector<uint8_t> raw(row_bytes(type, k) * kPanelRows);
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = static_cast<float>(random_unit(1, i, Purpose::kTest)) - 0.5f;
    }
    for (size_t r = 0; r < kPanelRows; ++r)
      quantize_row(type, values.data(), raw.data() + r * row_bytes(type, k), k);
    uint8_t* place = panels.data();
    for (Linear& linear : linears) {
      linear.type = type;
      linear.rows = n;
      linear.cols = k;
      linear.panels = place;
      for (int64_t p = 0; p < panel_count(n); ++p, place += panel_bytes(type, k)) {
        pack_panel(type, raw.data(), kPanelRows, k, place);
      }
    }
  }
  AlignedBuffer panels;
  std::vector<Linear> linears;  // gate and up of each expert
};

/// `experts` experts of `rows` rows each, taken from rows * experts / 4 tokens that use 4 experts each.
struct Work {
  Work(const Layer& layer, int64_t experts, int64_t rows, int64_t n, int64_t k)
      : tokens(std::max(rows, rows * experts / 4)),
        x(static_cast<size_t>(tokens * k), 0.25f),
        out(static_cast<size_t>(rows * n)) {
    for (int64_t e = 0; e < experts; ++e) {
      std::vector<int32_t> list;
      for (int64_t r = 0; r < rows; ++r) list.push_back(static_cast<int32_t>(r * tokens / rows));
      lists.push_back(list);
    }
    for (int64_t e = 0; e < experts; ++e) {
      for (int64_t part = 0; part < 2; ++part) {
        groups.push_back({&layer.linears[static_cast<size_t>(2 * e + part)], lists[static_cast<size_t>(e)],
                          out.data(), n});
      }
    }
    input.reset(x.data(), tokens, k);
    ops = 2.0 * static_cast<double>(2 * experts * rows * n * k);
  }
  int64_t tokens;
  std::vector<float> x, out;
  std::vector<std::vector<int32_t>> lists;
  std::vector<MatmulGroup> groups;
  GroupedInput input;
  double ops;
};

void bench_grouped(benchmark::State& state, DType type, int64_t rows, int64_t n, int64_t k) {
  const KernelTable table = make_kernel_table(choose_cpu_tier());
  ThreadPool pool(1);
  Context ctx{pool, table};
  const Layer layer(type, n, k);
  Work work(layer, kExperts, rows, n, k), large(layer, 2, 512, n, k);
  double best = 1e30, limit = 1e30;
  for (auto _ : state) {
    limit = std::min(limit, seconds([&] { matmul_grouped(ctx, large.input, large.groups); }));
    const double s = seconds([&] { matmul_grouped(ctx, work.input, work.groups); });
    best = std::min(best, s);
    state.SetIterationTime(s);
  }
  state.counters["GOPS"] = work.ops / best / 1e9;
  state.counters["of_512"] = (work.ops / best) / (large.ops / limit);
  state.counters["GB/s"] = static_cast<double>(layer.panels.bytes()) / best / 1e9;
}

const bool registered = [] {
  const auto add = [](DType type, int64_t n, int64_t k) {
    for (const int64_t rows : {1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 24, 32, 64, 128, 512}) {
      const std::string title = fmt::format("grouped/{}/N{}/K{}/rows{}", name(type), n, k, rows);
      benchmark::RegisterBenchmark(title.c_str(), bench_grouped, type, rows, n, k)
          ->UseManualTime()
          ->Unit(benchmark::kMicrosecond);
    }
  };
  add(DType::kQ4_0, 128, 576);   // SmolMoE
  add(DType::kQ4_K, 768, 2048);  // Qwen3-30B-A3B
  return true;
}();

}  // namespace
}  // namespace mete
