// What one report to the ledger costs: a change of part with its bytes, and a counter.
#include <benchmark/benchmark.h>

#include "base/ledger.h"

namespace mete {
namespace {

void ledger_enter(benchmark::State& state) {
  Ledger ledger;
  for (auto _ : state) {
    ledger.enter(Part::kMatmul);
    ledger.read(64);
    ledger.enter(Part::kElementwise);
    ledger.read(64);
  }
  state.SetItemsProcessed(state.iterations() * 2);  // time per report = 1 / items_per_second
}
BENCHMARK(ledger_enter);

void ledger_add(benchmark::State& state) {
  Ledger ledger;
  for (auto _ : state) {
    ledger.add(Counter::kRows, 1);
    benchmark::ClobberMemory();
  }
}
BENCHMARK(ledger_add);

void ledger_mark(benchmark::State& state) {
  Ledger ledger;
  for (auto _ : state) benchmark::DoNotOptimize(ledger.mark());
}
BENCHMARK(ledger_mark);

}  // namespace
}  // namespace mete
