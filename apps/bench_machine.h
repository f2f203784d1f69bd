// `mete bench --machine`.
#pragma once

#include "apps/bench_options.h"

namespace mete {

int bench_machine(const BenchOptions& options);

}  // namespace mete
