// Complete unrolling of a loop with a constant trip count, so that arrays of vectors live in registers.
#pragma once

#if defined(__clang__)
#define METE_UNROLL _Pragma("clang loop unroll(full)")
#else
#define METE_UNROLL _Pragma("GCC unroll 64")
#endif
