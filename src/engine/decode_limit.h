// How fast one sequence can be decoded at most on this machine.
#pragma once

#include "engine/runtime.h"

namespace mete {

/// Tokens per second at which one sequence would read the weights as fast as memory allows, by the machine's
/// kept profile (mete bench --machine); 0 if there is none for this machine and number of threads.
double decode_limit(const Runtime& runtime);

}  // namespace mete
